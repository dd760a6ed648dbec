"""Dropout, alpha dropout, stochastic depth: off without a key, right on average with one."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from modaltune_jax.models.regularisation import alpha_dropout, drop_path, dropout, fold

ALL = pytest.mark.parametrize("function", [dropout, alpha_dropout, drop_path])
KEY = jax.random.key(0)


def normal(*shape: int) -> jax.Array:
    return jax.random.normal(jax.random.key(1), shape)


@ALL
@pytest.mark.parametrize(
    ("rate", "key"), [pytest.param(0.5, None, id="no key"), pytest.param(0.0, KEY, id="no rate")]
)
def test_evaluation_changes_nothing(function, rate, key):
    x = normal(4, 3)
    assert function(x, rate, key) is x


@ALL
def test_the_key_decides(function):
    x = normal(64, 8)
    once, again, other = (function(x, 0.5, key) for key in (KEY, KEY, jax.random.key(5)))
    np.testing.assert_array_equal(once, again)
    assert not np.array_equal(once, other)


@pytest.mark.parametrize("rate", [0.1, 0.25, 0.9])
def test_dropout_drops_its_share_and_keeps_the_mean(rate):
    y = np.asarray(dropout(jnp.ones(200_000), rate, KEY))
    assert np.mean(y == 0) == pytest.approx(rate, abs=0.005)
    np.testing.assert_allclose(y[y != 0], 1 / (1 - rate), rtol=1e-6)


@pytest.mark.parametrize("rate", [0.1, 0.25, 0.5])
def test_alpha_dropout_keeps_mean_and_variance(rate):
    x = normal(400_000)
    y = np.asarray(alpha_dropout(x, rate, KEY))
    assert y.mean() == pytest.approx(0.0, abs=0.01)
    assert y.std() == pytest.approx(1.0, abs=0.01)
    values, counts = np.unique(y, return_counts=True)
    assert counts.max() / y.size == pytest.approx(rate, abs=0.005), "dropped entries share one value"
    assert values[counts.argmax()] < 0


@pytest.mark.parametrize("shape", [(20_000,), (20_000, 3), (20_000, 2, 3)])
def test_drop_path_drops_whole_cases(shape):
    y = np.asarray(drop_path(jnp.ones(shape), 0.25, KEY)).reshape(shape[0], -1)
    assert (y == y[:, :1]).all(), "all of a case or nothing"
    assert np.mean(y[:, 0] == 0) == pytest.approx(0.25, abs=0.015)
    np.testing.assert_allclose(y[y != 0], 1 / 0.75, rtol=1e-6)


def test_fold():
    assert fold(None, 3) is None
    keys = [jax.random.key_data(fold(KEY, purpose)).tolist() for purpose in range(5)]
    assert len({tuple(key) for key in keys}) == 5
    np.testing.assert_array_equal(jax.random.key_data(fold(KEY, 2)), keys[2])

"""The schedule, the optimizer, and who is trained."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from modaltune_jax.optim import OptimConfig, count, make_optimizer, merge_params, schedule, split_params
from modaltune_jax.types import InputError

ALL = ((".*", "train"),)


def config(**changes) -> OptimConfig:
    values = {
        "learning_rate": 1e-3,
        "weight_decay": 0.01,
        "b1": 0.9,
        "b2": 0.999,
        "epochs": 10,
        "warmup_epochs": 2,
        "warmup_start": 0.05,
        "max_grad_norm": 0.0,
        "accumulate_steps": 1,
        "rules": ALL,
    }
    return OptimConfig(**{**values, **changes})


def params():
    return {
        "encoder": {"layers": {0: {"kernel": jnp.ones((2, 3))}, 1: {"kernel": jnp.zeros((3, 3))}}},
        "adapter": {"gamma": jnp.arange(4.0), "kernel": jnp.full((2, 2), 0.5)},
    }


@pytest.mark.parametrize(
    ("step", "expected"),
    [
        pytest.param(0, 0.05e-3, id="start"),
        pytest.param(5, (0.05 + 0.95 / 2) * 1e-3, id="half of the warm-up"),
        pytest.param(10, 1e-3, id="peak"),
        pytest.param(20, 0.5e-3 * (1 + math.cos(math.pi / 4)), id="a quarter of the decay"),
        pytest.param(30, 0.5e-3, id="half of the decay"),
        pytest.param(50, 0.0, id="end"),
        pytest.param(60, 0.0, id="beyond the end"),
    ],
)
def test_learning_rate(step, expected):
    assert float(schedule(config(), 5)(step)) == pytest.approx(expected, rel=1e-5, abs=1e-12)


def test_without_warm_up_the_first_step_has_the_peak():
    rate = schedule(config(warmup_epochs=0), 5)
    assert float(rate(0)) == pytest.approx(1e-3)
    assert float(rate(50)) == pytest.approx(0.0, abs=1e-12)


def test_schedule_counts_updates():
    """11 batches an epoch, 2 an update: 55 updates in all, 11 of warm-up."""
    rate, by_batch = schedule(config(accumulate_steps=2), 11), schedule(config(), 11)
    for update in (0, 11, 30, 55):
        assert float(rate(update)) == pytest.approx(float(by_batch(2 * update)), abs=1e-9)


def test_updates_must_be_left_for_the_cosine():
    with pytest.raises(InputError, match=r"accumulate_steps=40 makes 0 updates of the 30 batches"):
        schedule(config(accumulate_steps=40), 3)


@pytest.mark.parametrize("warmup_epochs", [10, 11])
def test_warm_up_must_leave_room(warmup_epochs):
    with pytest.raises(InputError, match=r"warmup_epochs=1[01].*epochs=10"):
        schedule(config(warmup_epochs=warmup_epochs), 5)


def test_first_step_of_adamw_by_hand():
    """The first Adam step is the sign of the gradient; decay is decoupled and of every parameter."""
    optimizer = make_optimizer(config(warmup_epochs=0), 5)
    weights = {"scale": jnp.asarray([2.0, -3.0])}
    updates, _ = optimizer.update({"scale": jnp.asarray([0.3, -20.0])}, optimizer.init(weights), weights)
    np.testing.assert_allclose(updates["scale"], [-1e-3 * (1 + 0.02), 1e-3 * (1 + 0.03)], rtol=1e-5)


@pytest.mark.parametrize(("max_grad_norm", "norm"), [(0.0, 50.0), (1.0, 1.0), (100.0, 50.0)])
def test_clipping(max_grad_norm, norm):
    """The first moment holds a tenth of the gradient that AdamW was given."""
    optimizer = make_optimizer(config(max_grad_norm=max_grad_norm), 5)
    weights = {"a": jnp.zeros(2)}
    _, state = optimizer.update({"a": jnp.asarray([30.0, -40.0])}, optimizer.init(weights), weights)
    (moments,) = [
        part.mu
        for part in jax.tree.leaves(state, is_leaf=lambda part: hasattr(part, "mu"))
        if hasattr(part, "mu")
    ]
    assert float(jnp.linalg.norm(moments["a"])) == pytest.approx(0.1 * norm, rel=1e-5)


def test_split_and_merge_are_inverse():
    whole = params()
    trainable, frozen = split_params(whole, (("^encoder/", "freeze"), (".*", "train")))
    assert set(trainable) == {"adapter"}
    assert set(frozen) == {"encoder"}
    assert (count(trainable), count(frozen)) == (8, 15)
    merged = merge_params(trainable, frozen)
    assert jax.tree.structure(merged) == jax.tree.structure(whole)
    assert all(jax.tree.leaves(jax.tree.map(np.array_equal, merged, whole)))


def test_the_first_rule_decides():
    rules = (("layers/1/", "train"), ("^encoder/", "freeze"), ("gamma$", "freeze"), ("^adapter/", "train"))
    trainable, frozen = split_params(params(), rules)
    assert set(trainable["encoder"]["layers"]) == {1}
    assert set(frozen["encoder"]["layers"]) == {0}
    assert set(trainable["adapter"]) == {"kernel"}
    assert set(frozen["adapter"]) == {"gamma"}


@pytest.mark.parametrize(
    ("rules", "message"),
    [
        pytest.param((("^encoder/", "freeze"),), 'nothing about parameter "adapter/gamma"', id="uncovered"),
        pytest.param((), "nothing about parameter", id="no rules"),
        pytest.param((("head", "train"), *ALL), "'head' decides about no parameter", id="useless"),
        pytest.param(
            (*ALL, ("^encoder/", "freeze")), "'^encoder/' decides about no parameter", id="too late"
        ),
        pytest.param(((".*", "learn"),), "'learn'; it must say", id="another word"),
    ],
)
def test_rules_that_do_not_fit_are_refused(rules, message):
    with pytest.raises(InputError) as info:
        split_params(params(), rules)
    assert message in str(info.value)

"""DeLong's method against its definition, the paired bootstrap, and its promise."""

import math

import numpy as np
import pytest
from scipy.stats import norm
from sklearn.metrics import roc_auc_score

from modaltune_jax.metrics.delong import delong_interval, delong_test
from modaltune_jax.metrics.intervals import paired_bootstrap
from modaltune_jax.types import InputError


def draw(seed, num=80, ties=False):
    """Two models that make the same mistakes."""
    rng = np.random.default_rng(seed)
    labels = rng.random(num) < 0.4
    seen = labels + rng.normal(size=num)
    scores = np.stack([seen + rng.normal(0, 0.5, num), seen + rng.normal(0, 1.0, num)])
    return labels, np.round(scores, 0 if ties else 12)


def by_definition(labels, scores):
    """Areas and covariance from the wins of every pair of a case of the class and one of the rest."""
    wins = [
        np.sign(row[labels][:, None] - row[~labels]) / 2 + 0.5 for row in scores
    ]  # 1 won, 0.5 tied, 0 lost
    beats = np.cov([one.mean(1) for one in wins]) / labels.sum()
    beaten = np.cov([one.mean(0) for one in wins]) / (~labels).sum()
    return np.array([one.mean() for one in wins]), beats + beaten


@pytest.mark.parametrize("ties", [False, True])
@pytest.mark.parametrize("seed", range(3))
def test_equals_the_definition(seed, ties):
    labels, scores = draw(seed, ties=ties)
    areas, covariance = by_definition(labels, scores)
    np.testing.assert_allclose(areas, [roc_auc_score(labels, row) for row in scores])
    low, high = delong_interval(labels, scores[0], level=0.8)
    assert low + high == pytest.approx(2 * areas[0])
    assert high - low == pytest.approx(2 * norm.ppf(0.9) * math.sqrt(covariance[0, 0]))
    difference = delong_test(labels, *scores)
    error = math.sqrt(covariance[0, 0] + covariance[1, 1] - 2 * covariance[0, 1])
    assert difference.value == pytest.approx(areas[0] - areas[1])
    assert difference.p == pytest.approx(2 * norm.sf(abs(difference.value) / error))
    assert difference.high - difference.low == pytest.approx(2 * norm.ppf(0.975) * error)


def test_agrees_with_the_paired_bootstrap():
    labels, (first, second) = draw(4, num=300)
    expected = paired_bootstrap(
        lambda rows: roc_auc_score(labels[rows], first[rows]),
        lambda rows: roc_auc_score(labels[rows], second[rows]),
        300,
        num_draws=400,
        strata=labels,
    )
    np.testing.assert_allclose(delong_test(labels, first, second)[:3], expected[:3], atol=0.01)


def test_covers_the_area_as_often_as_it_says():
    truth, covered = norm.cdf(1 / math.sqrt(2)), 0
    for seed in range(600):
        rng = np.random.default_rng(seed)
        labels = np.arange(100) < 40
        low, high = delong_interval(labels, labels + rng.normal(size=100))
        covered += low <= truth <= high
    assert 0.93 <= covered / 600 <= 0.97


def test_models_of_the_same_order_do_not_differ():
    labels, (first, _) = draw(5)
    assert delong_test(labels, first, np.exp(first)) == (0.0, 0.0, 0.0, 1.0, "")


LABELS = np.array([0, 0, 1, 1])


@pytest.mark.parametrize(
    ("labels", "first", "second", "value", "reason"),
    [
        pytest.param(LABELS, LABELS, -LABELS, 1.0, "no variance", id="all right and all wrong"),
        pytest.param([0, 0, 0, 1], LABELS, -LABELS, 2 / 3, "fewer than two", id="one case of the class"),
        pytest.param([1, 1, 1, 1], LABELS, -LABELS, math.nan, "fewer than two", id="one class only"),
        pytest.param([], [], [], math.nan, "fewer than two", id="no case"),
    ],
)
def test_not_estimable(labels, first, second, value, reason):
    labels = np.array(labels, int)
    difference = delong_test(labels, np.array(first, float), np.array(second, float))
    np.testing.assert_allclose(difference.value, value)
    assert math.isnan(difference.p)
    assert difference.reason.startswith(reason)
    assert math.isnan(delong_interval(labels, np.array(first, float)).low)


@pytest.mark.parametrize(
    ("labels", "score", "message"),
    [
        pytest.param([0, 2], [0.1, 0.2], "case 1 has label 2", id="label"),
        pytest.param([0, 1], [math.nan, 0.2], "case 0 has score", id="score"),
    ],
)
def test_bad_input_names_the_case(labels, score, message):
    with pytest.raises(InputError, match=message):
        delong_test(np.array(labels), np.array([0.1, 0.2]), np.array(score))

"""balanced_accuracy against scikit-learn, and its edges."""

import math

import numpy as np
import pytest
from sklearn.metrics import balanced_accuracy_score

from modaltune_jax.metrics.classification import balanced_accuracy
from modaltune_jax.types import InputError


@pytest.mark.parametrize("num_classes", [2, 3, 11])
def test_equals_sklearn(num_classes):
    rng = np.random.default_rng(num_classes)
    labels = rng.choice(num_classes, 400, p=rng.dirichlet(np.full(num_classes, 3.0)))
    predictions = np.where(rng.random(400) < 0.6, labels, rng.integers(0, num_classes, 400))
    estimate = balanced_accuracy(labels, predictions)
    assert estimate.value == pytest.approx(balanced_accuracy_score(labels, predictions), abs=1e-12)
    assert (estimate.num, estimate.num_events, estimate.reason) == (400, 0, "")


@pytest.mark.parametrize(
    ("labels", "predictions", "value"),
    [
        pytest.param([0, 0, 0, 1], [0, 0, 0, 1], 1.0, id="perfect"),
        pytest.param([0, 0, 0, 1], [0, 0, 0, 0], 0.5, id="majority vote is chance"),
        pytest.param([0, 1], [1, 0], 0.0, id="swapped"),
        pytest.param([0, 0, 2], [0, 1, 2], 0.75, id="a predicted class without cases"),
        pytest.param([5, 9], [5, 9], 1.0, id="labels need not be contiguous"),
    ],
)
def test_by_hand(labels, predictions, value):
    assert balanced_accuracy(np.array(labels), np.array(predictions)).value == value


@pytest.mark.parametrize(
    ("labels", "reason"),
    [pytest.param([], "no case", id="empty"), pytest.param([1, 1], "one class only", id="one class")],
)
def test_not_estimable(labels, reason):
    labels = np.array(labels, int)
    estimate = balanced_accuracy(labels, labels)
    assert math.isnan(estimate.value)
    assert not estimate.is_estimable
    assert (estimate.num, estimate.reason) == (len(labels), reason)


def test_unlabelled_case_is_refused():
    with pytest.raises(InputError, match="case 1 has label -1"):
        balanced_accuracy(np.array([0, -1]), np.array([0, 0]))

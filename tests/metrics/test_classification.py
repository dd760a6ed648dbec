"""Classification metrics against scikit-learn, and their edges."""

import math

import numpy as np
import pytest
from sklearn.metrics import (
    average_precision_score,
    balanced_accuracy_score,
    confusion_matrix,
    f1_score,
    roc_auc_score,
)

from modaltune_jax.metrics.classification import (
    auprc,
    auprc_by_class,
    auroc,
    auroc_by_class,
    balanced_accuracy,
    confusion,
    macro_f1,
)
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


def draw_scores(seed, num_classes, ties=False):
    rng = np.random.default_rng(seed)
    labels = rng.choice(num_classes, 120, p=rng.dirichlet(np.full(num_classes, 5.0)))
    scores = rng.normal(size=(120, num_classes)) + (labels[:, None] == np.arange(num_classes))
    scores = np.exp(np.round(scores) if ties else scores)
    return labels, scores / scores.sum(1, keepdims=True)


@pytest.mark.parametrize("num_classes", [2, 3, 11])
def test_f1_and_confusion_equal_sklearn(num_classes):
    rng = np.random.default_rng(num_classes)
    labels = rng.integers(0, num_classes, 300)
    predictions = np.where(rng.random(300) < 0.6, labels, rng.integers(0, num_classes, 300))
    estimate = macro_f1(labels, predictions)
    assert estimate.value == pytest.approx(f1_score(labels, predictions, average="macro"), abs=1e-12)
    np.testing.assert_array_equal(
        confusion(labels, predictions, num_classes + 1),
        confusion_matrix(labels, predictions, labels=range(num_classes + 1)),
    )


@pytest.mark.parametrize(
    ("labels", "predictions", "value"),
    [
        pytest.param([0, 0, 0, 1], [0, 0, 0, 1], 1.0, id="perfect"),
        pytest.param([0, 0, 1, 1], [0, 0, 0, 0], 1 / 3, id="a class never predicted"),
        pytest.param([0, 1], [1, 0], 0.0, id="swapped"),
        pytest.param([0, 0, 2], [0, 1, 2], 5 / 6, id="a predicted class without cases"),
    ],
)
def test_f1_by_hand(labels, predictions, value):
    labels, predictions = np.array(labels), np.array(predictions)
    assert macro_f1(labels, predictions).value == pytest.approx(value)
    expected = f1_score(labels, predictions, labels=np.unique(labels), average="macro", zero_division=0.0)
    assert macro_f1(labels, predictions).value == pytest.approx(expected)


@pytest.mark.parametrize("ties", [False, True])
@pytest.mark.parametrize("num_classes", [2, 3, 5])
def test_areas_equal_sklearn(num_classes, ties):
    labels, scores = draw_scores(num_classes, num_classes, ties)
    is_class = labels[:, None] == np.arange(num_classes)
    expected = roc_auc_score(is_class, scores, average=None)
    np.testing.assert_allclose([one.value for one in auroc_by_class(labels, scores)], expected, atol=1e-12)
    assert auroc(labels, scores).value == pytest.approx(expected.mean(), abs=1e-12)
    expected = average_precision_score(is_class, scores, average=None)
    np.testing.assert_allclose([one.value for one in auprc_by_class(labels, scores)], expected, atol=1e-12)
    assert auprc(labels, scores).value == pytest.approx(expected.mean(), abs=1e-12)


def test_of_two_classes_both_areas_are_the_usual_one():
    labels, scores = draw_scores(9, 2)
    assert auroc(labels, scores).value == pytest.approx(roc_auc_score(labels, scores[:, 1]), abs=1e-12)


def test_constant_scores_are_chance():
    labels, scores = np.array([0, 1, 1, 1]), np.full((4, 2), 0.5)
    assert auroc(labels, scores).value == 0.5
    assert [one.value for one in auprc_by_class(labels, scores)] == [0.25, 0.75]


@pytest.mark.parametrize("metric", [auroc, auprc])
@pytest.mark.parametrize(
    ("labels", "reason"),
    [
        pytest.param([], "no case", id="empty"),
        pytest.param([1, 1], "one class only", id="one class"),
        pytest.param([0, 2, 2], "class 1 has no case", id="a class absent"),
    ],
)
def test_areas_not_estimable(metric, labels, reason):
    estimate = metric(np.array(labels, int), np.random.default_rng(0).random((len(labels), 3)))
    assert math.isnan(estimate.value)
    assert (estimate.num, estimate.reason) == (len(labels), reason)


def test_the_other_classes_have_an_area_where_one_is_absent():
    reasons = [one.reason for one in auroc_by_class(np.array([0, 2, 2]), np.eye(3))]
    assert reasons == ["", "class 1 has no case", ""]


@pytest.mark.parametrize("labels", [[], [1, 1]], ids=["empty", "one class"])
def test_f1_not_estimable(labels):
    estimate = macro_f1(np.array(labels, int), np.array(labels, int))
    assert math.isnan(estimate.value)
    assert estimate.reason in ("no case", "one class only")


@pytest.mark.parametrize(
    ("call", "message"),
    [
        pytest.param(lambda: macro_f1(np.array([-1]), np.array([0])), "case 0 has label -1", id="negative"),
        pytest.param(
            lambda: auroc(np.array([0, 2]), np.eye(2)), "case 1 has label 2 of 2 classes", id="no column"
        ),
        pytest.param(
            lambda: auprc(np.array([0, 1]), np.array([[0.5, 0.5], [math.nan, 1.0]])),
            "case 1 has scores",
            id="NaN",
        ),
        pytest.param(
            lambda: confusion(np.array([0, 1]), np.array([0, -1]), 2),
            "case 1 has prediction -1",
            id="no answer",
        ),
    ],
)
def test_bad_input_names_the_case(call, message):
    with pytest.raises(InputError, match=message):
        call()

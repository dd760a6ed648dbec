"""Classification metrics; higher is better."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
from jaxtyping import Bool, Float, Int, Integer

from modaltune_jax.metrics.estimate import Estimate
from modaltune_jax.types import InputError


def balanced_accuracy(labels: Integer[np.ndarray, "n"], predictions: Integer[np.ndarray, "n"]) -> Estimate:
    """Mean over classes of the share of their cases that is predicted right (mean recall).

    Chance is 1 / number of classes, 1 is perfect. Only classes with a case in `labels` count: a class
    that is predicted but absent takes part through the recall it costs the others.

    Args:
      labels: true class of each case, at least 0.
      predictions: predicted class of each case.

    Returns:
      The metric; not estimable without cases or with cases of one class only.

    Raises:
      InputError: a negative label, which marks a case without one; drop such cases first.
    """
    _check_labels(labels)
    classes = np.unique(labels)
    if len(classes) < 2:
        return _too_few_classes(labels)
    recalls = [np.mean(predictions[labels == label] == label) for label in classes]
    return Estimate(float(np.mean(recalls)), len(labels))


def macro_f1(labels: Integer[np.ndarray, "n"], predictions: Integer[np.ndarray, "n"]) -> Estimate:
    """Mean over classes of F1, the harmonic mean of precision and recall.

    The mean is over the classes with a case in `labels`, whatever is predicted, so that two models are
    averaged over the same classes: `sklearn.metrics.f1_score` with `labels=np.unique(labels)`. A class that
    is never predicted has F1 0.

    Examples:
      >>> macro_f1(np.array([0, 0, 1, 1]), np.array([0, 0, 1, 0])).value
      0.7333333333333334

    Args:
      labels: true class of each case, at least 0.
      predictions: predicted class of each case.

    Returns:
      The metric; not estimable without cases or with cases of one class only.

    Raises:
      InputError: a negative label.
    """
    _check_labels(labels)
    classes = np.unique(labels)
    if len(classes) < 2:
        return _too_few_classes(labels)
    is_class, is_predicted = labels == classes[:, None], predictions == classes[:, None]
    right = (is_class & is_predicted).sum(1)
    return Estimate(float(np.mean(2 * right / (is_class.sum(1) + is_predicted.sum(1)))), len(labels))


def confusion(
    labels: Integer[np.ndarray, "n"], predictions: Integer[np.ndarray, "n"], num_classes: int
) -> Int[np.ndarray, "{num_classes} {num_classes}"]:
    """Number of cases by true class (row) and predicted class (column).

    Examples:
      >>> confusion(np.array([0, 0, 1]), np.array([0, 1, 1]), 2)
      array([[1, 1],
             [0, 1]])

    Raises:
      InputError: a label or prediction that is not one of 0 ... num_classes - 1.
    """
    _check_labels(labels, num_classes)
    _check_labels(predictions, num_classes, "prediction")
    cells = np.bincount(labels * num_classes + predictions, minlength=num_classes**2)
    return cells.reshape(num_classes, num_classes)


def auroc(labels: Integer[np.ndarray, "n"], scores: Float[np.ndarray, "n c"]) -> Estimate:
    """Mean over classes of the area under the ROC curve of that class against the rest.

    How often a case of the class is scored above one of the rest; equal scores count half. 0.5 is chance, and
    what constant scores get; 1 is perfect. Only the order of a column matters. With two classes whose scores
    add up to a constant, both areas are the usual one.

    Examples:
      >>> scores = np.array([[0.9, 0.1], [0.4, 0.6], [0.6, 0.4], [0.2, 0.8]])
      >>> auroc(np.array([0, 0, 1, 1]), scores).value
      0.75

    Args:
      labels: true class of each case, a column of `scores`.
      scores: of each class, higher for cases held to belong to it.

    Returns:
      The metric; not estimable without cases, or if a class has no case: the areas of the others are those of
      another, usually easier question. `auroc_by_class` has them.

    Raises:
      InputError: a label that is not a column, or scores that are not finite.
    """
    return _macro(auroc_by_class(labels, scores), labels)


def auroc_by_class(labels: Integer[np.ndarray, "n"], scores: Float[np.ndarray, "n c"]) -> list[Estimate]:
    """The areas that `auroc` averages, class by class."""
    return _by_class(labels, scores, _area_under_roc)


def auprc(labels: Integer[np.ndarray, "n"], scores: Float[np.ndarray, "n c"]) -> Estimate:
    """Mean over classes of average precision, the area under the precision-recall curve as steps.

    Precision at each recall reached, weighted by the recall gained there; no interpolation
    (`sklearn.metrics.average_precision_score`). Cases of equal score enter together. Chance is the share of
    the class, so values of cohorts with other shares do not compare.

    Args:
      labels: true class of each case, a column of `scores`.
      scores: of each class, higher for cases held to belong to it.

    Returns:
      The metric; not estimable without cases, or if a class has no case.

    Raises:
      InputError: a label that is not a column, or scores that are not finite.
    """
    return _macro(auprc_by_class(labels, scores), labels)


def auprc_by_class(labels: Integer[np.ndarray, "n"], scores: Float[np.ndarray, "n c"]) -> list[Estimate]:
    """The areas that `auprc` averages, class by class."""
    from sklearn.metrics import average_precision_score

    return _by_class(labels, scores, average_precision_score)


def _area_under_roc(is_class: Bool[np.ndarray, "n"], scores: Float[np.ndarray, "n"]) -> float:
    """The Mann-Whitney statistic: the same number as from the curve, fast enough for thousands of draws."""
    from scipy.stats import rankdata

    num = int(is_class.sum())
    return (rankdata(scores)[is_class].sum() - num * (num + 1) / 2) / (num * (len(scores) - num))


def _by_class(
    labels: np.ndarray, scores: np.ndarray, area: Callable[[np.ndarray, np.ndarray], float]
) -> list[Estimate]:
    _check_labels(labels, scores.shape[1])
    if not np.isfinite(scores).all():
        row = int(np.argmin(np.isfinite(scores).all(1)))
        raise InputError(f"case {row} has scores {scores[row]}: drop cases without a prediction")
    num = len(labels)
    estimates = []
    for label in range(scores.shape[1]):
        is_class = labels == label
        if is_class.all():
            estimates.append(_too_few_classes(labels))
        elif not is_class.any():
            estimates.append(Estimate.missing(f"class {label} has no case", num))
        else:
            estimates.append(Estimate(float(area(is_class, scores[:, label])), num))
    return estimates


def _macro(by_class: list[Estimate], labels: np.ndarray) -> Estimate:
    if len(np.unique(labels)) < 2:
        return _too_few_classes(labels)
    for estimate in by_class:
        if not estimate.is_estimable:
            return estimate
    return Estimate(math.fsum(estimate.value for estimate in by_class) / len(by_class), len(labels))


def _too_few_classes(labels: np.ndarray) -> Estimate:
    return Estimate.missing("one class only" if len(labels) else "no case", len(labels))


def _check_labels(labels: np.ndarray, num_classes: int | None = None, name: str = "label") -> None:
    if np.any(labels < 0):
        raise InputError(
            f"case {np.argmax(labels < 0)} has {name} {labels.min()}: drop cases without a {name}"
        )
    if num_classes is not None and np.any(labels >= num_classes):
        row = int(np.argmax(labels >= num_classes))
        raise InputError(f"case {row} has {name} {labels[row]} of {num_classes} classes: count from 0")

"""Classification metrics of many bootstrap draws at once: scores are sorted once for all of them."""

from __future__ import annotations

import numpy as np
from jaxtyping import Bool, Float, Int, Integer


def confusion_of_draws(
    labels: Integer[np.ndarray, "n"],
    predicted: Integer[np.ndarray, "n"],
    num_classes: int,
    drawn: Float[np.ndarray, "draws n"],
) -> Float[np.ndarray, "draws {num_classes} {num_classes}"]:
    """Cases by true class (row) and predicted class (column) of every draw.

    Args:
      labels, predicted: from 0 to num_classes - 1.
      num_classes: k.
      drawn: how often each case is in each draw, from `times_drawn`.
    """
    cell = np.eye(num_classes**2)[labels * num_classes + predicted]
    return (drawn @ cell).reshape(len(drawn), num_classes, num_classes)


def times_drawn(
    rows: Integer[np.ndarray, "draws m"], num_cases: int
) -> Float[np.ndarray, "draws {num_cases}"]:
    """How often each case is in each draw."""
    counts = [np.bincount(row, minlength=num_cases) for row in rows]
    return np.asarray(counts, np.float64).reshape(len(rows), num_cases)


def balanced_accuracy_of_draws(
    confusion: Float[np.ndarray, "draws k k"],
) -> Float[np.ndarray, "draws"]:
    """`metrics.classification.balanced_accuracy` of every draw, NaN with cases of one class only."""
    num = confusion.sum(axis=2)
    right = np.diagonal(confusion, axis1=1, axis2=2)
    return _mean_over_present(np.divide(right, num, out=np.zeros_like(right), where=num > 0), num)


def macro_f1_of_draws(confusion: Float[np.ndarray, "draws k k"]) -> Float[np.ndarray, "draws"]:
    """`metrics.classification.macro_f1` of every draw, NaN with cases of one class only."""
    num, right = confusion.sum(axis=2), np.diagonal(confusion, axis1=1, axis2=2)
    both = num + confusion.sum(axis=1)
    return _mean_over_present(np.divide(2 * right, both, out=np.zeros_like(both), where=both > 0), num)


def auroc_of_draws(
    labels: Integer[np.ndarray, "n"], scores: Float[np.ndarray, "n k"], drawn: Float[np.ndarray, "draws n"]
) -> Float[np.ndarray, "draws"]:
    """`metrics.classification.auroc` of every draw, NaN where a class has no case."""
    areas = []
    for label, column in enumerate(scores.T):
        positive, negative = _by_score(labels == label, column, drawn)
        above = np.cumsum(positive, axis=1) - positive / 2
        pairs = positive.sum(axis=1) * negative.sum(axis=1)
        areas.append(_ratio((above * negative).sum(axis=1), pairs))
    return np.mean(areas, axis=0)


def auprc_of_draws(
    labels: Integer[np.ndarray, "n"], scores: Float[np.ndarray, "n k"], drawn: Float[np.ndarray, "draws n"]
) -> Float[np.ndarray, "draws"]:
    """`metrics.classification.auprc` of every draw, NaN where a class has no case."""
    areas = []
    for label, column in enumerate(scores.T):
        positive, negative = _by_score(labels == label, column, drawn)
        found, others = np.cumsum(positive, axis=1), np.cumsum(negative, axis=1)
        precision = np.divide(found, found + others, out=np.zeros_like(found), where=found > 0)
        is_both = others[:, -1] > 0
        areas.append(_ratio((precision * positive).sum(axis=1), np.where(is_both, found[:, -1], 0.0)))
    return np.mean(areas, axis=0)


def _by_score(
    is_class: Bool[np.ndarray, "n"], score: Float[np.ndarray, "n"], drawn: Float[np.ndarray, "draws n"]
) -> tuple[Float[np.ndarray, "draws scores"], Float[np.ndarray, "draws scores"]]:
    """Cases of the class, and others, at each score, the highest first."""
    order = np.argsort(-score, kind="stable")
    starts: Int[np.ndarray, "scores"] = np.flatnonzero(np.append(True, np.diff(score[order]) != 0))
    positive, negative = (drawn * is_class)[:, order], (drawn * ~is_class)[:, order]
    return np.add.reduceat(positive, starts, axis=1), np.add.reduceat(negative, starts, axis=1)


def _mean_over_present(
    values: Float[np.ndarray, "draws k"], num: Float[np.ndarray, "draws k"]
) -> Float[np.ndarray, "draws"]:
    present = (num > 0).sum(axis=1)
    return _ratio(np.where(num > 0, values, 0.0).sum(axis=1), np.where(present > 1, present, 0.0))


def _ratio(part: Float[np.ndarray, "draws"], whole: Float[np.ndarray, "draws"]) -> Float[np.ndarray, "draws"]:
    return np.divide(part, whole, out=np.full(len(part), np.nan), where=whole > 0)

"""Classification metrics; higher is better."""

from __future__ import annotations

import numpy as np
from jaxtyping import Integer

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
    if np.any(labels < 0):
        raise InputError(f"case {np.argmax(labels < 0)} has label {labels.min()}: drop cases without a label")
    classes = np.unique(labels)
    if len(classes) == 0:
        return Estimate.missing("no case")
    if len(classes) == 1:
        return Estimate.missing("one class only", len(labels))
    recalls = [np.mean(predictions[labels == label] == label) for label in classes]
    return Estimate(float(np.mean(recalls)), len(labels))

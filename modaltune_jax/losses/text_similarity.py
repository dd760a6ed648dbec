"""Classification by similarity: a case belongs to the class whose vector its embedding points to."""

from __future__ import annotations

import math

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Integer

from modaltune_jax.losses.distillation import unit
from modaltune_jax.types import InputError

MAX_LOG_SCALE = math.log(100.0)
"""Logits are at most 100, as in CLIP."""


def allowed_classes(site: Integer[Array, "b"], class_site: Integer[Array, "c"]) -> Bool[Array, "b c"]:
    """Classes of each case's own site; none for a case of unknown site, -1.

    >>> print(allowed_classes(jnp.array([1, -1]), jnp.array([0, 1, 1])))
    [[False  True  True]
     [False False False]]
    """
    return (site[:, None] == class_site) & (site[:, None] >= 0)


def class_weights(label: Integer[np.ndarray, "n"], num_classes: int) -> Float[np.ndarray, "c"]:
    """Inverse class frequencies with mean 1 over the cases, the "balanced" weights of scikit-learn.

    >>> print(class_weights(np.array([0, 0, 0, 2, -1]), 3))
    [0.66666667 0.         2.        ]

    Args:
      label: class of each train case, and of no others; cases with -1 are left out.
      num_classes: c.

    Returns:
      n / (number of classes with a case x cases of the class), float64; 0 for a class without a case, which
      there is nothing to learn about.

    Raises:
      InputError: a label outside -1 to c - 1; no labelled case.
    """
    is_wrong = (label < -1) | (label >= num_classes)
    if np.any(is_wrong):
        row = int(np.argmax(is_wrong))
        raise InputError(
            f"row {row}: label is {label[row]}; give a class from 0 to {num_classes - 1}, or -1 if unknown"
        )
    counts = np.bincount(label[label >= 0], minlength=num_classes)
    if counts.sum() == 0:
        raise InputError(
            f"none of {label.size} train cases has a class; give labels, or use no class weights"
        )
    num_present = np.count_nonzero(counts)
    return np.where(counts > 0, counts.sum() / (num_present * np.maximum(counts, 1)), 0.0)


def similarity_logits(
    embedding: Float[Array, "b e"], bank: Float[Array, "c e"], log_scale: Float[Array, ""]
) -> Float[Array, "b c"]:
    """Cosine of each embedding with each class vector, times exp(log_scale), at most 100.

    >>> print(similarity_logits(jnp.array([[3.0, 4.0]]), jnp.eye(2), jnp.log(10.0)).round(4))
    [[6. 8.]]

    Args:
      embedding: one task's embedding of each case; logits are computed and returned in float32.
      bank: one vector a class.
      log_scale: logarithm of the inverse temperature, log(1 / 0.07) at first in CLIP. Above `MAX_LOG_SCALE`
        it counts as that and gets no gradient to bring it back: clip the parameter after each update.

    Returns:
      Logits; 0 without gradient for a zero vector.

    References:
      Radford et al., `Learning transferable visual models from natural language supervision
      <https://arxiv.org/abs/2103.00020>`_, 2021
    """
    embedding, bank, log_scale = (x.astype(jnp.float32) for x in (embedding, bank, log_scale))
    cosine = jnp.einsum("be,ce->bc", unit(embedding), unit(bank), precision="highest")
    # Not a minimum, which halves the gradient of a parameter that was clipped to the limit itself.
    return cosine * jnp.exp(jnp.where(log_scale > MAX_LOG_SCALE, MAX_LOG_SCALE, log_scale))


def softmax_cross_entropy(
    logits: Float[Array, "b c"],
    label: Integer[Array, "b"],
    where: Bool[Array, "b"] | None = None,
    *,
    allowed: Bool[Array, "b c"] | None = None,
    class_weight: Float[Array | np.ndarray, "c"] | None = None,
) -> Float[Array, "b"]:
    r"""Cross entropy of a case's class among the classes it may have.

    .. math::
        -w_y \log \frac{\exp z_y}{\sum_{c \text{ allowed}} \exp z_c}

    Examples:
      >>> allowed = jnp.array([[True, True, False], [True, True, False]])
      >>> print(softmax_cross_entropy(jnp.zeros((2, 3)), jnp.array([1, 2]), allowed=allowed) / jnp.log(2.0))
      [1. 0.]

    Args:
      logits: z, of any float type; the loss is computed and returned in float32.
      label: y, a class; a case that has none (-1) or none of the allowed ones adds 0 to value and gradient.
      where: cases to count; what is left out adds 0 to value and gradient, whatever it holds.
      allowed: classes that compete, by default all. The others get no gradient, whatever their logits hold.
      class_weight: w, from `class_weights`; by default 1.

    Returns:
      One loss a case, unreduced.
    """
    allowed = _counted(logits, where, allowed)
    is_label = allowed & (jnp.arange(logits.shape[1]) == label[:, None])
    has_label = jnp.any(is_label, axis=1, keepdims=True)
    # What `where` leaves out is -inf here and has no gradient, also if that is a whole row or holds NaN.
    loss = -jax.nn.log_softmax(logits.astype(jnp.float32), where=allowed & has_label)
    if class_weight is not None:
        loss *= jnp.asarray(class_weight, jnp.float32)
    return jnp.sum(loss, axis=1, where=is_label)


def sigmoid(
    logits: Float[Array, "b c"],
    labels: Integer[Array, "b c"],
    where: Bool[Array, "b"] | None = None,
    allowed: Bool[Array, "b c"] | None = None,
) -> Float[Array, "b"]:
    r"""Pairwise sigmoid loss, for cases that have several classes or none: mean over the classes allowed.

    .. math::
        -\frac{1}{C} \sum_{c} \log \sigma((2 y_c - 1) z_c)

    Examples:
      >>> labels = jnp.array([[1, 0], [1, -1]])
      >>> print(sigmoid(jnp.zeros((2, 2)), labels) / jnp.log(2.0))
      [1. 1.]

    Args:
      logits: z, of any float type; the loss is computed and returned in float32. SigLIP adds a learned bias,
        -10 at first, to `similarity_logits`.
      labels: y, 1 has the class, 0 has it not; -1 is unknown and left out of the mean.
      where: cases to count; what is left out adds 0 to value and gradient, whatever it holds.
      allowed: classes that count, by default all.

    Returns:
      One loss a case, unreduced; 0 for a case of which nothing counts.

    References:
      Zhai et al., `Sigmoid loss for language image pre-training <https://arxiv.org/abs/2303.15343>`_, 2023
    """
    counted = _counted(logits, where, allowed) & (labels >= 0)
    logits = jnp.where(counted, logits.astype(jnp.float32), 0.0)
    loss = jax.nn.softplus(jnp.where(labels == 1, -logits, logits))
    return jnp.sum(loss, axis=1, where=counted) / jnp.maximum(jnp.sum(counted, axis=1), 1)


def probabilities(
    logits: Float[Array, "b c"], allowed: Bool[Array, "b c"] | None = None
) -> Float[Array, "b c"]:
    """Softmax over the allowed classes, float32; 0 for the others, so that a row that allows none sums to 0.

    >>> print(probabilities(jnp.zeros((1, 3)), jnp.array([[True, False, True]])))
    [[0.5 0.  0.5]]
    """
    return jax.nn.softmax(logits.astype(jnp.float32), where=allowed)


def _counted(
    logits: Float[Array, "b c"], where: Bool[Array, "b"] | None, allowed: Bool[Array, "b c"] | None
) -> Bool[Array, "b c"]:
    """Which logits count: all but those of cases and of classes left out."""
    counted = jnp.ones(logits.shape, bool) if allowed is None else allowed
    return counted if where is None else counted & where[:, None]

"""Cross entropy of plain class logits, a case's class among those of its own site."""

from __future__ import annotations

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int, Integer

from modaltune_jax.losses.text_similarity import allowed_classes, softmax_cross_entropy


def class_of(
    site: Integer[Array, "b"], subtype: Integer[Array, "b"], class_site: Integer[Array, "c"]
) -> Int[Array, "b"]:
    """Position of each case's class among those of all sites, from its number at its own; -1 for none.

    >>> print(class_of(jnp.array([0, 1, 1, -1]), jnp.array([1, 0, -1, 0]), jnp.array([0, 0, 1])))
    [ 1  2 -1 -1]
    """
    own = allowed_classes(site, class_site)
    return jnp.where((subtype >= 0) & own.any(axis=1), jnp.argmax(own, axis=1) + subtype, -1)


def cross_entropy(
    logits: Float[Array, "b c"],
    site: Integer[Array, "b"],
    subtype: Integer[Array, "b"],
    class_site: Integer[Array, "c"],
    where: Bool[Array, "b"] | None = None,
    *,
    class_weight: Float[Array | np.ndarray, "c"] | None = None,
) -> Float[Array, "b"]:
    """Softmax cross entropy among the classes of each case's own site; those of other sites do not compete.

    >>> logits, class_site = jnp.zeros((2, 3)), jnp.array([0, 0, 1])
    >>> print(cross_entropy(logits, jnp.array([0, 1]), jnp.array([1, 0]), class_site) / jnp.log(2.0))
    [1. 0.]

    Args:
      logits: of the classes of all sites, of any float type; the loss is computed in float32.
      site: position of each case's site, -1 if unknown.
      subtype: number of the class at its site; a case without one (-1) adds 0 to value and gradient.
      class_site: position of the site of each class.
      where: cases to count; what is left out adds 0 to value and gradient, whatever it holds.
      class_weight: a factor by class, from `text_similarity.class_weights`; by default 1.

    Returns:
      One loss a case, unreduced.
    """
    return softmax_cross_entropy(
        logits,
        class_of(site, subtype, class_site),
        where,
        allowed=allowed_classes(site, class_site),
        class_weight=class_weight,
    )

"""What a case lacks: zeros in its place, whatever the batch holds there."""

from __future__ import annotations

import jax.numpy as jnp
from jaxtyping import Array, Float

from modaltune_jax.types import MODALITIES, Batch


def zero_where_absent(values: Float[Array, "b *s"], batch: Batch, modality: str) -> Float[Array, "b *s"]:
    """`values`, but zeros for the cases without `modality`, which get no gradient.

    Args:
      values: of each case.
      batch: says what is present.
      modality: one of `MODALITIES`.
    """
    present = batch.present[:, MODALITIES.index(modality)]
    return jnp.where(present.reshape(-1, *[1] * (values.ndim - 1)), values, 0.0)

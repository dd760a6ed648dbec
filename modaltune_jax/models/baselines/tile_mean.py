"""The mean of a case's tile features, for probes and for a linear classifier."""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float

from modaltune_jax.models.encoders.mean_pool import mean_of_tiles
from modaltune_jax.models.modalities import ModalInputs
from modaltune_jax.types import Batch


@dataclasses.dataclass(frozen=True)
class TileMeanConfig:
    """There is nothing to choose."""


class TileMean(nnx.Module):
    """The mean itself, without a parameter; zeros for a case without slides."""

    modalities = ("slides",)

    def __init__(self, config: TileMeanConfig, in_dim: int, inputs: ModalInputs, *, rngs: nnx.Rngs):
        del config, inputs, rngs  # nothing to choose, to know or to draw
        self.out_dim = in_dim

    def __call__(self, batch: Batch, key: jax.Array | None = None) -> Float[Array, "b e"]:
        """Nothing here is random."""
        return mean_of_tiles(batch.features.astype(jnp.float32), batch.length)

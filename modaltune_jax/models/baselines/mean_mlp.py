"""Mean pooling: a small network on the mean of a case's tile features."""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float

from modaltune_jax.models.baselines.presence import zero_where_absent
from modaltune_jax.models.encoders.mean_pool import mean_of_tiles
from modaltune_jax.models.layers import LECUN_NORMAL, linear
from modaltune_jax.models.modalities import ModalInputs
from modaltune_jax.models.regularisation import dropout, fold
from modaltune_jax.types import Batch


@dataclasses.dataclass(frozen=True)
class MeanMlpConfig:
    """Sizes of a `MeanMlp`.

    Attributes:
      hidden_dim: width of the hidden layer, and of the case.
      dropout: rate behind it, in training.
    """

    hidden_dim: int
    dropout: float


class MeanMlp(nnx.Module):
    """Linear, ReLU, dropout on the mean of the tiles; zeros for a case without slides."""

    modalities = ("slides",)

    def __init__(self, config: MeanMlpConfig, in_dim: int, inputs: ModalInputs, *, rngs: nnx.Rngs):
        del inputs  # slides only
        self.rate, self.out_dim = config.dropout, config.hidden_dim
        self.hidden = linear(in_dim, config.hidden_dim, LECUN_NORMAL, rngs=rngs)

    def __call__(self, batch: Batch, key: jax.Array | None = None) -> Float[Array, "b e"]:
        """The hidden layer; `key` switches dropout on."""
        mean = mean_of_tiles(batch.features.astype(jnp.float32), batch.length)
        hidden = dropout(jax.nn.relu(self.hidden(mean)), self.rate, fold(key, 0))
        return zero_where_absent(hidden, batch, "slides")

"""Attention-based multiple instance learning (Ilse et al. 2018)."""

from __future__ import annotations

import dataclasses
import itertools

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float

from modaltune_jax.models.baselines.gated_pool import GatedPool
from modaltune_jax.models.layers import LECUN_NORMAL, linear
from modaltune_jax.models.modalities import ModalInputs
from modaltune_jax.models.regularisation import dropout, fold
from modaltune_jax.types import Batch


@dataclasses.dataclass(frozen=True)
class AbmilConfig:
    """Sizes of an `Abmil`.

    Attributes:
      hidden_dim: width of a tile after each layer, and of the case.
      num_layers: layers before the attention.
      attention_dim: width of the attention network.
      dropout: rate behind each layer, in training.
    """

    hidden_dim: int
    num_layers: int
    attention_dim: int
    dropout: float

    @classmethod
    def published(cls) -> AbmilConfig:
        """The network for histopathology, in which layers on pixels stand for the tile features."""
        return cls(hidden_dim=512, num_layers=2, attention_dim=128, dropout=0.25)


class Abmil(nnx.Module):
    """Linear, ReLU, dropout on each tile, once a layer; then gated attention over tiles."""

    modalities = ("slides",)

    def __init__(self, config: AbmilConfig, in_dim: int, inputs: ModalInputs, *, rngs: nnx.Rngs):
        del inputs  # slides only
        self.rate, self.out_dim = config.dropout, config.hidden_dim
        widths = [in_dim, *[config.hidden_dim] * config.num_layers]
        self.layers = nnx.List([linear(i, o, LECUN_NORMAL, rngs=rngs) for i, o in itertools.pairwise(widths)])
        self.pool = GatedPool(config.hidden_dim, config.attention_dim, 0.0, rngs=rngs)

    def __call__(self, batch: Batch, key: jax.Array | None = None) -> Float[Array, "b e"]:
        """The attended tile; zeros for a case without slides."""
        tiles = batch.features.astype(jnp.float32)
        mask = jnp.arange(tiles.shape[1]) < batch.length[:, None]
        for i, layer in enumerate(self.layers):
            tiles = dropout(jax.nn.relu(layer(tiles)), self.rate, fold(key, i))
        return self.pool(tiles, mask)

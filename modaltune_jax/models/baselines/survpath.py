"""SurvPath: pathways and tiles in one transformer layer that leaves the tiles among themselves out.

Jaume et al. 2024, "Modeling Dense Multimodal Interactions Between Biological Pathways and Histology for
Survival Prediction".
"""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import Array, Bool, Float

from modaltune_jax.models.baselines.gene_groups import measured_groups
from modaltune_jax.models.baselines.presence import zero_where_absent
from modaltune_jax.models.encoders.mean_pool import mean_of_tiles
from modaltune_jax.models.layers import LECUN_NORMAL, Linear, layer_norm, linear
from modaltune_jax.models.modalities import ModalInputs
from modaltune_jax.models.pathways import PathwayNetworks
from modaltune_jax.models.regularisation import dropout, fold
from modaltune_jax.types import Batch

_XAVIER = nnx.initializers.xavier_uniform()


@dataclasses.dataclass(frozen=True)
class SurvPathConfig:
    """Sizes of a `SurvPath`.

    Attributes:
      token_dim: width of pathway and tile tokens.
      attention_dim: width of queries, keys and values, and of the tokens after attention.
      hidden_dim: width of the vector of a case.
      network_dropout: rate of alpha dropout in the networks of the pathways.
      dropout: rate in the feed-forward part.
    """

    token_dim: int
    attention_dim: int
    hidden_dim: int
    network_dropout: float
    dropout: float

    @classmethod
    def published(cls) -> SurvPathConfig:
        return cls(token_dim=256, attention_dim=128, hidden_dim=64, network_dropout=0.25, dropout=0.1)


class CoAttention(nnx.Module):
    """Single-head attention over pathways and tiles without that of tiles to tiles.

    A pathway reads all pathways and tiles, a tile reads the pathways: `[b, g, g + l]` and `[b, l, g]`, where
    all to all would cost `[b, g + l, g + l]`.
    """

    def __init__(self, config: SurvPathConfig, *, rngs: nnx.Rngs):
        self.norm = layer_norm(config.token_dim, rngs=rngs)
        self.query, self.key, self.value = (
            Linear(config.token_dim, config.attention_dim, use_bias=False, kernel_init=_XAVIER, rngs=rngs)
            for _ in range(3)
        )

    def __call__(
        self,
        pathways: Float[Array, "b g d"],
        tiles: Float[Array, "b l d"],
        is_measured: Bool[Array, "b g"],
        is_tile: Bool[Array, "b l"],
    ) -> tuple[Float[Array, "b g e"], Float[Array, "b l e"]]:
        """Attended pathways and tiles."""
        num_pathways = pathways.shape[1]
        tokens = self.norm(jnp.concatenate([pathways, tiles], axis=1))
        query, key, value = self.query(tokens), self.key(tokens), self.value(tokens)
        is_key = jnp.concatenate([is_measured, is_tile], axis=1)
        of_pathways = _attend(query[:, :num_pathways], key, value, is_key)
        of_tiles = _attend(
            query[:, num_pathways:], key[:, :num_pathways], value[:, :num_pathways], is_measured
        )
        return of_pathways, of_tiles


class FeedForward(nnx.Module):
    """Linear, GELU, dropout, Linear, LayerNorm on every token."""

    def __init__(self, dim: int, rate: float, *, rngs: nnx.Rngs):
        self.rate = rate
        self.fc1 = linear(dim, dim, LECUN_NORMAL, rngs=rngs)
        self.fc2 = linear(dim, dim, LECUN_NORMAL, rngs=rngs)
        self.norm = layer_norm(dim, rngs=rngs)

    def __call__(self, x: Float[Array, "b n d"], key: jax.Array | None = None) -> Float[Array, "b n d"]:
        hidden = jax.nn.gelu(self.fc1(x), approximate=False)
        return self.norm(self.fc2(dropout(hidden, self.rate, fold(key, 0))))


class SurvPath(nnx.Module):
    """Tokens, co-attention, feed-forward, the means of pathways and of tiles, Linear, ReLU.

    A pathway of which no gene was measured is left out. A case without slides has zeros for the mean of its
    tiles. A case without expression has the pathways of the mean case of train, whose standardised expression
    is 0: they are the queries by which its tiles are read.

    Args:
      config: sizes.
      in_dim: width of a tile feature.
      inputs: genes of each pathway.
    """

    modalities = ("slides", "expression")

    def __init__(self, config: SurvPathConfig, in_dim: int, inputs: ModalInputs, *, rngs: nnx.Rngs):
        groups, token, attention = inputs.gene_groups, config.token_dim, config.attention_dim
        self.measured = measured_groups(inputs)
        self.networks = PathwayNetworks(groups, token, config.network_dropout, rngs=rngs)
        self.embed = linear(in_dim, token, LECUN_NORMAL, rngs=rngs)
        self.co_attention = CoAttention(config, rngs=rngs)
        self.feed_forward = FeedForward(attention, config.dropout, rngs=rngs)
        self.project = linear(2 * attention, config.hidden_dim, LECUN_NORMAL, rngs=rngs)
        self.out_dim = config.hidden_dim

    def __call__(self, batch: Batch, key: jax.Array | None = None) -> Float[Array, "b e"]:
        """The vector of a case; `key` switches dropout on."""
        expression = zero_where_absent(batch.expression, batch, "expression")
        pathways = self.networks(expression, fold(key, 0))
        tiles = self.embed(batch.features.astype(jnp.float32))
        measured = np.array(self.measured)
        pathways, tiles = self.co_attention(
            pathways,
            tiles,
            jnp.broadcast_to(measured, pathways.shape[:2]),
            jnp.arange(tiles.shape[1]) < batch.length[:, None],
        )
        pathways = self.feed_forward(pathways, fold(key, 1))[:, measured]
        tiles = self.feed_forward(tiles, fold(key, 2))
        means = jnp.concatenate([pathways.mean(axis=1), mean_of_tiles(tiles, batch.length)], axis=-1)
        return jax.nn.relu(self.project(means))


def _attend(
    query: Float[Array, "b q e"],
    key: Float[Array, "b k e"],
    value: Float[Array, "b k e"],
    is_key: Bool[Array, "b k"],
) -> Float[Array, "b q e"]:
    """Softmax attention over the keys in `is_key`, of which every case has one at least."""
    logits = jnp.einsum("bqe,bke->bqk", query, key) * key.shape[-1] ** -0.5
    probs = jax.nn.softmax(jnp.where(is_key[:, None], logits.astype(jnp.float32), -jnp.inf), axis=-1)
    return jnp.einsum("bqk,bke->bqe", probs, value)

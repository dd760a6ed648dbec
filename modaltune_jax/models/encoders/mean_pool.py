"""A control encoder without attention: tiles are embedded one by one and averaged."""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float, Int

from modaltune_jax.models.encoders.base import Tokens
from modaltune_jax.models.layers import Linear


@dataclasses.dataclass(frozen=True)
class MeanPoolConfig:
    """Sizes of a `MeanPool`.

    Attributes:
      in_dim: width of a tile feature.
      width: width of a token.
      depth: empty blocks between which an adapter may act.
    """

    in_dim: int
    width: int
    depth: int = 3


class MeanPool(nnx.Module):
    """GELU(Linear) of each tile and their mean: what is left of a slide encoder without attention.

    Blocks have no parameters. They only bring the class token, which is the mean of the real tiles, up
    to date with what an adapter has injected into the tiles. An empty bag has a class token of zeros.
    """

    def __init__(self, config: MeanPoolConfig, *, rngs: nnx.Rngs):
        self.in_dim, self.width, self.depth = config.in_dim, config.width, config.depth
        self.patch_embed = Linear(config.in_dim, config.width, rngs=rngs)

    def embed(
        self, features: Float[Array, "b l f"], cells: Int[Array, "b l 2"], length: Int[Array, "b"]
    ) -> Tokens:
        """Tile features to tokens; a mean has no use for `cells`."""
        tiles = jax.nn.gelu(self.patch_embed(features.astype(jnp.float32)), approximate=False)
        return Tokens(mean_of_tiles(tiles, length), tiles, cells, length)

    def run_blocks(self, tokens: Tokens, start: int, stop: int, key: jax.Array | None = None) -> Tokens:
        """Averages the tiles again; nothing here depends on the block or is random."""
        return tokens._replace(cls=mean_of_tiles(tokens.tiles, tokens.length))

    def pool(self, tokens: Tokens) -> Float[Array, "b d"]:
        """The mean of the real tiles."""
        return tokens.cls

    def __call__(
        self,
        features: Float[Array, "b l f"],
        cells: Int[Array, "b l 2"],
        length: Int[Array, "b"],
        key: jax.Array | None = None,
    ) -> Float[Array, "b d"]:
        """Slide embedding; nothing in it is random."""
        del key
        return self.pool(self.embed(features, cells, length))


def mean_of_tiles(tiles: Float[Array, "b l d"], length: Int[Array, "b"]) -> Float[Array, "b d"]:
    """Mean of the first `length` tiles in float32, zeros where there are none."""
    real = jnp.arange(tiles.shape[1]) < length[:, None]
    total = jnp.sum(jnp.where(real[..., None], tiles, 0.0), axis=1, dtype=jnp.float32)
    return total / jnp.maximum(length, 1)[:, None]

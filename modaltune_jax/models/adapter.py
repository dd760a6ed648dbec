"""The Modal Adapter: modal tokens steer a frozen encoder's tiles and read them back, stage by stage.

ModalTune (Ramanathan et al. 2025), Modal Adapter. It knows no encoder: the frozen blocks come as a
callable. Attention runs at a fraction of the encoder's width. Small parts first, the adapter last.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Bool, Float

from modaltune_jax.models.encoders.base import Tokens
from modaltune_jax.models.layers import MultiHeadAttention, layer_norm, linear
from modaltune_jax.models.regularisation import drop_path, fold


@dataclasses.dataclass(frozen=True)
class AdapterConfig:
    """Sizes of the adapter.

    Attributes:
      stages: encoder block ranges `(start, stop)`, stop exclusive, in order and without gaps.
      attention_ratio: width of the adapter's attention, as a fraction of the encoder's width.
      num_heads: heads of the adapter's attention.
      ffn_ratio: hidden width of the extractor's feed-forward, as a fraction of the encoder's width.
      num_extra_extractors: extractors after the last stage.
      drop_path: stochastic depth on the extractor's feed-forward.
    """

    stages: tuple[tuple[int, int], ...]
    attention_ratio: float
    num_heads: int
    ffn_ratio: float
    num_extra_extractors: int
    drop_path: float


class CrossAttention(nnx.Module):
    """`query + output_proj(MHA(q_proj(norm(query) + query_pos), norm_kq(memory) + memory_pos))`."""

    def __init__(self, dim: int, config: AdapterConfig, *, rngs: nnx.Rngs):
        inner = int(dim * config.attention_ratio)
        self.norm = layer_norm(dim, rngs=rngs)
        self.norm_kq = layer_norm(dim, rngs=rngs)
        self.q_proj = linear(dim, inner, rngs=rngs)
        self.multihead_attn = MultiHeadAttention(inner, dim, config.num_heads, rngs=rngs)
        self.output_proj = linear(inner, dim, rngs=rngs)

    def __call__(
        self,
        query: Float[Array, "b q d"],
        memory: Float[Array, "b k d"],
        memory_mask: Bool[Array, "b k"],
        query_pos: Float[Array, "q d"] | None = None,
        memory_pos: Float[Array, "k d"] | None = None,
    ) -> Float[Array, "b q d"]:
        normed = self.norm(query)
        keys = self.norm_kq(memory)
        if query_pos is not None:
            normed = normed + query_pos
        if memory_pos is not None:
            keys = keys + memory_pos
        read = self.multihead_attn(self.q_proj(normed), keys, keys, memory_mask)
        # Nothing to read (a case without slides or without modal tokens) leaves the query as it is.
        has_memory = memory_mask.any(axis=-1)[:, None, None]
        return query + jnp.where(has_memory, self.output_proj(read), 0.0)


class Injector(nnx.Module):
    """Tiles read the modal tokens: `x + gamma * CrossAttention(x, c)`, gamma 0 at the start."""

    def __init__(self, dim: int, config: AdapterConfig, *, rngs: nnx.Rngs):
        self.attn = CrossAttention(dim, config, rngs=rngs)
        self.gamma = nnx.Param(jnp.zeros(dim))

    def __call__(
        self,
        tiles: Float[Array, "b l d"],
        modal: Float[Array, "b m d"],
        modal_mask: Bool[Array, "b m"],
        modal_pos: Float[Array, "m d"],
    ) -> Float[Array, "b l d"]:
        return tiles + self.gamma[...] * self.attn(tiles, modal, modal_mask, memory_pos=modal_pos)


class FeedForward(nnx.Module):
    """`linear2(relu(linear1(norm(c))))`, without the residual."""

    def __init__(self, dim: int, config: AdapterConfig, *, rngs: nnx.Rngs):
        hidden = int(dim * config.ffn_ratio)
        self.norm = layer_norm(dim, rngs=rngs)
        self.linear1 = linear(dim, hidden, rngs=rngs)
        self.linear2 = linear(hidden, dim, rngs=rngs)

    def __call__(self, x: Float[Array, "b m d"]) -> Float[Array, "b m d"]:
        return self.linear2(jax.nn.relu(self.linear1(self.norm(x))))


class Extractor(nnx.Module):
    """Modal tokens read the tiles, then a feed-forward.

    The attention already adds its query, so that each extractor doubles the modal tokens. Published
    weights depend on it.
    """

    def __init__(self, dim: int, config: AdapterConfig, *, rngs: nnx.Rngs):
        self.attn = CrossAttention(dim, config, rngs=rngs)
        self.ffn = FeedForward(dim, config, rngs=rngs)
        self.drop_path = config.drop_path

    def __call__(
        self,
        modal: Float[Array, "b m d"],
        tiles: Float[Array, "b l d"],
        tile_mask: Bool[Array, "b l"],
        modal_pos: Float[Array, "m d"],
        key: jax.Array | None = None,
    ) -> Float[Array, "b m d"]:
        modal = modal + self.attn(modal, tiles, tile_mask, query_pos=modal_pos)
        return modal + drop_path(self.ffn(modal), self.drop_path, key)


class ModalSelfAttention(nnx.Module):
    """Modal tokens attend to each other; positions enter queries and keys, not values."""

    def __init__(self, dim: int, config: AdapterConfig, *, rngs: nnx.Rngs):
        inner = int(dim * config.attention_ratio)
        self.norm = layer_norm(dim, rngs=rngs)
        self.q_proj = linear(dim, inner, rngs=rngs)
        self.self_attn = MultiHeadAttention(inner, dim, config.num_heads, rngs=rngs)
        self.output_proj = linear(inner, dim, rngs=rngs)

    def __call__(
        self, modal: Float[Array, "b m d"], modal_mask: Bool[Array, "b m"], modal_pos: Float[Array, "m d"]
    ) -> Float[Array, "b m d"]:
        normed = self.norm(modal)
        placed = normed + modal_pos
        return modal + self.output_proj(self.self_attn(self.q_proj(placed), placed, normed, modal_mask))


class Interaction(nnx.Module):
    """One stage: (self-attend,) inject, frozen blocks, extract."""

    def __init__(self, dim: int, config: AdapterConfig, stage: int, *, rngs: nnx.Rngs):
        is_last = stage == len(config.stages) - 1
        self.self_attention = ModalSelfAttention(dim, config, rngs=rngs) if stage > 0 else None
        self.injector = Injector(dim, config, rngs=rngs)
        self.extractor = Extractor(dim, config, rngs=rngs)
        num_extra = config.num_extra_extractors if is_last else 0
        self.extra_extractors = nnx.List([Extractor(dim, config, rngs=rngs) for _ in range(num_extra)])

    def __call__(
        self,
        tokens: Tokens,
        modal: Float[Array, "b m d"],
        modal_mask: Bool[Array, "b m"],
        modal_pos: Float[Array, "m d"],
        run_blocks: Callable[[Tokens], Tokens],
        key: jax.Array | None = None,
    ) -> tuple[Tokens, Float[Array, "b m d"]]:
        if self.self_attention is not None:
            modal = self.self_attention(modal, modal_mask, modal_pos)
        tiles = self.injector(tokens.tiles, modal, modal_mask, modal_pos)
        tokens = run_blocks(tokens._replace(tiles=tiles))
        tile_mask = jnp.arange(tokens.tiles.shape[1]) < tokens.length[:, None]
        for i, extractor in enumerate([self.extractor, *self.extra_extractors]):
            modal = extractor(modal, tokens.tiles, tile_mask, modal_pos, fold(key, i))
        return tokens, modal


class Adapter(nnx.Module):
    """All stages around a frozen encoder's blocks."""

    def __init__(self, dim: int, config: AdapterConfig, *, rngs: nnx.Rngs):
        self.stages = config.stages
        self.interactions = nnx.List(
            [Interaction(dim, config, stage, rngs=rngs) for stage in range(len(config.stages))]
        )

    def __call__(
        self,
        tokens: Tokens,
        modal: Float[Array, "b m d"],
        modal_mask: Bool[Array, "b m"],
        modal_pos: Float[Array, "m d"],
        run_blocks: Callable[[Tokens, int, int, jax.Array | None], Tokens],
        key: jax.Array | None = None,
    ) -> tuple[Tokens, Float[Array, "b m d"]]:
        """Runs every stage.

        Args:
          tokens: embedded tiles; their class token passes through the blocks only.
          modal: modal tokens.
          modal_mask: which modal tokens are present in each case.
          modal_pos: learned position of each modal token.
          run_blocks: the encoder's `run_blocks(tokens, start, stop, key)`.
          key: switches dropout and stochastic depth on.

        Returns:
          The tokens after the last block, and the modal tokens that have read them.
        """
        for i, (start, stop) in enumerate(self.stages):
            stage_key = fold(key, i)

            def run(tokens: Tokens, start=start, stop=stop, stage_key=stage_key) -> Tokens:
                return run_blocks(tokens, start, stop, fold(stage_key, 0))

            interaction = self.interactions[i]
            tokens, modal = interaction(tokens, modal, modal_mask, modal_pos, run, fold(stage_key, 1))
        return tokens, modal

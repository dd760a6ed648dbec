"""The TITAN slide encoder (Ding et al. 2024): a vision transformer over a slide's grid of tile features."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Sequence

import jax
import jax.numpy as jnp
from flax import nnx
from jax.sharding import PartitionSpec as P
from jaxtyping import Array, Float, Int

from modaltune_jax.models.encoders.alibi import GridBias, head_slopes
from modaltune_jax.models.encoders.attention import attend
from modaltune_jax.models.encoders.base import Tokens
from modaltune_jax.models.encoders.layer_loop import scan_layers
from modaltune_jax.models.layers import LayerNorm, Linear, rowwise
from modaltune_jax.partitioning import WHOLE_CASES, per_case
from modaltune_jax.types import InputError


@dataclasses.dataclass(frozen=True)
class TitanConfig:
    """Sizes of a `Titan`.

    Attributes:
      in_dim: width of a tile feature.
      width: width of a token, a multiple of `num_heads` and of `pooler_heads`.
      depth: number of blocks.
      num_heads: attention heads of a block.
      mlp_dim: hidden width of a block's feed-forward network.
      pooler_heads: attention heads of the two poolers.
      num_caption_queries: tokens that the caption pooler makes of a slide.
      dtype: of matrix products and attention. Normalisation, softmax, distances, activation, residual
        stream and parameters are float32 in any case.
      remat: keep only the blocks' inputs for the backward pass and compute the rest again.
      scan_layers: compile the blocks of an adapter's stage as a loop over one. Faster to compile, the same
        numbers; without `remat` the loop needs more memory than blocks one by one.
    """

    in_dim: int
    width: int
    depth: int
    num_heads: int
    mlp_dim: int
    pooler_heads: int
    num_caption_queries: int
    dtype: str = "float32"
    remat: bool = False
    scan_layers: bool = False

    def __post_init__(self):
        heads = ("num_heads", "pooler_heads")
        for name in ("in_dim", "width", "depth", "mlp_dim", "num_caption_queries", *heads):
            if getattr(self, name) < 1:
                raise InputError(f"TITAN: {name} is {getattr(self, name)}; it must be at least 1.")
        for name in heads:
            if self.width % getattr(self, name):
                raise InputError(
                    f"TITAN: width {self.width} must be a multiple of {name} {getattr(self, name)}."
                )
        if self.dtype not in ("float32", "bfloat16"):
            raise InputError(f"TITAN: dtype '{self.dtype}' must be float32 or bfloat16.")

    @classmethod
    def published(cls) -> TitanConfig:
        """The published slide encoder, on CONCH v1.5 tile features."""
        return cls(
            in_dim=768,
            width=768,
            depth=6,
            num_heads=12,
            mlp_dim=3072,
            pooler_heads=8,
            num_caption_queries=128,
        )


class Titan(nnx.Module):
    """A slide encoder; attributes are named as in the public checkpoint.

    Every tile is a foreground cell of the slide's grid. What is published adds the tiles that share a cell
    and leaves out cells without features, which `inputs.bags.merge_cells` does.
    """

    def __init__(self, config: TitanConfig, *, rngs: nnx.Rngs):
        self.config = config
        self.in_dim, self.width, self.depth = config.in_dim, config.width, config.depth
        self.num_heads, self.remat, self.scan_layers = config.num_heads, config.remat, config.scan_layers
        width, queries = config.width, config.num_caption_queries
        self.cls_token = nnx.Param(0.02 * jax.random.normal(rngs.params(), (1, 1, width)))
        self.patch_embed = nnx.List([_linear(config.in_dim, width, config, rngs)])
        self.blocks = nnx.List([Block(config, rngs=rngs) for _ in range(config.depth)])
        self.norm = _layer_norm(width, 1e-6, rngs)
        self.attn_pool = AttentionPool(queries, config, rngs=rngs)
        self.attn_pool_contrastive = AttentionPool(1, config, rngs=rngs)
        self.proj = nnx.Param(width**-0.5 * jax.random.normal(rngs.params(), (width, width)))

    def embed(
        self, features: Float[Array, "b l f"], cells: Int[Array, "b l 2"], length: Int[Array, "b"]
    ) -> Tokens:
        """Tile features to tokens; their places enter in the blocks."""
        tiles = _gelu(self.patch_embed[0](features))
        cls = jnp.broadcast_to(self.cls_token[...][:, 0], (len(tiles), self.width))
        return Tokens(cls, tiles, cells, length)

    def run_blocks(self, tokens: Tokens, start: int, stop: int, key: jax.Array | None = None) -> Tokens:
        """Runs blocks `start` to `stop` (exclusive). Nothing in them is random, with or without `key`."""
        x = jnp.concatenate([tokens.cls[:, None], tokens.tiles], axis=1)
        cells = jnp.pad(tokens.cells, ((0, 0), (1, 0), (0, 0)))
        placed = jnp.broadcast_to(jnp.arange(x.shape[1]) > 0, x.shape[:2])
        bias = GridBias(cells, placed, jnp.asarray(head_slopes(self.num_heads)))

        def run(block, x):
            # A loop keeps the two passes apart by itself.
            block = jax.checkpoint(block.__call__, prevent_cse=not self.scan_layers) if self.remat else block
            return block(x, tokens.length + 1, bias)

        blocks = self.blocks[start:stop]
        if self.scan_layers and blocks:
            x = scan_layers(run, blocks, x)
        else:
            x = functools.reduce(lambda x, block: run(block, x), blocks, x)
        return tokens._replace(cls=x[:, 0], tiles=x[:, 1:])

    def pool(self, tokens: Tokens) -> Float[Array, "b d"]:
        """The contrastive pool of all tokens, as the adapter path takes it."""
        return self._pool(self.attn_pool_contrastive, tokens)[:, 0]

    def caption_tokens(self, tokens: Tokens) -> Float[Array, "b q d"]:
        """The tokens that the public model's caption decoder reads."""
        return self._pool(self.attn_pool, tokens)

    def encode(
        self, features: Float[Array, "b l f"], cells: Int[Array, "b l 2"], length: Int[Array, "b"]
    ) -> Tokens:
        """The tokens of the encoder by itself, after the last block: what `pool` and others take."""
        return self.run_blocks(self.embed(features, cells, length), 0, self.depth)

    def slide_embedding(
        self,
        features: Float[Array, "b l f"],
        cells: Int[Array, "b l 2"],
        length: Int[Array, "b"],
        *,
        project: bool = True,
    ) -> Float[Array, "b d"]:
        """The embedding of the encoder by itself: the contrastive pool, projected to where text is or not."""
        pooled = self.pool(self.encode(features, cells, length))
        return pooled @ self.proj[...] if project else pooled

    def __call__(
        self,
        features: Float[Array, "b l f"],
        cells: Int[Array, "b l 2"],
        length: Int[Array, "b"],
        key: jax.Array | None = None,
    ) -> Float[Array, "b d"]:
        """The published slide embedding; nothing in it is random."""
        del key
        return self.slide_embedding(features, cells, length)

    def _pool(self, pooler: AttentionPool, tokens: Tokens) -> Float[Array, "b q d"]:
        x = jnp.concatenate([tokens.cls[:, None], tokens.tiles], axis=1)
        return pooler(self.norm(x), tokens.length + 1)


class Block(nnx.Module):
    """A pre-norm transformer block: attention, then a feed-forward network."""

    def __init__(self, config: TitanConfig, *, rngs: nnx.Rngs):
        self.norm1 = _layer_norm(config.width, 1e-6, rngs)
        self.attn = SelfAttention(config, rngs=rngs)
        self.norm2 = _layer_norm(config.width, 1e-6, rngs)
        self.mlp = FeedForward(config, rngs=rngs)

    def __call__(
        self, x: Float[Array, "b n d"], length: Int[Array, "b"], bias: GridBias
    ) -> Float[Array, "b n d"]:
        """The residual stream `x`, float32, after both branches."""
        x = x + self.attn(self.norm1(x), length, bias)
        return x + self.mlp(self.norm2(x))


class SelfAttention(nnx.Module):
    """Attention among tokens whose logits fall with the distance of their cells."""

    def __init__(self, config: TitanConfig, *, rngs: nnx.Rngs):
        self.num_heads, self.dtype = config.num_heads, config.dtype
        self.qkv = _linear(config.width, 3 * config.width, config, rngs)
        self.proj = _linear(config.width, config.width, config, rngs)

    def __call__(
        self, x: Float[Array, "b n d"], length: Int[Array, "b"], bias: GridBias
    ) -> Float[Array, "b n d"]:
        """Attention among the first `length` rows, in float32."""
        assert self.qkv.bias is not None
        kernel, qkv_bias = self.qkv.kernel[...], self.qkv.bias[...]
        q, k, v = _packed_heads((x, x, x), kernel, qkv_bias, self.num_heads, self.dtype)
        # All but the slopes are of cases.
        attention = per_case(
            lambda *arrays: attend(*arrays[:4], bias=GridBias(*arrays[4:])), (*(WHOLE_CASES,) * 6, P())
        )
        o, _ = attention(q, k, v, length, *bias)
        return self.proj(o.reshape(x.shape)).astype(jnp.float32)


class FeedForward(nnx.Module):
    """Linear, exact GELU in float32, Linear."""

    def __init__(self, config: TitanConfig, *, rngs: nnx.Rngs):
        self.fc1 = _linear(config.width, config.mlp_dim, config, rngs)
        self.fc2 = _linear(config.mlp_dim, config.width, config, rngs)

    def __call__(self, x: Float[Array, "b n d"]) -> Float[Array, "b n d"]:
        """Each row by itself, in float32."""
        return self.fc2(_gelu(self.fc1(x))).astype(jnp.float32)


class AttentionPool(nnx.Module):
    """Learned queries read all tokens."""

    def __init__(self, num_queries: int, config: TitanConfig, *, rngs: nnx.Rngs):
        self.query = nnx.Param(jax.random.normal(rngs.params(), (num_queries, config.width)))
        self.attn = PoolAttention(config, rngs=rngs)
        self.ln_q = _layer_norm(config.width, 1e-5, rngs)
        self.ln_k = _layer_norm(config.width, 1e-5, rngs)

    def __call__(self, x: Float[Array, "b n d"], length: Int[Array, "b"]) -> Float[Array, "b q d"]:
        """One vector a query from the first `length` rows, in float32."""
        query = self.ln_q(self.query[...])
        return self.attn(jnp.broadcast_to(query, (len(x), *query.shape)), self.ln_k(x), length)


class PoolAttention(nnx.Module):
    """Attention of queries to tokens, with its three input projections in one array as torch packs them."""

    def __init__(self, config: TitanConfig, *, rngs: nnx.Rngs):
        self.num_heads, self.dtype = config.pooler_heads, config.dtype
        xavier = nnx.initializers.xavier_uniform()
        self.in_proj_weight = nnx.Param(xavier(rngs.params(), (config.width, 3 * config.width)))
        self.in_proj_bias = nnx.Param(jnp.zeros(3 * config.width))
        self.out_proj = _linear(config.width, config.width, config, rngs)

    def __call__(
        self, query: Float[Array, "b q d"], memory: Float[Array, "b n d"], length: Int[Array, "b"]
    ) -> Float[Array, "b q d"]:
        """What each query reads from the first `length` rows of `memory`, in float32."""
        kernel, bias = self.in_proj_weight[...], self.in_proj_bias[...]
        q, k, v = _packed_heads((query, memory, memory), kernel, bias, self.num_heads, self.dtype)
        o, _ = per_case(attend)(q, k, v, length)
        return self.out_proj(o.reshape(query.shape)).astype(jnp.float32)


def _packed_heads(
    inputs: Sequence[Float[Array, "b _ d"]],
    kernel: Float[Array, "d 3*d"],
    bias: Float[Array, "3*d"],
    num_heads: int,
    dtype: str,
) -> list[Float[Array, "b _ h c"]]:
    """Query, key and value from their inputs, by matrices and biases that lie side by side."""
    query_bias, key_bias, value_bias = jnp.split(bias, 3)
    # Idle as in `layers.with_idle_bias`: it adds the same to all logits of a query.
    biases = (query_bias, jax.lax.stop_gradient(key_bias), value_bias)

    def project(x, kernel, bias):
        heads = rowwise(lambda rows: rows.astype(dtype) @ kernel.astype(dtype) + bias.astype(dtype), x)
        return heads.reshape(*x.shape[:2], num_heads, -1)

    return [project(*arrays) for arrays in zip(inputs, jnp.split(kernel, 3, axis=1), biases, strict=True)]


def _gelu(x):
    return jax.nn.gelu(x.astype(jnp.float32), approximate=False)


def _linear(in_dim, out_dim, config, rngs):
    return Linear(in_dim, out_dim, dtype=jnp.dtype(config.dtype), rngs=rngs)


def _layer_norm(width, epsilon, rngs):
    return LayerNorm(width, epsilon=epsilon, dtype=jnp.float32, use_fast_variance=False, rngs=rngs)

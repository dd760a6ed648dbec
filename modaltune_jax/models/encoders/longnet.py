"""The Prov-GigaPath slide encoder: a LongNet over tile features (Xu et al. 2024)."""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax.ad_checkpoint import checkpoint_name
from jaxtyping import Array, Float, Int

from modaltune_jax.models.encoders.attention import IMPLEMENTATIONS, SAVED
from modaltune_jax.models.encoders.base import Tokens
from modaltune_jax.models.encoders.layer_loop import scan_layers
from modaltune_jax.models.encoders.mean_pool import mean_of_tiles
from modaltune_jax.models.encoders.positions import grid_positions
from modaltune_jax.models.encoders.sequence_parallel import (
    join_class_token,
    part_class_token,
    sharded_dilated_attention,
)
from modaltune_jax.models.layers import LayerNorm, Linear
from modaltune_jax.models.regularisation import MASK, drop_path, dropout, fold
from modaltune_jax.types import InputError

_PRODUCT = "product"
"""Name, for policies of `jax.checkpoint`, of matrix products that the backward pass needs."""


@dataclasses.dataclass(frozen=True)
class LongNetConfig:
    """Sizes and rates of a `LongNet`.

    Attributes:
      in_dim: width of a tile feature.
      width: width of a token, a multiple of `num_heads` and of 4.
      depth: number of layers.
      num_heads: attention heads.
      ffn_dim: hidden width of the feed-forward network.
      segment_lengths: tokens per segment, one per branch of the dilated attention.
      dilated_ratios: stride, one per branch.
      dropout: rate behind attention and feed-forward network, in training.
      activation_dropout: rate behind the activation, in training.
      drop_path: stochastic depth of the last layer, in training; it grows linearly from 0.
      num_grids: side of the grid of positions.
      global_pool: the embedding of the encoder by itself is the mean of the tiles instead of the class
        token; an adapter takes the class token in any case.
      dtype: of matrix products and attention. Normalisation, softmax, activation, residual stream
        and parameters are float32 in any case.
      attention: who computes it: "auto" (the best that is known to be right on this platform), "xla",
        "cudnn" (GPU, with dtype "bfloat16"; not in "auto") or "pallas" (TPU).
      remat: keep only the layers' inputs for the backward pass and compute the rest again. Without, matrix
        products and attention are kept too; norms, activations and the like are always computed again,
        which is faster than to write and read them.
      scan_layers: compile the layers of an adapter's stage as a loop over one: half the time to compile and
        to load what was compiled, the same numbers to rounding.
    """

    in_dim: int
    width: int
    depth: int
    num_heads: int
    ffn_dim: int
    segment_lengths: tuple[int, ...]
    dilated_ratios: tuple[int, ...]
    dropout: float = 0.0
    activation_dropout: float = 0.0
    drop_path: float = 0.0
    num_grids: int = 1000
    global_pool: bool = False
    dtype: str = "float32"
    attention: str = "auto"
    remat: bool = False
    scan_layers: bool = False

    def __post_init__(self):
        branches = f"segment_lengths {self.segment_lengths} and dilated_ratios {self.dilated_ratios}"
        sizes = ("in_dim", "width", "depth", "num_heads", "ffn_dim", "num_grids")
        for name in sizes:
            if getattr(self, name) < 1:
                raise InputError(f"LongNet: {name} is {getattr(self, name)}; it must be at least 1.")
        if self.width % self.num_heads or self.width % 4:
            raise InputError(
                f"LongNet: width {self.width} must be a multiple of 4 and of num_heads {self.num_heads}."
            )
        if not self.segment_lengths or len(self.segment_lengths) != len(self.dilated_ratios):
            raise InputError(f"LongNet: {branches} must name the same branches, at least one.")
        if min(self.segment_lengths + self.dilated_ratios) < 1:
            raise InputError(f"LongNet: {branches} must be positive.")
        if not all(0.0 <= rate < 1.0 for rate in (self.dropout, self.activation_dropout, self.drop_path)):
            raise InputError("LongNet: dropout, activation_dropout and drop_path must be in [0, 1).")
        if self.dtype not in ("float32", "bfloat16"):
            raise InputError(f"LongNet: dtype '{self.dtype}' must be float32 or bfloat16.")
        if self.attention not in IMPLEMENTATIONS:
            raise InputError(
                f"LongNet: attention '{self.attention}' must be one of {', '.join(IMPLEMENTATIONS)}."
            )

    @classmethod
    def prov_gigapath(cls) -> LongNetConfig:
        """The published slide encoder ("12l768d"), with the rates that ModalTune leaves on in training."""
        return cls(
            in_dim=1536,
            width=768,
            depth=12,
            num_heads=16,
            ffn_dim=3072,
            segment_lengths=(1024, 5792, 32768, 185363, 1048576),
            dilated_ratios=(1, 2, 4, 8, 16),
            dropout=0.25,
            drop_path=0.1,
        )


class LongNet(nnx.Module):
    """A slide encoder; attributes are named as in the public checkpoint."""

    def __init__(self, config: LongNetConfig, *, rngs: nnx.Rngs):
        self.config = config
        self.in_dim, self.width, self.depth = config.in_dim, config.width, config.depth
        self.patch_embed = PatchEmbed(config, rngs=rngs)
        self.cls_token = nnx.Param(0.02 * jax.random.normal(rngs.params(), (1, 1, config.width)))
        self.encoder = Encoder(config, rngs=rngs)
        self.norm = _layer_norm(config.width, 1e-6, rngs)

    def embed(
        self, features: Float[Array, "b l f"], cells: Int[Array, "b l 2"], length: Int[Array, "b"]
    ) -> Tokens:
        """Tile features and (column, row) cells to tokens. The class token has no position."""
        tiles = self.patch_embed(features) + grid_positions(cells, self.width, self.config.num_grids)
        cls = jnp.broadcast_to(self.cls_token[...][:, 0], (len(tiles), self.width))
        return Tokens(cls, tiles, cells, length)

    def run_blocks(self, tokens: Tokens, start: int, stop: int, key: jax.Array | None = None) -> Tokens:
        """Runs layers `start` to `stop` (exclusive). `key` switches dropout on; None is evaluation."""
        x = join_class_token(tokens.cls, tokens.tiles)
        x = self.encoder.run_layers(x, tokens.length + 1, start, stop, key)
        cls, tiles = part_class_token(x, tokens.length)
        return tokens._replace(cls=cls, tiles=tiles)

    def pool(self, tokens: Tokens) -> Float[Array, "b d"]:
        """The class token without any norm, as the adapter path takes it."""
        return tokens.cls

    def __call__(
        self,
        features: Float[Array, "b l f"],
        cells: Int[Array, "b l 2"],
        length: Int[Array, "b"],
        key: jax.Array | None = None,
    ) -> Float[Array, "b d"]:
        """The published slide embedding: both norms around the class token, or the mean of the tiles."""
        tokens = self.run_blocks(self.embed(features, cells, length), 0, self.depth, key)
        if self.config.global_pool:
            pooled = mean_of_tiles(self.encoder.layer_norm(tokens.tiles), length)
        else:
            pooled = self.encoder.layer_norm(tokens.cls)
        return self.norm(pooled)


class PatchEmbed(nnx.Module):
    """Projects tile features to the width of the encoder."""

    def __init__(self, config: LongNetConfig, *, rngs: nnx.Rngs):
        self.proj = _linear(config.in_dim, config.width, config, rngs)

    def __call__(self, features: Float[Array, "b l f"]) -> Float[Array, "b l d"]:
        """Tokens without position, in float32."""
        return self.proj(features).astype(jnp.float32)


class Encoder(nnx.Module):
    """The stack of layers and its final norm."""

    def __init__(self, config: LongNetConfig, *, rngs: nnx.Rngs):
        self.drop_path_rates = tuple(np.linspace(0.0, config.drop_path, config.depth).tolist())
        self.remat, self.scan_layers = config.remat, config.scan_layers
        self.layers = nnx.List([EncoderLayer(config, rngs=rngs) for _ in range(config.depth)])
        self.layer_norm = _layer_norm(config.width, 1e-5, rngs)

    def run_layers(
        self,
        x: Float[Array, "b n d"],
        length: Int[Array, "b"],
        start: int,
        stop: int,
        key: jax.Array | None = None,
    ) -> Float[Array, "b n d"]:
        """Runs layers `start` to `stop` on sequences of `length` real rows, without the final norm."""
        policies = jax.checkpoint_policies
        kept = policies.save_only_these_names(_PRODUCT, SAVED, MASK)
        policy = policies.nothing_saveable if self.remat else kept
        layers, rates = self.layers[start:stop], self.drop_path_rates[start:stop]
        is_loop = self.scan_layers and len(layers) > 1

        def run(layer, x, i, drop_path_rate):
            # A loop keeps the two passes apart by itself.
            layer = jax.checkpoint(layer.__call__, policy=policy, prevent_cse=not is_loop)
            return layer(x, length, fold(key, i), drop_path_rate)

        if is_loop:
            return scan_layers(run, layers, x, jnp.arange(start, stop), jnp.asarray(rates))
        for i, layer, rate in zip(range(start, stop), layers, rates, strict=True):
            x = run(layer, x, i, rate)
        return x

    def __call__(self, x: Float[Array, "b n d"], length: Int[Array, "b"]) -> Float[Array, "b n d"]:
        """All layers and the final norm."""
        return self.layer_norm(self.run_layers(x, length, 0, len(self.layers)))


class EncoderLayer(nnx.Module):
    """A pre-norm layer with further norms inside (sub-LN): attention, then a feed-forward network."""

    def __init__(self, config: LongNetConfig, *, rngs: nnx.Rngs):
        self.dropout = config.dropout
        self.self_attn = SelfAttention(config, rngs=rngs)
        self.self_attn_layer_norm = _layer_norm(config.width, 1e-5, rngs)
        self.ffn = FeedForward(config, rngs=rngs)
        self.final_layer_norm = _layer_norm(config.width, 1e-5, rngs)

    def __call__(
        self,
        x: Float[Array, "b n d"],
        length: Int[Array, "b"],
        key: jax.Array | None = None,
        drop_path_rate: float | Float[Array, ""] = 0.0,
    ) -> Float[Array, "b n d"]:
        """The residual stream `x`, float32, after both branches."""

        def regularise(update, dropout_key, drop_path_key):
            return drop_path(dropout(update, self.dropout, dropout_key), drop_path_rate, drop_path_key)

        update = self.self_attn(self.self_attn_layer_norm(x), length)
        x = x + regularise(update, fold(key, 0), fold(key, 1))
        update = self.ffn(self.final_layer_norm(x), fold(key, 2))
        return x + regularise(update, fold(key, 3), fold(key, 4))


class SelfAttention(nnx.Module):
    """Dilated self-attention with a norm between heads and output projection."""

    def __init__(self, config: LongNetConfig, *, rngs: nnx.Rngs):
        self.config = config
        self.q_proj = _linear(config.width, config.width, config, rngs)
        self.k_proj = _linear(config.width, config.width, config, rngs)
        self.v_proj = _linear(config.width, config.width, config, rngs)
        self.out_proj = _linear(config.width, config.width, config, rngs)
        self.inner_attn_ln = _layer_norm(config.width, 1e-5, rngs)

    def __call__(self, x: Float[Array, "b n d"], length: Int[Array, "b"]) -> Float[Array, "b n d"]:
        """Attention among the first `length` rows, in float32."""
        config = self.config
        heads = (*x.shape[:2], config.num_heads, -1)
        q, k, v = (_kept(proj(x)).reshape(heads) for proj in (self.q_proj, self.k_proj, self.v_proj))
        branches = (config.segment_lengths, config.dilated_ratios)
        o = sharded_dilated_attention(q, k, v, length, *branches, config.attention)
        o = self.inner_attn_ln(o.reshape(x.shape))
        return _kept(self.out_proj(o)).astype(jnp.float32)


class FeedForward(nnx.Module):
    """Linear, exact GELU in float32, norm, Linear."""

    def __init__(self, config: LongNetConfig, *, rngs: nnx.Rngs):
        self.dropout = config.activation_dropout
        self.fc1 = _linear(config.width, config.ffn_dim, config, rngs)
        self.ffn_layernorm = _layer_norm(config.ffn_dim, 1e-5, rngs)
        self.fc2 = _linear(config.ffn_dim, config.width, config, rngs)

    def __call__(self, x: Float[Array, "b n d"], key: jax.Array | None = None) -> Float[Array, "b n d"]:
        """Each row by itself, in float32."""
        hidden = jax.nn.gelu(_kept(self.fc1(x)).astype(jnp.float32), approximate=False)
        hidden = self.ffn_layernorm(dropout(hidden, self.dropout, key))
        return self.fc2(hidden).astype(jnp.float32)


def _kept(product):
    return checkpoint_name(product, _PRODUCT)


def _linear(in_dim, out_dim, config, rngs):
    return Linear(in_dim, out_dim, dtype=jnp.dtype(config.dtype), rngs=rngs)


def _layer_norm(width, epsilon, rngs):
    return LayerNorm(width, epsilon=epsilon, dtype=jnp.float32, use_fast_variance=False, rngs=rngs)

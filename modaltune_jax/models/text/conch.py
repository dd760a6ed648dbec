"""CONCH's text tower (Lu et al. 2024): a causal pre-norm transformer, read at a class embedding.

TITAN's text tower (Ding et al. 2024) is the same module with a wider projection.
"""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Bool, Float, Int

from modaltune_jax.types import InputError

LAYER_NORM_EPS = 1e-5
INIT = nnx.initializers.normal(0.02)


@dataclasses.dataclass(frozen=True)
class ConchTextConfig:
    """Sizes of a `ConchText`.

    Attributes:
      vocab_size: token ids.
      context_length: positions, of which the last belongs to the class embedding.
      width: width of a token, a multiple of `num_heads`.
      depth: number of blocks.
      num_heads: attention heads.
      ffn_dim: hidden width of the feed-forward network.
      out_dim: width of the vector of a sentence.
      pad_id: the token id that is no text.
    """

    vocab_size: int
    context_length: int
    width: int
    depth: int
    num_heads: int
    ffn_dim: int
    out_dim: int
    pad_id: int = 0

    def __post_init__(self):
        if self.num_heads < 1 or self.width % self.num_heads:
            raise InputError(
                f"CONCH's text tower: width {self.width} must be a multiple of num_heads {self.num_heads}."
            )

    @property
    def max_ids(self) -> int:
        """Token ids of the longest sentence, start and end included."""
        return self.context_length - 1


class Attention(nnx.Module):
    """Self-attention whose three input projections are one matrix, as the public checkpoints pack them."""

    def __init__(self, config: ConchTextConfig, *, rngs: nnx.Rngs):
        d = config.width
        self.in_proj_weight = nnx.Param(INIT(rngs.params(), (d, 3 * d)))
        self.in_proj_bias = nnx.Param(jnp.zeros(3 * d))
        self.out_proj = nnx.Linear(d, d, rngs=rngs)
        self.num_heads = config.num_heads

    def __call__(self, x: Float[Array, "b l d"], mask: Bool[Array, "b l l"]) -> Float[Array, "b l d"]:
        """`mask[b, i, j]` says whether position i sees position j."""
        projected = x @ self.in_proj_weight[...] + self.in_proj_bias[...]
        split = (*x.shape[:2], self.num_heads, -1)
        q, k, v = (part.reshape(split) for part in jnp.split(projected, 3, axis=-1))
        attended = jax.nn.dot_product_attention(q, k, v, mask=mask[:, None])
        return self.out_proj(attended.reshape(x.shape))


class Mlp(nnx.Module):
    """Two linear layers with an exact GELU between."""

    def __init__(self, config: ConchTextConfig, *, rngs: nnx.Rngs):
        self.c_fc = nnx.Linear(config.width, config.ffn_dim, rngs=rngs)
        self.c_proj = nnx.Linear(config.ffn_dim, config.width, rngs=rngs)

    def __call__(self, x: Float[Array, "b l d"]) -> Float[Array, "b l d"]:
        return self.c_proj(jax.nn.gelu(self.c_fc(x), approximate=False))


class Block(nnx.Module):
    """Attention and feed-forward network, a LayerNorm before each, residual sums around both."""

    def __init__(self, config: ConchTextConfig, *, rngs: nnx.Rngs):
        self.ln_1 = _layer_norm(config, rngs)
        self.attn = Attention(config, rngs=rngs)
        self.ln_2 = _layer_norm(config, rngs)
        self.mlp = Mlp(config, rngs=rngs)

    def __call__(self, x: Float[Array, "b l d"], mask: Bool[Array, "b l l"]) -> Float[Array, "b l d"]:
        x = x + self.attn(self.ln_1(x), mask)
        return x + self.mlp(self.ln_2(x))


class Transformer(nnx.Module):
    """The blocks, one after the other."""

    def __init__(self, config: ConchTextConfig, *, rngs: nnx.Rngs):
        self.resblocks = nnx.List([Block(config, rngs=rngs) for _ in range(config.depth)])

    def __call__(self, x: Float[Array, "b l d"], mask: Bool[Array, "b l l"]) -> Float[Array, "b l d"]:
        for block in self.resblocks:
            x = block(x, mask)
        return x


class ConchText(nnx.Module):
    """Token ids to vectors of sentences; no dropout, as the encoder is frozen.

    References:
      Lu et al., A visual-language foundation model for computational pathology, Nature Medicine, 2024
      Yu et al., `CoCa <https://arxiv.org/abs/2205.01917>`_, 2022
    """

    def __init__(self, config: ConchTextConfig, *, rngs: nnx.Rngs):
        d = config.width
        self.config = config
        self.token_embedding = nnx.Embed(config.vocab_size, d, embedding_init=INIT, rngs=rngs)
        self.positional_embedding = nnx.Param(INIT(rngs.params(), (config.context_length, d)))
        self.cls_emb = nnx.Param(INIT(rngs.params(), (d,)))
        self.transformer = Transformer(config, rngs=rngs)
        self.ln_final = _layer_norm(config, rngs)
        self.text_projection = nnx.Param(INIT(rngs.params(), (d, config.out_dim)))

    def __call__(self, ids: Int[Array, "b l"]) -> Float[Array, "b e"]:
        """Projected class embeddings, not scaled to any norm.

        Args:
          ids: a sentence a row, `config.pad_id` behind it; `l` is at most `config.max_ids`. How many pads
            there are changes no vector.
        """
        if ids.shape[1] < self.config.max_ids:
            # The class embedding sees one pad, see `_visible`: there must be one.
            ids = jnp.pad(ids, ((0, 0), (0, 1)), constant_values=self.config.pad_id)
        positions = self.positional_embedding[...]
        text = self.token_embedding(ids) + positions[: ids.shape[1]]
        # Whatever the length of the text, the class embedding stands in the last place of the context.
        cls = jnp.broadcast_to(self.cls_emb[...] + positions[-1], (len(ids), 1, self.config.width))
        x = self.transformer(jnp.concatenate([text, cls], axis=1), _visible(ids != self.config.pad_id))
        return self.ln_final(x[:, -1]) @ self.text_projection[...]


def _visible(is_text: Bool[Array, "b l"]) -> Bool[Array, "b k k"]:
    """Which position sees which, the class embedding being the last of the k = l + 1.

    The public mask of the class embedding lies one place to the right of the ids it is made from: the
    first position is always seen, any other where the position before it is text. So the class embedding
    sees the text and the first pad behind it; itself it sees only where the text fills the whole context.
    """
    b, l = is_text.shape
    causal = jnp.tril(jnp.ones((l + 1, l + 1), bool))
    seen_by_cls = jnp.concatenate([jnp.ones((b, 1), bool), is_text], axis=1)
    return jnp.broadcast_to(causal, (b, l + 1, l + 1)).at[:, -1].set(seen_by_cls)


def _layer_norm(config: ConchTextConfig, rngs: nnx.Rngs) -> nnx.LayerNorm:
    return nnx.LayerNorm(config.width, epsilon=LAYER_NORM_EPS, use_fast_variance=False, rngs=rngs)

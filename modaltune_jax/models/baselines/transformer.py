"""The transformer encoder as it was first published (Vaswani et al. 2017): norms after the residual sums."""

from __future__ import annotations

import dataclasses

import jax
from flax import nnx
from jaxtyping import Array, Bool, Float

from modaltune_jax.models.layers import LECUN_NORMAL, MultiHeadAttention, layer_norm, linear
from modaltune_jax.models.regularisation import dropout, fold


@dataclasses.dataclass(frozen=True)
class TransformerConfig:
    """Sizes of a `Transformer`.

    Attributes:
      depth: layers.
      num_heads: of the attention.
      ffn_dim: hidden width of the feed-forward part.
      dropout: rate on the output of both parts and on the hidden layer.
    """

    depth: int
    num_heads: int
    ffn_dim: int
    dropout: float


class TransformerLayer(nnx.Module):
    """LayerNorm(x + attention(x)), then LayerNorm(x + ffn(x)) with ReLU."""

    def __init__(self, dim: int, config: TransformerConfig, *, rngs: nnx.Rngs):
        self.rate = config.dropout
        self.attention = MultiHeadAttention(dim, dim, config.num_heads, rngs=rngs)
        self.norm1 = layer_norm(dim, rngs=rngs)
        self.fc1 = linear(dim, config.ffn_dim, LECUN_NORMAL, rngs=rngs)
        self.fc2 = linear(config.ffn_dim, dim, LECUN_NORMAL, rngs=rngs)
        self.norm2 = layer_norm(dim, rngs=rngs)

    def __call__(
        self, x: Float[Array, "b n d"], mask: Bool[Array, "b n"], key: jax.Array | None = None
    ) -> Float[Array, "b n d"]:
        attended = self.attention(x, x, x, mask)
        x = self.norm1(x + dropout(attended, self.rate, fold(key, 0)))
        hidden = dropout(jax.nn.relu(self.fc1(x)), self.rate, fold(key, 1))
        return self.norm2(x + dropout(self.fc2(hidden), self.rate, fold(key, 2)))


class Transformer(nnx.Module):
    """Layers over a set of tokens, of which only those in `mask` are read."""

    def __init__(self, dim: int, config: TransformerConfig, *, rngs: nnx.Rngs):
        self.layers = nnx.List([TransformerLayer(dim, config, rngs=rngs) for _ in range(config.depth)])

    def __call__(
        self, x: Float[Array, "b n d"], mask: Bool[Array, "b n"], key: jax.Array | None = None
    ) -> Float[Array, "b n d"]:
        for i, layer in enumerate(self.layers):
            x = layer(x, mask, fold(key, i))
        return x

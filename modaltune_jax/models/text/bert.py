"""BERT (Devlin et al. 2019): a post-norm transformer."""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Bool, Float, Int


@dataclasses.dataclass(frozen=True)
class BertConfig:
    """Sizes, under the names of config.json."""

    vocab_size: int
    hidden_size: int
    num_hidden_layers: int
    num_attention_heads: int
    intermediate_size: int
    max_position_embeddings: int
    type_vocab_size: int
    layer_norm_eps: float


class Block(nnx.Module):
    """Self-attention and GELU network, a LayerNorm after each residual sum."""

    def __init__(self, config: BertConfig, *, rngs: nnx.Rngs):
        d, mlp = config.hidden_size, config.intermediate_size
        self.query = nnx.Linear(d, d, rngs=rngs)
        self.key = nnx.Linear(d, d, rngs=rngs)
        self.value = nnx.Linear(d, d, rngs=rngs)
        self.out = nnx.Linear(d, d, rngs=rngs)
        self.attention_norm = _layer_norm(config, rngs)
        self.fc1 = nnx.Linear(d, mlp, rngs=rngs)
        self.fc2 = nnx.Linear(mlp, d, rngs=rngs)
        self.mlp_norm = _layer_norm(config, rngs)
        self.num_heads = config.num_attention_heads

    def __call__(self, x: Float[Array, "b l d"], mask: Bool[Array, "b l"]) -> Float[Array, "b l d"]:
        split = (*x.shape[:2], self.num_heads, -1)
        q, k, v = (linear(x).reshape(split) for linear in (self.query, self.key, self.value))
        attended = jax.nn.dot_product_attention(q, k, v, mask=mask[:, None, None, :]).reshape(x.shape)
        x = self.attention_norm(x + self.out(attended))
        return self.mlp_norm(x + self.fc2(jax.nn.gelu(self.fc1(x), approximate=False)))


class Bert(nnx.Module):
    """Token ids to token vectors; no dropout, as the encoder is frozen."""

    def __init__(self, config: BertConfig, *, rngs: nnx.Rngs):
        d = config.hidden_size
        self.word = nnx.Embed(config.vocab_size, d, rngs=rngs)
        self.position = nnx.Embed(config.max_position_embeddings, d, rngs=rngs)
        self.token_type = nnx.Embed(config.type_vocab_size, d, rngs=rngs)
        self.norm = _layer_norm(config, rngs)
        self.layers = nnx.List([Block(config, rngs=rngs) for _ in range(config.num_hidden_layers)])

    def __call__(self, ids: Int[Array, "b l"], mask: Bool[Array, "b l"]) -> Float[Array, "b l d"]:
        """Ids of single sentences; positions where `mask` is False are padding and change nothing else."""
        x = self.word(ids) + self.position(jnp.arange(ids.shape[1])) + self.token_type(jnp.zeros(1, int))
        x = self.norm(x)
        for layer in self.layers:
            x = layer(x, mask)
        return x


def _layer_norm(config: BertConfig, rngs: nnx.Rngs) -> nnx.LayerNorm:
    return nnx.LayerNorm(
        config.hidden_size, epsilon=config.layer_norm_eps, use_fast_variance=False, rngs=rngs
    )

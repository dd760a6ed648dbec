"""Layers shared by the trainable rooms, initialised as published (Linear: truncated normal 0.02)."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Bool, Float

TRUNC_NORMAL = nnx.initializers.truncated_normal(stddev=0.02)
LAYER_NORM_EPS = 1e-5


def linear(in_dim: int, out_dim: int, *, rngs: nnx.Rngs) -> nnx.Linear:
    return nnx.Linear(in_dim, out_dim, kernel_init=TRUNC_NORMAL, rngs=rngs)


def layer_norm(dim: int, *, rngs: nnx.Rngs) -> nnx.LayerNorm:
    return nnx.LayerNorm(dim, epsilon=LAYER_NORM_EPS, rngs=rngs)


def with_idle_bias(layer: nnx.Linear, x: Float[Array, "*s i"]) -> Float[Array, "*s o"]:
    """A linear layer on whose bias nothing that follows depends: its gradient is exactly zero.

    Left to rounding the gradient would be noise, which Adam divides by its own size: full steps in
    random directions.
    """
    return x @ layer.kernel[...] + jax.lax.stop_gradient(layer.bias[...])


class MultiHeadAttention(nnx.Module):
    """Attention whose keys and values have a width of their own; matrices Xavier uniform.

    The three input biases are one `[3, e]` array (query, key, value), as public checkpoints pack them.
    """

    def __init__(self, dim: int, memory_dim: int, num_heads: int, *, rngs: nnx.Rngs):
        if dim % num_heads:
            raise ValueError(f"attention width {dim} is not divisible by {num_heads} heads")
        xavier = nnx.initializers.xavier_uniform()
        self.num_heads = num_heads
        self.q_proj_weight = nnx.Param(xavier(rngs.params(), (dim, dim)))
        self.k_proj_weight = nnx.Param(xavier(rngs.params(), (memory_dim, dim)))
        self.v_proj_weight = nnx.Param(xavier(rngs.params(), (memory_dim, dim)))
        self.in_proj_bias = nnx.Param(jnp.zeros((3, dim)))
        self.out_proj = linear(dim, dim, rngs=rngs)

    def __call__(
        self,
        query: Float[Array, "b q e"],
        key: Float[Array, "b k d"],
        value: Float[Array, "b k d"],
        key_mask: Bool[Array, "b k"],
    ) -> Float[Array, "b q e"]:
        """Softmax attention over the keys where `key_mask`; a row without keys gives zeros."""
        bias = self.in_proj_bias[...]
        q = _split_heads(query @ self.q_proj_weight[...] + bias[0], self.num_heads)
        # Idle as in `with_idle_bias`: it adds the same to all logits of a query.
        key_bias = jax.lax.stop_gradient(bias[1])
        k = _split_heads(key @ self.k_proj_weight[...] + key_bias, self.num_heads)
        v = _split_heads(value @ self.v_proj_weight[...] + bias[2], self.num_heads)
        logits = jnp.einsum("bqhe,bkhe->bhqk", q, k) * q.shape[-1] ** -0.5
        # A large finite number rather than -inf: a row without keys must have a finite gradient.
        logits = jnp.where(key_mask[:, None, None, :], logits.astype(jnp.float32), -1e30)
        probs = jax.nn.softmax(logits, axis=-1).astype(v.dtype)
        mixed = jnp.einsum("bhqk,bkhe->bqhe", probs, v).reshape(query.shape)
        has_keys = key_mask.any(axis=-1)[:, None, None]
        return jnp.where(has_keys, self.out_proj(mixed), 0.0)


def _split_heads(x: Float[Array, "b n e"], num_heads: int) -> Float[Array, "b n h c"]:
    return x.reshape(*x.shape[:2], num_heads, -1)

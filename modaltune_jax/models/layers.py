"""Layers shared by the trainable rooms."""

from __future__ import annotations

from collections.abc import Callable

import jax
import jax.numpy as jnp
from flax import nnx
from jax.nn.initializers import Initializer
from jaxtyping import Array, Bool, Float

from modaltune_jax import partitioning

TRUNC_NORMAL = nnx.initializers.truncated_normal(stddev=0.02)
"""Of the adapter's linear layers and positions, as published."""

LECUN_NORMAL = nnx.initializers.lecun_normal()
"""Of the expression encoder: keeps the scale of activations (Klambauer et al. 2017, sec. 3)."""

LAYER_NORM_EPS = 1e-5


def rowwise(function: Callable[[jax.Array], jax.Array], x: Float[Array, "*n d"]) -> Float[Array, "*n e"]:
    """Applies a function of rows `[n, d]` to an array of any rank.

    A product with `[b, l, d]` and its bias cost XLA's CPU backward pass three to four times what they cost
    as one matrix, and a LayerNorm up to nine times. Where devices share the tiles of a case the axes stay
    apart: rows of a matrix in which both are cut would not lie side by side, and XLA would gather them all.
    """
    if partitioning.split_size() > 1:
        return function(x)
    rows = function(x.reshape(-1, x.shape[-1]))
    return rows.reshape(*x.shape[:-1], rows.shape[-1])


class Linear(nnx.Linear):
    """`nnx.Linear`, by `rowwise`."""

    def __call__(self, inputs: Float[Array, "*n d"]) -> Float[Array, "*n e"]:  # type: ignore[override]
        return rowwise(super().__call__, inputs)


class LayerNorm(nnx.LayerNorm):
    """`nnx.LayerNorm`, by `rowwise`."""

    def __call__(self, x: Float[Array, "*n d"]) -> Float[Array, "*n d"]:  # type: ignore[override]
        return rowwise(super().__call__, x)


def linear(in_dim: int, out_dim: int, init: Initializer = TRUNC_NORMAL, *, rngs: nnx.Rngs) -> Linear:
    return Linear(in_dim, out_dim, kernel_init=init, rngs=rngs)


def layer_norm(dim: int, *, rngs: nnx.Rngs) -> LayerNorm:
    return LayerNorm(dim, epsilon=LAYER_NORM_EPS, rngs=rngs)


def with_idle_bias(layer: nnx.Linear, x: Float[Array, "*s i"]) -> Float[Array, "*s o"]:
    """A linear layer on whose bias nothing that follows depends: its gradient is exactly zero.

    Left to rounding the gradient would be noise, which Adam divides by its own size: full steps in
    random directions.
    """
    assert layer.bias is not None
    bias = jax.lax.stop_gradient(layer.bias[...])
    return rowwise(lambda rows: rows @ layer.kernel[...] + bias, x)


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
        q = self._heads(query, self.q_proj_weight, bias[0])
        # Idle as in `with_idle_bias`: it adds the same to all logits of a query.
        k = self._heads(key, self.k_proj_weight, jax.lax.stop_gradient(bias[1]))
        v = self._heads(value, self.v_proj_weight, bias[2])
        logits = jnp.einsum("bqhe,bkhe->bhqk", q, k) * q.shape[-1] ** -0.5
        # A large finite number rather than -inf: a row without keys must have a finite gradient.
        logits = jnp.where(key_mask[:, None, None, :], logits.astype(jnp.float32), -1e30)
        probs = jax.nn.softmax(logits, axis=-1).astype(v.dtype)
        mixed = jnp.einsum("bhqk,bkhe->bqhe", probs, v).reshape(query.shape)
        has_keys = key_mask.any(axis=-1)[:, None, None]
        return jnp.where(has_keys, self.out_proj(mixed), 0.0)

    def _heads(
        self, x: Float[Array, "b n d"], weight: nnx.Param, bias: Float[Array, "e"]
    ) -> Float[Array, "b n h c"]:
        projected = rowwise(lambda rows: rows @ weight[...] + bias, x)
        return projected.reshape(*x.shape[:2], self.num_heads, -1)

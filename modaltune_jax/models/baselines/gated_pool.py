"""Gated attention pooling: many tokens to one vector (Ilse et al. 2018, eq. 9)."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Bool, Float

from modaltune_jax.models.layers import LECUN_NORMAL, Linear, linear
from modaltune_jax.models.regularisation import dropout, fold


class GatedPool(nnx.Module):
    """The mean of the tokens with the weights softmax(w · (tanh(V x) * sigmoid(U x))).

    Args:
      dim: width d of a token.
      hidden_dim: rows of V and U.
      rate: of dropout on both.
    """

    def __init__(self, dim: int, hidden_dim: int, rate: float, *, rngs: nnx.Rngs):
        self.rate = rate
        self.value = linear(dim, hidden_dim, LECUN_NORMAL, rngs=rngs)
        self.gate = linear(dim, hidden_dim, LECUN_NORMAL, rngs=rngs)
        # No bias: it would add the same to all logits of a softmax.
        self.weight = Linear(hidden_dim, 1, use_bias=False, kernel_init=LECUN_NORMAL, rngs=rngs)

    def __call__(
        self, tokens: Float[Array, "b n d"], mask: Bool[Array, "b n"], key: jax.Array | None = None
    ) -> Float[Array, "b d"]:
        """Pools the tokens where `mask`; zeros for a case without any."""
        value = dropout(jnp.tanh(self.value(tokens)), self.rate, fold(key, 0))
        gate = dropout(jax.nn.sigmoid(self.gate(tokens)), self.rate, fold(key, 1))
        logits = self.weight(value * gate)[..., 0].astype(jnp.float32)
        # A large finite number rather than -inf: a case without tokens must have a finite gradient.
        weights = jax.nn.softmax(jnp.where(mask, logits, -1e30), axis=-1)
        weights = jnp.where(mask, weights, 0.0)
        return jnp.einsum("bn,bnd->bd", weights, jnp.where(mask[..., None], tokens, 0.0))

"""Two vectors to one: by layers on both, or by their products (Chen et al. 2020, "Pathomic Fusion")."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float

from modaltune_jax.models.layers import LECUN_NORMAL, linear
from modaltune_jax.models.regularisation import dropout, fold


class ConcatFusion(nnx.Module):
    """Concatenation, then Linear and ReLU twice."""

    def __init__(self, dim: int, *, rngs: nnx.Rngs):
        self.fc1 = linear(2 * dim, dim, LECUN_NORMAL, rngs=rngs)
        self.fc2 = linear(dim, dim, LECUN_NORMAL, rngs=rngs)

    def __call__(
        self, one: Float[Array, "b d"], other: Float[Array, "b d"], key: jax.Array | None = None
    ) -> Float[Array, "b d"]:
        """There is no dropout in this one."""
        return jax.nn.relu(self.fc2(jax.nn.relu(self.fc1(jnp.concatenate([one, other], axis=-1)))))


class GatedReduction(nnx.Module):
    """A vector made smaller and gated by both: ReLU(W x) * sigmoid(G [x, other])."""

    def __init__(self, dim: int, reduced_dim: int, *, rngs: nnx.Rngs):
        self.reduce = linear(dim, reduced_dim, LECUN_NORMAL, rngs=rngs)
        self.gate = linear(2 * dim, reduced_dim, LECUN_NORMAL, rngs=rngs)

    def __call__(self, x: Float[Array, "b d"], other: Float[Array, "b d"]) -> Float[Array, "b r"]:
        gate = jax.nn.sigmoid(self.gate(jnp.concatenate([x, other], axis=-1)))
        return jax.nn.relu(self.reduce(x)) * gate


class BilinearFusion(nnx.Module):
    """The Kronecker product [x; 1] ⊗ [y; 1] of the reduced and gated vectors, dropout, Linear, ReLU.

    Args:
      dim: width d of the vectors.
      reduced_dim: their width in the product.
      rate: of dropout on the product.
    """

    def __init__(self, dim: int, reduced_dim: int, rate: float, *, rngs: nnx.Rngs):
        self.rate = rate
        self.one = GatedReduction(dim, reduced_dim, rngs=rngs)
        self.other = GatedReduction(dim, reduced_dim, rngs=rngs)
        self.encode = linear((reduced_dim + 1) ** 2, dim, LECUN_NORMAL, rngs=rngs)

    def __call__(
        self, one: Float[Array, "b d"], other: Float[Array, "b d"], key: jax.Array | None = None
    ) -> Float[Array, "b d"]:
        left, right = _with_one(self.one(one, other)), _with_one(self.other(other, one))
        products = jnp.einsum("bi,bj->bij", left, right).reshape(len(one), -1)
        return jax.nn.relu(self.encode(dropout(products, self.rate, fold(key, 0))))


def _with_one(x: Float[Array, "b r"]) -> Float[Array, "b s"]:
    return jnp.concatenate([x, jnp.ones_like(x[:, :1])], axis=-1)

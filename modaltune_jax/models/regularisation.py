"""Dropout, alpha dropout and stochastic depth with explicit keys; `key=None` is evaluation."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jax.ad_checkpoint import checkpoint_name
from jaxtyping import Array, Float

# Fixed point of the self-normalising activation, -scale * alpha: Klambauer et al. 2017, sec. 2.
_ALPHA_DROPOUT_VALUE = -1.7580993408473766

MASK = "dropout"
"""Name, for policies of `jax.checkpoint`, of the masks of `dropout`: a byte an entry, slow to draw again."""


def fold(key: jax.Array | None, purpose: int | jax.Array) -> jax.Array | None:
    """A key of its own for each purpose; evaluation (None) stays evaluation."""
    return None if key is None else jax.random.fold_in(key, purpose)


def dropout(x: Float[Array, "*s"], rate: float, key: jax.Array | None) -> Float[Array, "*s"]:
    """Zeroes entries with probability `rate` and scales the others by 1 / (1 - rate)."""
    if key is None or rate == 0.0:
        return x
    keep = checkpoint_name(jax.random.bernoulli(key, 1.0 - rate, x.shape), MASK)
    return jnp.where(keep, x / (1.0 - rate), jnp.zeros_like(x))


def alpha_dropout(x: Float[Array, "*s"], rate: float, key: jax.Array | None) -> Float[Array, "*s"]:
    """Dropout that keeps zero mean and unit variance (Klambauer et al. 2017, sec. 3)."""
    if key is None or rate == 0.0:
        return x
    keep = jax.random.bernoulli(key, 1.0 - rate, x.shape)
    scale = ((1.0 - rate) * (1.0 + rate * _ALPHA_DROPOUT_VALUE**2)) ** -0.5
    shift = -scale * _ALPHA_DROPOUT_VALUE * rate
    return jnp.where(keep, x, jnp.full_like(x, _ALPHA_DROPOUT_VALUE)) * scale + shift


def drop_path(
    x: Float[Array, "b *s"], rate: float | Float[Array, ""], key: jax.Array | None
) -> Float[Array, "b *s"]:
    """Stochastic depth: drops a residual branch for whole cases (Huang et al. 2016).

    A rate that is an array is known when the program runs; 0 then keeps all, as a number does.
    """
    if key is None or (not isinstance(rate, jax.Array) and rate == 0.0):
        return x
    keep = jax.random.bernoulli(key, 1.0 - rate, (x.shape[0],) + (1,) * (x.ndim - 1))
    return jnp.where(keep, x / (1.0 - rate), jnp.zeros_like(x))

"""One vector of a sentence from the vectors of its tokens."""

from __future__ import annotations

import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

POOLINGS = ("mean", "cls", "max", "mean_sqrt_len_tokens")
"""As sentence-transformers calls them: mean, first token, maximum, sum over the root of the length."""

_TINY = 1e-12


def pool(x: Float[Array, "b l d"], mask: Bool[Array, "b l"], pooling: str) -> Float[Array, "b d"]:
    """One vector a sentence.

    Args:
      x: vectors of tokens.
      mask: where they are text; padding changes nothing.
      pooling: one of `POOLINGS`.
    """
    where = mask[..., None]
    match pooling:
        case "cls":
            return x[:, 0]
        case "max":
            return jnp.max(x, axis=1, where=where, initial=-jnp.inf)
        case "mean":
            return jnp.sum(x, axis=1, where=where) / jnp.sum(where, axis=1)
        case "mean_sqrt_len_tokens":
            return jnp.sum(x, axis=1, where=where) / jnp.sqrt(jnp.sum(where, axis=1))
        case _:
            raise ValueError(f"pooling {pooling!r} is none of {', '.join(POOLINGS)}")


def unit(x: Float[Array, "b d"]) -> Float[Array, "b d"]:
    """Vectors scaled to norm 1; a zero vector stays zero."""
    return x / jnp.maximum(jnp.linalg.norm(x, axis=-1, keepdims=True), _TINY)

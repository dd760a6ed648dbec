"""Keys of zeros, which need not be there to be counted."""

from __future__ import annotations

import jax.numpy as jnp
from jaxtyping import Array, Float


def count_zero_keys(
    o: Float[Array, "*s d"], lse: Float[Array, "*s"], zero_keys: int
) -> tuple[Float[Array, "*s d"], Float[Array, "*s"]]:
    """Output and log-sum-exp of an attention with `zero_keys` keys more, of logit 0 and value 0.

    Backward passes that form weights from the log-sum-exp and take row sums of dO * O need nothing else:
    such a key has no gradient, and gives none.
    """
    if not zero_keys:
        return o, lse
    whole = jnp.logaddexp(lse, jnp.log(jnp.float32(zero_keys)))
    return (o * jnp.exp(lse - whole)[..., None]).astype(o.dtype), whole

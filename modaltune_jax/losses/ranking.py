"""A smooth concordance index: of two comparable cases, the first to die should have the higher risk."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from modaltune_jax.losses.cox import is_known


def ranking(
    risk: Float[Array, "b"],
    time: Float[Array, "b"],
    event: Int[Array, "b"],
    where: Bool[Array, "b"] | None = None,
    *,
    strata: Int[Array, "b"] | None = None,
    scale: float = 1.0,
) -> Float[Array, "b"]:
    r"""Logistic loss on the order of comparable pairs, averaged over the pairs of a death.

    .. math::
        \ell_i = \frac{1}{|C_i|} \sum_{j \in C_i}
        \log\big(1 + e^{-(\text{risk}_i - \text{risk}_j) / \text{scale}}\big)

    C holds the cases of the death's stratum whose time is longer. Divided by log 2, the loss of a pair bounds
    from above the 0 or 1 that Harrell's concordance index counts as its error.

    Examples:
      >>> import jax.numpy as jnp
      >>> risk, time = jnp.array([1.0, 0.0, 3.0]), jnp.array([5.0, 9.0, 9.0])
      >>> print(ranking(risk, time, jnp.array([1, 1, 0])).round(2))
      [1.22 0.   0.  ]

    Args:
      risk: higher is worse; of any float type. The loss is computed and returned in float32, or in float64
        if risk is float64.
      time: to death or last follow-up, in any unit, for only the order matters; NaN unknown.
      event: 1 death seen, 0 censored, -1 unknown.
      where: cases to count. A case left out, or of unknown time or event, adds 0 to value and gradient and
        is in no pair, whatever it holds.
      strata: only cases of one stratum are compared; None compares all.
      scale: difference of risks, positive, over which the loss goes from indifferent to decided.

    Returns:
      One loss a case, unreduced, 0 for all but deaths that someone outlived. Time and memory are O(b²).

    Raises:
      ValueError: a scale that is not positive.

    References:
      Raykar et al., On ranking in survival analysis: bounds on the concordance index, 2008
    """
    if not scale > 0.0:
        raise ValueError(f"scale {scale} is not positive")
    known = is_known(time, event, where)
    risk = jnp.where(known, risk.astype(jnp.promote_types(risk.dtype, jnp.float32)), 0.0)
    pairs = comparable(time, event, where, strata=strata)
    loss = jax.nn.softplus((risk - risk[:, None]) / scale)
    return jnp.sum(jnp.where(pairs, loss, 0.0), axis=1) / jnp.maximum(pairs.sum(axis=1), 1)


def comparable(
    time: Float[Array, "b"],
    event: Int[Array, "b"],
    where: Bool[Array, "b"] | None = None,
    *,
    strata: Int[Array, "b"] | None = None,
) -> Bool[Array, "b b"]:
    """Pairs that `ranking` counts: row i is the death of one case, column j another that lived longer.

    >>> print(comparable(jnp.array([5.0, 9.0]), jnp.array([1, 1])))
    [[False  True]
     [False False]]

    Args:
      time: as for `ranking`.
      event: as for `ranking`.
      where: as for `ranking`.
      strata: as for `ranking`.
    """
    known = is_known(time, event, where)
    pairs = (known & (event == 1))[:, None] & known & (time[:, None] < time)
    return pairs if strata is None else pairs & (strata[:, None] == strata)

"""The Cox partial likelihood: among those still at risk, the case that dies should have the highest risk."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int


def cox(
    risk: Float[Array, "b"],
    time: Float[Array, "b"],
    event: Int[Array, "b"],
    where: Bool[Array, "b"] | None = None,
    *,
    ties: str = "efron",
    strata: Int[Array, "b"] | None = None,
    weight: Float[Array, "b"] | None = None,
) -> Float[Array, "b"]:
    r"""Negative log partial likelihood, one term a death.

    .. math::
        \ell_i = w_i \Big(\frac{1}{d_i} \sum_{k \in T_i} \log D_k - \text{risk}_i\Big), \quad
        D_k = \sum_{j \in R_k} w_j e^{\text{risk}_j} - \frac{a_k}{d_k} \sum_{j \in T_k} w_j e^{\text{risk}_j}

    The risk set R of a death holds the cases of its stratum whose time is not shorter. T holds the d deaths
    of its stratum at its very time, itself included. Efron numbers them a = 0 ... d - 1; with Breslow a is 0
    throughout. The deaths of a tie share their logarithms equally: no term depends on the numbering. The
    riskiest death of a tie may have a term below 0.

    Examples:
      >>> import jax.numpy as jnp
      >>> risk, time = jnp.array([2.0, 0.0, 1.0]), jnp.array([5.0, 9.0, 9.0])
      >>> print(cox(risk, time, jnp.array([1, 1, 0])).round(2))
      [0.41 1.31 0.  ]

    Args:
      risk: log hazard ratios, higher is worse; of any float type. The loss is computed and returned in
        float32, or in float64 if risk is float64.
      time: to death or last follow-up, in any unit, for only the order matters; NaN unknown.
      event: 1 death seen, 0 censored, -1 unknown.
      where: cases to count. A case left out, or of unknown time or event, adds 0 to value and gradient and
        is in no risk set, whatever it holds.
      ties: "efron" or "breslow".
      strata: each stratum has a baseline hazard, hence risk sets, of its own; None for one stratum.
      weight: of a case, at least 0, in its term and in all risk sets. The weights of a tie enter by their
        mean, as in R's `survival`. 0 leaves the case out.

    Returns:
      One term a case, unreduced, 0 for all but deaths. The sum over the number of deaths is the mean
      negative log partial likelihood. Time and memory are O(b²).

    Raises:
      ValueError: another name in `ties`.

    References:
      Cox, Regression models and life-tables, 1972, and Partial likelihood, 1975

      Breslow, Covariance analysis of censored survival data, 1974

      Efron, The efficiency of Cox's likelihood function for censored data, 1977
    """
    if ties not in ("efron", "breslow"):
        raise ValueError(f"ties {ties!r} is neither 'efron' nor 'breslow'")
    known = is_known(time, event, where)
    if weight is not None:
        known &= weight != 0.0
    risk = jnp.where(known, risk.astype(jnp.promote_types(risk.dtype, jnp.float32)), 0.0)
    weight = jnp.where(known, 1.0 if weight is None else weight, 0.0).astype(risk.dtype)
    died = known & (event == 1)

    # Pairs: row i is the death, column j may be in its risk set.
    together = known[:, None] & known
    if strata is not None:
        together &= strata[:, None] == strata
    at_risk = together & (time >= time[:, None])
    tied = together & (time == time[:, None]) & died
    num_tied = jnp.maximum(tied.sum(axis=1), 1).astype(risk.dtype)
    share = jnp.where(at_risk, weight, 0.0)
    if ties == "efron":
        number = jnp.tril(tied, -1).sum(axis=1)
        # As a factor of at least 1 / d on each addend: a difference of two sums would cancel.
        share *= 1.0 - jnp.where(tied, (number / num_tied)[:, None], 0.0)

    # Only differences of risks enter, which keeps their digits however large the risks are. Rows that are no
    # death get ones instead of an empty sum, whose logarithm has no gradient.
    gap = risk - risk[:, None]
    log_sum = jax.nn.logsumexp(gap, axis=1, b=jnp.where(died[:, None], share, 1.0))
    terms = jnp.sum(jnp.where(tied, gap + log_sum, 0.0), axis=1) / num_tied
    return jnp.where(died, weight * terms, 0.0)


def is_known(
    time: Float[Array, "b"], event: Int[Array, "b"], where: Bool[Array, "b"] | None = None
) -> Bool[Array, "b"]:
    """Cases that a survival loss counts: in `where`, time not NaN, event 0 or 1."""
    known = ~jnp.isnan(time) & (event >= 0)
    return known if where is None else known & where

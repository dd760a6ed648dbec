"""Survival in discrete time: bins, likelihoods of their hazards, and what the hazards predict.

The c logits of a case are those of its hazards: h_k is the probability to die in bin k for who has survived
the bins before. S(k) = (1 - h_0) ... (1 - h_k) is the survival at the right edge of bin k.
"""

from __future__ import annotations

import math

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int32, Integer, Shaped

from modaltune_jax.types import InputError


def time_bins(
    time: Float[np.ndarray, "n"], event: Shaped[np.ndarray, "n"], num_bins: int
) -> Float[np.ndarray, "edges"]:
    """Interior edges of survival bins in which equally many deaths fall, as far as ties allow.

    The edges are quantiles of the uncensored times, the interior ones of `Transforms.survival_edges`.

    >>> print(time_bins(np.arange(1.0, 10.0), np.ones(9, int), 4))
    [3. 5. 7.]

    Args:
      time: months to death or last follow-up of the train cases, and of no others; NaN if unknown.
      event: 1 death seen; all other cases are left out.
      num_bins: number of bins, at least 1.

    Returns:
      `num_bins - 1` strictly increasing edges in months, float64, with a death in every bin.

    Raises:
      InputError: a time that is negative or infinite; fewer bins with a death than asked for.
    """
    if num_bins < 1:
        raise InputError(f"{num_bins} survival bins were asked for; ask for at least 1")
    is_wrong = (time < 0) | np.isinf(time)
    if np.any(is_wrong):
        row = int(np.argmax(is_wrong))
        raise InputError(f"row {row}: time is {time[row]} months; make it finite and not negative")
    deaths = time[(event == 1) & ~np.isnan(time)].astype(np.float64)
    inner = np.linspace(0.0, 1.0, num_bins + 1)[1:-1]
    edges = np.quantile(deaths, inner) if deaths.size else np.empty(0)
    num_filled = np.unique(bin_of(deaths, edges)).size
    if num_filled < num_bins:
        raise InputError(
            f"{deaths.size} uncensored train times ({np.unique(deaths).size} distinct) fill {num_filled} of"
            f" {num_bins} survival bins; ask for fewer bins or add train cases"
        )
    return edges


def bin_of(time: Float[np.ndarray, "n"], edges: Float[np.ndarray, "edges"]) -> Int32[np.ndarray, "n"]:
    """Bin of each time: bin k holds edges[k - 1] <= time < edges[k], -1 stands for an unknown (NaN) time.

    The first bin starts at 0, the last one has no end.

    >>> print(bin_of(np.array([0.0, 2.9, 3.0, 99.0, np.nan]), np.array([3.0, 8.0])))
    [ 0  0  1  2 -1]
    """
    return np.where(np.isnan(time), -1, np.searchsorted(edges, time, side="right")).astype(np.int32)


def logistic_hazard(
    logits: Float[Array, "b c"],
    time_bin: Integer[Array, "b"],
    event: Integer[Array, "b"],
    where: Bool[Array, "b"] | None = None,
) -> Float[Array, "b"]:
    r"""Negative log-likelihood of discrete hazards: binary cross entropies, summed over the bins at risk.

    .. math::
        -\sum_{j \le k} y_j \log h_j + (1 - y_j) \log (1 - h_j), \quad
        y_j = 1 \text{ if the case died in bin } j = k \text{, else } 0

    A case censored in bin k thus counts as having survived it, as in `nll`: at alpha 0 the two are equal for
    equal bins. pycox, the package of Kvamme & Borgan, differs before the loss: it rounds deaths up to the
    end of their bin but censored times down to its start, after which a case censored in bin k has
    survived the bins before it only. Pass `time_bin - 1` for censored cases to do the same.

    Examples:
      >>> bins, event = jnp.array([0, 1, 1, -1]), jnp.array([1, 1, 0, 0])
      >>> print(logistic_hazard(jnp.zeros((4, 3)), bins, event) / jnp.log(2.0))
      [1. 2. 2. 0.]

    Args:
      logits: of any float type; the loss is computed and returned in float32.
      time_bin: k, bin of death or last follow-up. A case with bin -1 (unknown, or censored before the
        end of the first bin if so rounded) adds 0 to value and gradient.
      event: 1 death seen, 0 censored; -1 is unknown and adds 0.
      where: cases to count; what is left out adds 0 to value and gradient, whatever it holds.

    Returns:
      One loss a case, unreduced; NaN for a counted case in bin c or later, which has no logit.

    References:
      Kvamme & Borgan, `Continuous and discrete-time survival prediction with neural networks
      <https://arxiv.org/abs/1910.06724>`_, 2021
    """
    counted = event >= 0 if where is None else where & (event >= 0)
    num_bins = logits.shape[1]
    bins = jnp.arange(num_bins)
    at_risk = (bins <= time_bin[:, None]) & counted[:, None]
    died = (bins == time_bin[:, None]) & (event[:, None] == 1)
    # The logits are masked, and not the terms alone: the gradient of a masked NaN is NaN.
    logits = jnp.where(at_risk, logits.astype(jnp.float32), 0.0)
    # -log sigmoid(x) = softplus(-x), exact also where the sigmoid rounds to 0 or 1.
    loss = jnp.sum(jax.nn.softplus(jnp.where(died, -logits, logits)), axis=1, where=at_risk)
    return jnp.where(counted & (time_bin >= num_bins), jnp.nan, loss)


def nll(
    logits: Float[Array, "b c"],
    time_bin: Integer[Array, "b"],
    event: Integer[Array, "b"],
    where: Bool[Array, "b"] | None = None,
    *,
    alpha: float = 0.0,
) -> Float[Array, "b"]:
    r"""Discrete-time survival loss of MCAT: `logistic_hazard` in which censored cases count less.

    .. math::
        (1 - \alpha) (u + v) + \alpha u, \quad
        u = -\log S(k - 1) - \log h_k \text{ if death was seen}, \quad
        v = -\log S(k) \text{ if censored, else } 0

    The public code takes the mean over cases, and clamps S(k - 1), h_k and S(k) at 1e-7. Where all are larger
    the two agree. Where one is smaller, its logarithm stays at -16.1 there and has no gradient, but goes
    on here: a death in the first bin at a logit of -80 costs 80, not 16.1.

    Examples:
      >>> bins, event = jnp.array([1, 1]), jnp.array([1, 0])
      >>> print(nll(jnp.zeros((2, 3)), bins, event, alpha=0.5) / jnp.log(2.0))
      [2. 1.]

    Args:
      logits: as for `logistic_hazard`.
      time_bin: as for `logistic_hazard`.
      event: as for `logistic_hazard`.
      where: as for `logistic_hazard`.
      alpha: from 0, the likelihood, to 1, where censored cases are left out.

    Returns:
      One loss a case, unreduced.

    Raises:
      ValueError: alpha outside 0 to 1.

    References:
      Chen et al., Multimodal co-attention transformer for survival prediction in gigapixel whole slide
      images (MCAT), ICCV 2021

      Zadeh & Schmid, `Bias in cross-entropy-based training of deep survival networks
      <https://doi.org/10.1109/TPAMI.2020.2979450>`_, 2020
    """
    if not 0.0 <= alpha <= 1.0:
        raise ValueError(
            f"alpha {alpha} is outside 0 to 1: it is the share by which censored cases count less"
        )
    return jnp.where(event == 1, 1.0, 1.0 - alpha) * logistic_hazard(logits, time_bin, event, where)


def survival_curve(logits: Float[Array, "b c"]) -> Float[Array, "b c"]:
    """S(k), the probability to survive bin k, at its right edge; float32, never increasing in k."""
    return jnp.exp(-_cumulative(_hazard(logits)))


def risk(logits: Float[Array, "b c"]) -> Float[Array, "b"]:
    """Minus the sum of S(k) over the bins, from -c to 0, as MCAT ranks cases; higher is worse."""
    return -jnp.sum(survival_curve(logits), axis=1)


def survival_at(
    logits: Float[Array, "b c"],
    edges: Float[np.ndarray, "c-1"],
    months: Float[Array | np.ndarray, "m"],
    *,
    horizon: float | None = None,
) -> Float[Array, "b m"]:
    """Survival at any time: inside a bin the hazard rate is constant, so that log S falls linearly.

    This is the constant hazard interpolation of Kvamme & Borgan (2021). Discrete hazards say nothing on the
    time inside a bin; the other scheme of the paper, constant density, makes S itself fall linearly.

    >>> print(survival_at(jnp.zeros((1, 2)), np.array([10.0]), jnp.array([0.0, 5.0, 10.0, 20.0])).round(3))
    [[1.    0.707 0.5     nan]]

    Args:
      logits: of the hazards.
      edges: interior edges in months, from `time_bins`.
      months: times to predict for, in any order.
      horizon: month at which the last bin ends, such as the longest train time. The data give the last bin
        no end, so that without a horizon nothing in it can be estimated.

    Returns:
      float32, 1 at month 0, never increasing in time; NaN (not estimable) for negative or unknown months and
      beyond the horizon, or without one beyond the last edge.

    Raises:
      InputError: edges and horizon that do not increase from above 0.
    """
    ends = _bin_ends(edges, horizon)
    months = jnp.asarray(months, jnp.float32)
    share_lived = jnp.clip((months[:, None] - ends[:-1]) / np.diff(ends), 0.0, 1.0)
    # Not a matrix product, of which accelerators round the factors.
    hazard = jnp.sum(share_lived * _hazard(logits)[:, None, : len(ends) - 1], axis=-1)
    return jnp.where((months >= 0.0) & (months <= ends[-1]), jnp.exp(-hazard), jnp.nan)


def median_survival(
    logits: Float[Array, "b c"], edges: Float[np.ndarray, "c-1"], *, horizon: float | None = None
) -> Float[Array, "b"]:
    """The first month at which `survival_at` is 0.5; NaN (not estimable) where it stays above.

    >>> print(median_survival(jnp.array([[0.0, 0.0], [-9.0, 0.0]]), np.array([10.0])))
    [10. nan]

    Args:
      logits: of the hazards.
      edges: interior edges in months, from `time_bins`.
      horizon: month at which the last bin ends; without one the median is sought up to the last edge.

    Raises:
      InputError: edges and horizon that do not increase from above 0.
    """
    ends = _bin_ends(edges, horizon)
    hazard = _hazard(logits)[:, : len(ends) - 1]
    after = _cumulative(hazard)
    before = jnp.pad(after, ((0, 0), (1, 0)))[:, :-1]
    half = jnp.float32(math.log(2.0))
    # A bin without hazard is lived through as a whole: something positive over the smallest divisor is large.
    share_lived = jnp.clip((half - before) / jnp.maximum(hazard, jnp.finfo(jnp.float32).tiny), 0.0, 1.0)
    is_reached = jnp.max(after, axis=1, initial=0.0) >= half
    return jnp.where(is_reached, jnp.sum(share_lived * np.diff(ends), axis=1), jnp.nan)


def _hazard(logits: Float[Array, "b c"]) -> Float[Array, "b c"]:
    """-log(1 - h), the hazard rate integrated over each bin."""
    return jax.nn.softplus(logits.astype(jnp.float32))


def _cumulative(hazard: Float[Array, "b c"]) -> Float[Array, "b c"]:
    """Sums over the bins up to each; -log S."""
    # A parallel prefix sum adds up neighbours in different orders, and rounding may let it fall.
    return jax.lax.cummax(jnp.cumsum(hazard, axis=1), axis=1)


def _bin_ends(edges: Float[np.ndarray, "edges"], horizon: float | None) -> Float[np.ndarray, "ends"]:
    """0 and the right edges of all bins that have one, in float32 as the months compared with them."""
    ends = np.asarray([0.0, *edges, *([] if horizon is None else [horizon])], np.float32)
    if not np.all(np.diff(ends) > 0.0):
        raise InputError(
            f"bin edges {ends[1:].tolist()} (months, with the horizon) do not increase from above 0;"
            " take edges from time_bins and a horizon beyond the last one"
        )
    return ends

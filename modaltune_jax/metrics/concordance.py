"""Concordance of many bootstrap draws at once, which makes a thousand of them a matter of a moment."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float, Integer, Shaped
from threadpoolctl import threadpool_limits

TIED = 1e-8
"""Risks that differ by no more are tied, as in scikit-survival."""
_BLOCK = 256
"""Deaths whose pairs are in memory at a time."""


def concordance_of_draws(
    risk: Float[np.ndarray, "n"],
    time: Float[np.ndarray, "n"],
    event: Shaped[np.ndarray, "n"],
    rows: Integer[np.ndarray, "draws m"],
    weight: Float[np.ndarray, "n"] | None = None,
) -> Float[np.ndarray, "draws"]:
    """`harrell_c(risk[r], time[r], event[r]).value` for every r in `rows`, to the last bit or the one before.

    A case drawn k times is in k times as many pairs, and in none with its copies. So it is enough to compare
    the cases once, as matrices of pairs, and to multiply them by how often each case was drawn.

    Args:
      risk, time, event: of all cases, as for `harrell_c`.
      rows: the cases of each draw, with repetitions.
      weight: of a pair by its death; None counts all alike. `uno_weights` makes it `uno_c`, with the
        censoring distribution as it is, not estimated anew in each draw.

    Returns:
      The index, NaN for draws without a comparable pair.
    """
    num = len(time)
    drawn = np.stack([np.bincount(row, minlength=num) for row in rows]) if len(rows) else np.zeros((0, num))
    drawn = drawn.astype(np.float64)  # for BLAS; sums of halves are exact
    weight = np.ones(num) if weight is None else weight
    deaths = np.flatnonzero(event.astype(bool) & (weight > 0))
    good, pairs = np.zeros(len(rows)), np.zeros(len(rows))
    # Small matrices: on busy cores, waiting for BLAS threads takes longer than the work.
    with threadpool_limits(limits=1, user_api="blas"):
        for start in range(0, len(deaths), _BLOCK):
            block = deaths[start : start + _BLOCK]
            at = time[block, None]
            comparable = (time > at) | ((time == at) & ~event.astype(bool))
            ahead = risk[block, None] - risk
            points = comparable * np.where(np.abs(ahead) <= TIED, 0.5, ahead > 0)
            weighted = drawn[:, block] * weight[block]
            good += np.einsum("ij,ij->i", weighted @ points, drawn)
            pairs += np.einsum("ij,ij->i", weighted @ comparable.astype(np.float64), drawn)
    return np.divide(good, pairs, out=np.full(len(rows), np.nan), where=pairs > 0)

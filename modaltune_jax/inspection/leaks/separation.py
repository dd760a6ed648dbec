"""How well one number tells two groups apart."""

from __future__ import annotations

import numpy as np
from jaxtyping import Shaped

FEWEST = 10
"""Cases that a group must have to be judged."""


def auroc(one: Shaped[np.ndarray, "a"], other: Shaped[np.ndarray, "b"]) -> float:
    """Area under the ROC curve in the better direction: 0.5 to 1, ties count half.

    >>> auroc(np.array([3, 4]), np.array([1, 2])), auroc(np.array([1, 2]), np.array([1, 2]))
    (1.0, 0.5)
    """
    from scipy.stats import rankdata

    ranks = rankdata(np.concatenate([one, other]))[: len(one)].sum()
    area = (ranks - len(one) * (len(one) + 1) / 2) / (len(one) * len(other))
    return float(max(area, 1 - area))

"""Expression of cases, whatever the layout of the matrix it came from."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import pandas as pd
from jaxtyping import Float

from modaltune_jax.inputs.counts import Count, some
from modaltune_jax.types import InputError


@dataclasses.dataclass(frozen=True, eq=False)
class ExpressionTable:
    """Expression, one row a case.

    Attributes:
      frame: index case_id, unique; one float32 column a gene symbol, unique; NaN where not measured.
      unit: "as given": no table says its own, and nothing is converted.
      counts: what every step did to samples and genes.
    """

    frame: pd.DataFrame
    unit: str
    counts: tuple[Count, ...]


class _Row(NamedTuple):
    mean: float
    values: Float[np.ndarray, "b"]


class GeneRows:
    """Collects genes one by one, so that of a matrix larger than memory the wanted genes can be read.

    Of several genes with one symbol, the one with the highest mean over the cases is kept: the others are
    mostly silent copies.

    Args:
      cases: case ids, the order of the values of every gene.
      source: file, for messages.
    """

    def __init__(self, cases: Sequence[str], source: str):
        self._cases, self._source = list(cases), source
        self._rows: dict[str, _Row] = {}
        self._twice: list[str] = []

    def add(self, symbol: str, values: Float[np.ndarray, "b"]) -> None:
        """Takes one gene.

        Raises:
          InputError: a value is infinite.
        """
        if np.isinf(values).any():
            case = self._cases[int(np.argmax(np.isinf(values)))]
            raise InputError(
                f"{self._source}: case {case}: gene {symbol} is infinite; was log taken of 0? empty the cell"
            )
        known = values[~np.isnan(values)]
        mean = float(known.mean(dtype=np.float64)) if known.size else -math.inf
        other = self._rows.get(symbol)
        if other is not None:
            self._twice.append(symbol)
        if other is None or mean > other.mean:
            # A copy, so that the block it is a part of can be forgotten.
            self._rows[symbol] = _Row(mean, np.array(values, np.float32))

    def table(self, counts: tuple[Count, ...]) -> ExpressionTable:
        """All genes so far.

        Args:
          counts: what was done before, to be reported with the rest.

        Raises:
          InputError: no gene or no case.
        """
        if not self._rows or not self._cases:
            raise InputError(
                f"{self._source}: gives {len(self._rows)} genes for {len(self._cases)} cases; check that it"
                " names genes by symbol (or give aliases) and has tumour samples of your cases"
            )
        if self._twice:
            text = "of several genes with one symbol the one with the highest mean is kept"
            total = len(self._rows) + len(self._twice)
            counts += (
                Count("one gene a symbol", total, len(self._rows), text, some(dict.fromkeys(self._twice))),
            )
        values = np.stack([row.values for row in self._rows.values()], axis=1)
        index = pd.Index(self._cases, dtype=object, name="case_id")
        frame = pd.DataFrame(values, index=index, columns=pd.Index(list(self._rows), dtype=object))
        missing = int(np.isnan(values).sum())
        step = f"expression of {len(self._rows)} genes"
        text = f"{missing} values are not measured" if missing else ""
        return ExpressionTable(frame, "as given", (*counts, Count(step, len(frame), len(frame), text)))

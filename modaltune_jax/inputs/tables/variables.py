"""Further columns of a table as variables: numbers or categories, and what makes either hard to believe."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence

import numpy as np
import pandas as pd

from modaltune_jax.inputs.counts import Count, is_nearly_lost, plural, some
from modaltune_jax.inputs.table_file import number

_MANY_WORDS = 10
_DECIMAL_COMMA = re.compile(r"[+-]?\d+,\d+")


def typed(texts: pd.Series) -> pd.Series:
    """Numbers if every given cell is a finite number, else categories."""
    numbers = np.asarray([number(text) for text in texts], np.float64)
    is_given = np.asarray(texts != "")
    if is_given.any() and np.isfinite(numbers[is_given]).all():
        return pd.Series(np.where(is_given, numbers, math.nan), index=texts.index)
    return pd.Series([text or None for text in texts], index=texts.index, dtype=object)


def describe(name: str, values: pd.Series) -> Count:
    """What a variable holds, suspect where that is hardly what was meant."""
    known = int(values.notna().sum())
    words = sorted(set(values.dropna())) if values.dtype == object else []
    if not known:
        text, doubt = "no case has it", True
    elif values.dtype == object:
        doubts = _doubts(list(values.dropna()), len(words))
        text, doubt = "; ".join((f"a category with {plural(len(words), 'value')}", *doubts)), bool(doubts)
    else:
        text, doubt = f"a number, {values.min():g} to {values.max():g}", False
    suspect = doubt or is_nearly_lost(len(values), known)
    return Count(f"variable {name}", len(values), known, text, some(words), suspect)


def _doubts(cells: Sequence[str], num_words: int) -> list[str]:
    """What makes a category look like numbers or names."""
    with_comma = [cell for cell in cells if _DECIMAL_COMMA.fullmatch(cell)]
    if with_comma:
        return [f"are cells such as {with_comma[0]!r} numbers? write them with a decimal point"]
    words = [cell for cell in cells if math.isnan(number(cell))]
    if len(words) < len(cells) / 2:
        return [f"most are numbers, but not {', '.join(repr(word) for word in some(dict.fromkeys(words)))}"]
    if num_words > _MANY_WORDS and num_words > len(cells) / 2:
        return ["nearly every case has its own, so nothing can be learnt from it"]
    return []

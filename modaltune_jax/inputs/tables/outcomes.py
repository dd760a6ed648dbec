"""Survival of cases by rule: every value that is not taken as it stands is counted, or doubted aloud."""

from __future__ import annotations

from collections import Counter
from collections.abc import Hashable, Iterable
from typing import NamedTuple

import numpy as np
import pandas as pd
from jaxtyping import Float, Int

from modaltune_jax.inputs.counts import Count, is_nearly_lost, plural, some
from modaltune_jax.inputs.table_file import clean, number
from modaltune_jax.inputs.tables.endpoints import Endpoint
from modaltune_jax.types import InputError

_PER_MONTH = {"days": 30.44, "months": 1.0, "years": 1 / 12}

_EVENT_WORDS = {
    **{"1": 1, "1.0": 1, "true": 1, "yes": 1, "event": 1, "dead": 1, "deceased": 1, "1:deceased": 1},
    **{"0": 0, "0.0": 0, "false": 0, "no": 0, "censored": 0, "alive": 0, "living": 0, "0:living": 0},
}
_CENSORSHIP_WORDS = {
    **{"1": 1, "1.0": 1, "true": 1, "yes": 1, "censored": 1},
    **{"0": 0, "0.0": 0, "false": 0, "no": 0, "uncensored": 0, "event": 0},
}

# In months. Beyond them the unit is rather mistaken than the study remarkable.
_LONGEST, _LONGEST_MEDIAN = 600.0, 240.0
_SHORTEST_MEDIAN, _SHORTEST_OF_ALL = 6.0, 6.0
_FEW = 10  # of fewer cases the shortness says nothing
_MOST_WORDS = 8


class Outcome(NamedTuple):
    """Survival of the rows of a table.

    Attributes:
      time: `[b]` months, NaN unknown.
      event: `[b]` 1 seen, 0 censored, -1 unknown.
      counts: one for every rule that touched a case.
    """

    time: Float[np.ndarray, "b"]
    event: Int[np.ndarray, "b"]
    counts: tuple[Count, ...]


def outcome(table: pd.DataFrame, endpoint: Endpoint, source: str, *, is_unit_sure: bool = False) -> Outcome:
    """Survival by rule, from text cells; every rule that touches a case is counted.

    A negative time is unknown. Without a time the event is unknown too. Without an event the time stays,
    but there is no label. Zero stays as it is.

    Args:
      table: index case id, cells text; has the endpoint's columns.
      endpoint: columns, unit and direction.
      source: file, for messages.
      is_unit_sure: the source defines it; otherwise times that are hard to believe are suspect.

    Raises:
      InputError: a time is no number, or a status is none of the known words.
    """
    cases = list(table.index)
    time = _times(table[endpoint.time], endpoint, source)
    texts = table[endpoint.status]
    event = _events(texts, endpoint, source)
    is_negative = time < 0
    time = np.where(is_negative, np.nan, time)
    has_no_time = np.isnan(time) & (event != -1)
    seen = _what_was_read(texts, event, endpoint)
    event = np.where(np.isnan(time), -1, event)
    has_no_event = ~np.isnan(time) & (event == -1)
    counts = (
        _count("negative times", is_negative, "a negative time is unknown", cases),
        _count("events without a time", has_no_time, "without a time the event is unknown", cases),
        _count("times without an event", has_no_event, "without an event there is no survival label", cases),
        _zeros(time, cases),
        *([] if is_unit_sure else _doubts(time, event, endpoint, cases)),
        _survival(event, endpoint, seen),
    )
    return Outcome(time, event, tuple(count for count in counts if count is not None))


def _times(texts: pd.Series, endpoint: Endpoint, source: str) -> Float[np.ndarray, "b"]:
    """Months; NaN where nothing is given."""
    texts = texts.map(clean)
    stated = np.asarray([number(text) for text in texts], np.float64)
    wrong = [
        (case, text)
        for (case, text), value in zip(texts.items(), stated, strict=True)
        if text and value != value
    ]
    if wrong:
        case, text = wrong[0]
        raise InputError(
            f"{source}: case {case}: {endpoint.time} is {text!r}, which is no number of {endpoint.unit}"
            f"{_others(wrong)}; give the time since diagnosis as a number with a decimal point, or leave it"
            " empty"
        )
    return stated / _PER_MONTH[endpoint.unit]


def _events(texts: pd.Series, endpoint: Endpoint, source: str) -> Int[np.ndarray, "b"]:
    default = _EVENT_WORDS if endpoint.event else _CENSORSHIP_WORDS
    words = {word.strip().lower(): value for word, value in endpoint.values.items()} or default

    def meaning(text: str) -> int | None:
        # Words of the user's come first: "NA" or "none" may well mean that nothing happened.
        return words.get(text.strip().lower(), None if clean(text) else -1)

    meanings = [meaning(text) for text in texts]
    wrong = [
        (case, text) for (case, text), value in zip(texts.items(), meanings, strict=True) if value is None
    ]
    if wrong:
        case, text = wrong[0]
        called = "event" if endpoint.event else "censorship"
        raise InputError(
            f"{source}: case {case}: {endpoint.status} is {text!r}, which is none of"
            f" {', '.join(sorted(words))}{_others(wrong)}; say what it means with {called}_values in the"
            " columns file"
        )
    values = np.asarray(meanings, np.int64).reshape(len(texts))
    return np.where(values == -1, -1, 1 - values) if endpoint.censorship else values


def _others(wrong: list[tuple[Hashable, str]]) -> str:
    return f" (nor is it in {plural(len(wrong) - 1, 'other case')})" if len(wrong) > 1 else ""


def _what_was_read(texts: pd.Series, event: Int[np.ndarray, "b"], endpoint: Endpoint) -> str:
    """Which words were taken for what, so that a reader sees a direction that is wrong."""
    amounts = Counter(zip((text.strip() or "empty" for text in texts), event, strict=True))
    given = {text.strip().lower() for text in texts}
    for word, value in endpoint.values.items():
        if word.strip().lower() not in given:
            amounts[word, value if value == -1 or endpoint.event else 1 - value] = 0
    parts = []
    for value, called in ((1, "seen"), (0, "not seen"), (-1, "unknown")):
        words = [f"{word} ({amount})" for (word, of), amount in sorted(amounts.items()) if of == value]
        if words or value != -1:
            parts.append(f"{called}: {', '.join(words[:_MOST_WORDS]) or 'none'}")
    return "; ".join(parts)


def _zeros(time: Float[np.ndarray, "b"], cases: list[object]) -> Count | None:
    is_zero = time == 0
    if not is_zero.any():
        return None
    text = f"{plural(int(is_zero.sum()), 'case')} with the time 0, which is kept"
    return Count("times of zero", len(cases), len(cases), text, some(_chosen(cases, is_zero)))


def _doubts(
    time: Float[np.ndarray, "b"], event: Int[np.ndarray, "b"], endpoint: Endpoint, cases: list[object]
) -> list[Count]:
    """Times that a mistaken unit explains better than anything else."""
    of = time[event != -1]
    if not len(of):
        return []
    asked = f"is the unit of {endpoint.time} really {endpoint.unit}?"
    doubts: list[tuple[str, str, tuple[str, ...]]] = []
    median, longest = float(np.median(of)), float(of.max())
    if median > _LONGEST_MEDIAN:
        doubts.append(("long", f"the median is {median:.0f} months", ()))
    elif longest > _LONGEST:
        long = np.nan_to_num(time) > _LONGEST
        named = (f"{case}: {time[i]:.0f} months" for i, case in enumerate(cases) if long[i])
        doubts.append(("long", f"{plural(int(long.sum()), 'case')} above {_LONGEST:.0f} months", some(named)))
    if len(of) >= _FEW and longest < _SHORTEST_OF_ALL:
        doubts.append(("short", f"the longest is {longest:.2g} months", ()))
    elif len(of) >= _FEW and median < _SHORTEST_MEDIAN:
        doubts.append(("short", f"the median is {median:.2g} months", ()))
    return [
        Count(f"times too {size} to believe", len(cases), len(cases), f"{text}; {asked}", named, suspect=True)
        for size, text, named in doubts
    ]


def _survival(event: Int[np.ndarray, "b"], endpoint: Endpoint, seen: str) -> Count:
    known = int((event != -1).sum())
    num_seen = int((event == 1).sum())
    is_one_sided = known >= _FEW and num_seen in (0, known)
    text = (
        f"{plural(num_seen, 'event')}; {endpoint.time} in {endpoint.unit}, {endpoint.status} "
        f"{'' if endpoint.event else '(censorship) '}read as {seen}"
    )
    suspect = is_one_sided or is_nearly_lost(len(event), known)
    return Count("cases with survival", len(event), known, text, suspect=suspect)


def _chosen(cases: Iterable[object], mask: np.ndarray) -> list[object]:
    return [case for case, is_one in zip(cases, mask, strict=True) if is_one]


def _count(step: str, mask: np.ndarray, rule: str, cases: list[object]) -> Count | None:
    if not mask.any():
        return None
    is_most = bool(mask.sum() > len(cases) / 2)
    return Count(step, int(mask.sum()), 0, rule, some(_chosen(cases, mask)), suspect=is_most)

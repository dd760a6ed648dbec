"""Survival of cases from the columns of a table: the unit is named, and so is what a 1 means."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterable, Mapping
from typing import NamedTuple

import numpy as np
import pandas as pd
from jaxtyping import Float, Int

from modaltune_jax.inputs.counts import Count, some
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

# A median follow-up beyond it is longer than any study's: days or weeks were called months.
_LONGEST_MEDIAN = 600.0


@dataclasses.dataclass(frozen=True)
class Endpoint:
    """Which columns say how long a case was followed, and how that ended.

    Attributes:
      time: column of the time from diagnosis.
      unit: "days", "months" or "years".
      event: column in which 1 means that the event was seen.
      censorship: column in which 1 means that it was not; exactly one of the two is given.
      values: source word -> 1, 0 or -1 (unknown), in the sense of that column; empty for 0/1, true/false,
        yes/no and, in an event column, dead/alive.
    """

    time: str
    unit: str
    event: str = ""
    censorship: str = ""
    values: Mapping[str, int] = dataclasses.field(default_factory=dict)

    def __post_init__(self) -> None:
        if not self.time or self.unit not in _PER_MONTH:
            raise InputError(
                f"endpoint: time is {self.time!r} and unit {self.unit!r}; name the column of the time and its"
                " unit, days, months or years"
            )
        if bool(self.event) == bool(self.censorship):
            raise InputError(
                f"endpoint: event is {self.event!r} and censorship {self.censorship!r}; name exactly one, the"
                " column where 1 means seen (event) or the one where 1 means not seen (censorship)"
            )
        says_censorship = "censor" in self.status.lower()
        says_event = not says_censorship and any(
            word in self.status.lower() for word in ("event", "dea", "died")
        )
        if (self.event and says_censorship) or (self.censorship and says_event):
            called, other = ("event", "censorship") if self.event else ("censorship", "event")
            raise InputError(
                f"endpoint: {called}={self.status} contradicts the column's name; write"
                f" {other}={self.status}, or rename the column if its name is wrong"
            )
        wrong = [word for word, value in self.values.items() if value not in (-1, 0, 1)]
        if wrong:
            raise InputError(
                f"endpoint: {wrong[0]!r} means {self.values[wrong[0]]!r}; write 1, 0 or -1 (unknown)"
            )

    @property
    def status(self) -> str:
        """The column of the event or the censorship."""
        return self.event or self.censorship

    @classmethod
    def parse(cls, text: str) -> Endpoint:
        """An endpoint as written on the command line.

        Raises:
          InputError: a part is unknown, or the parts make no endpoint.

        >>> Endpoint.parse("time=OS.time,unit=days,event=OS").status
        'OS'
        """
        parts: dict[str, str] = {}
        for part in text.split(","):
            key, equals, value = (piece.strip() for piece in part.partition("="))
            if not equals or key not in ("time", "unit", "event", "censorship") or key in parts:
                raise InputError(
                    f"endpoint {text!r}: cannot read {part.strip()!r}; write"
                    " time=COLUMN,unit=days,event=COLUMN or time=COLUMN,unit=days,censorship=COLUMN"
                )
            parts[key] = value
        return cls(
            time=parts.get("time", ""),
            unit=parts.get("unit", ""),
            event=parts.get("event", ""),
            censorship=parts.get("censorship", ""),
        )


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


def outcome(table: pd.DataFrame, endpoint: Endpoint, source: str) -> Outcome:
    """Survival by rule, from text cells; every rule that touches a case is counted.

    A negative time is unknown. Without a time the event is unknown too. Without an event the time stays,
    but there is no label. Zero stays as it is.

    Args:
      table: index case id, cells text, `""` missing; has the endpoint's columns.
      endpoint: columns, unit and direction.
      source: file, for messages.

    Raises:
      InputError: a time is no number, or a status is none of the known words.
    """
    cases = list(table.index)
    stated = [_number(text, case, endpoint, source) for case, text in table[endpoint.time].items()]
    time = np.asarray(stated, np.float64) / _PER_MONTH[endpoint.unit]
    status = [_status(text, case, endpoint, source) for case, text in table[endpoint.status].items()]
    event = np.asarray(status, np.int64)
    is_negative = time < 0
    time = np.where(is_negative, np.nan, time)
    has_no_time = np.isnan(time) & (event != -1)
    event = np.where(np.isnan(time), -1, event)
    has_no_event = ~np.isnan(time) & (event == -1)
    counts = [
        _count("negative times", is_negative, "a negative time is unknown", cases),
        _count("events without a time", has_no_time, "without a time the event is unknown", cases),
        _count("times without an event", has_no_event, "without an event there is no survival label", cases),
    ]
    is_zero = time == 0
    if is_zero.any():
        text = f"{is_zero.sum()} cases have the time 0, which is kept"
        counts.append(Count("times of zero", len(cases), len(cases), text, some(_chosen(cases, is_zero))))
    known = event != -1
    median = float(np.median(time[known])) if known.any() else math.nan
    if median > _LONGEST_MEDIAN:
        text = f"the median is {median:.0f} months; is the unit of {endpoint.time} really {endpoint.unit}?"
        counts.append(Count("times too long to believe", len(cases), len(cases), text))
    text = f"{(event == 1).sum()} events; {endpoint.time} in {endpoint.unit}, {_direction(endpoint)}"
    survival = Count("cases with survival", len(cases), int(known.sum()), text)
    return Outcome(time, event, (*(count for count in counts if count is not None), survival))


def _number(text: str, case: object, endpoint: Endpoint, source: str) -> float:
    if not text:
        return math.nan
    try:
        number = float(text)
    except ValueError:
        number = math.nan
    if not math.isfinite(number):
        raise InputError(
            f"{source}: case {case}: {endpoint.time} is {text!r}, which is no number of {endpoint.unit}; give"
            " the time since diagnosis as a number with a decimal point, or leave it empty"
        )
    return number


def _status(text: str, case: object, endpoint: Endpoint, source: str) -> int:
    if not text:
        return -1
    default = _EVENT_WORDS if endpoint.event else _CENSORSHIP_WORDS
    words = {word.lower(): value for word, value in endpoint.values.items()} or default
    value = words.get(text.lower())
    if value is None:
        called = "event" if endpoint.event else "censorship"
        raise InputError(
            f"{source}: case {case}: {endpoint.status} is {text!r}, which is none of"
            f" {', '.join(sorted(words))}; say what it means with {called}_values in the columns file"
        )
    return 1 - value if endpoint.censorship and value != -1 else value


def _direction(endpoint: Endpoint) -> str:
    if endpoint.event:
        return f"1 in {endpoint.event} means seen"
    return f"1 in {endpoint.censorship} means censored"


def _chosen(cases: Iterable[object], mask: np.ndarray) -> list[object]:
    return [case for case, is_one in zip(cases, mask, strict=True) if is_one]


def _count(step: str, mask: np.ndarray, rule: str, cases: list[object]) -> Count | None:
    if not mask.any():
        return None
    return Count(step, int(mask.sum()), 0, rule, some(_chosen(cases, mask)))

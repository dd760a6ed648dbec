"""Survival of cases from the columns of a table: the unit is named, and so is what a 1 means."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Mapping

from modaltune_jax.types import InputError

UNITS = ("days", "months", "years")

_NOT_SEEN = re.compile(r"(?<![a-z])(un)?[cz]ens|alive|living|surviv(ed|or|ing)", re.IGNORECASE)
_SEEN = re.compile(r"event|dead|death|deceased|died|(?<![a-z])uncensored", re.IGNORECASE)


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
        if not self.time or self.unit not in UNITS:
            raise InputError(
                f"endpoint: time is {self.time!r} and unit {self.unit!r}; name the column of the time and its"
                " unit, days, months or years"
            )
        if bool(self.event) == bool(self.censorship):
            raise InputError(
                f"endpoint: event is {self.event!r} and censorship {self.censorship!r}; name exactly one, the"
                " column where 1 means seen (event) or the one where 1 means not seen (censorship)"
            )
        if self.time == self.status:
            raise InputError(
                f"endpoint: column {self.time!r} cannot be the time and its end too; name two columns"
            )
        self._check_name()
        wrong = [word for word, value in self.values.items() if value not in (-1, 0, 1)]
        if wrong:
            raise InputError(
                f"endpoint: {wrong[0]!r} means {self.values[wrong[0]]!r}; write 1, 0 or -1 (unknown)"
            )
        words: dict[str, str] = {}
        for word in self.values:
            other = words.setdefault(word.lower(), word)
            if self.values[other] != self.values[word]:
                raise InputError(
                    f"endpoint: {other!r} means {self.values[other]} and {word!r} {self.values[word]};"
                    " capital letters make no difference, keep one"
                )

    @property
    def status(self) -> str:
        """The column of the event or the censorship."""
        return self.event or self.censorship

    def _check_name(self) -> None:
        """Refuses a column whose name says the other direction, unless the meanings are spelt out."""
        is_not_seen, is_seen = bool(_NOT_SEEN.search(self.status)), bool(_SEEN.search(self.status))
        if self.values or not (is_not_seen if self.event else is_seen) or (is_seen and is_not_seen):
            return
        called, other = ("event", "censorship") if self.event else ("censorship", "event")
        raise InputError(
            f"endpoint: {called}={self.status} contradicts the column's name; write {other}={self.status}, or"
            f" say what its words mean with {called}_values in the columns file"
        )

    @classmethod
    def parse(cls, text: str, own: Endpoint | None = None) -> Endpoint:
        """An endpoint as written on the command line.

        Args:
          text: "time=COLUMN,unit=UNIT,event=COLUMN", or with censorship.
          own: that of the columns file; what it says of the words in the same status column stays.

        Raises:
          InputError: a part is unknown, the parts make no endpoint, or one of the other direction than `own`.

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
        event, censorship = parts.get("event", ""), parts.get("censorship", "")
        values = own.values if own is not None and own.status in (event, censorship) else {}
        if own is not None and values and own.event != event:
            raise InputError(
                f"endpoint {text!r}: the columns file says what the words of {own.status} mean as"
                f" {'an event' if own.event else 'a censorship'}; say the same in both"
            )
        return cls(
            parts.get("time", ""), parts.get("unit", ""), event=event, censorship=censorship, values=values
        )

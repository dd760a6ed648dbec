"""How often a compiled program runs each of its instructions, read from its text."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator

_HEAD = re.compile(r"^(?:ENTRY )?%?(?P<name>[\w.\-]+) .*\{$")
_CALLED = re.compile(r"(?P<role>\w+)=(?:%?(?P<name>[\w.\-]+)|\{(?P<names>%[^{}]*)\})")
_TRIPS = re.compile(r'"known_trip_count":\{"n":"(\d+)"\}')


def instructions(program: str) -> Iterator[tuple[str, int | None]]:
    """Lines of a program (`compiled.as_text()`) and how often each runs; None in a loop of unknown length.

    Of branches of which one is taken every one counts. The text has what is called before its callers.
    """
    bodies: dict[str, list[str]] = {}
    name = ""
    for line in program.splitlines():
        head = _HEAD.match(line)
        if head:
            name = "ENTRY" if line.startswith("ENTRY") else head["name"]
        bodies.setdefault(name, []).append(line)
    times: Counter[str] = Counter(ENTRY=1)
    unknown: set[str] = set()
    for name, lines in reversed(bodies.items()):
        for line in lines:
            trips = _TRIPS.search(line)
            for role, called in _calls(line):
                if called not in bodies:
                    continue
                if name in unknown or (role == "body" and not trips):
                    unknown.add(called)
                times[called] += times[name] * (int(trips[1]) if role == "body" and trips else 1)
            yield line, None if name in unknown else times[name]


def _calls(line: str) -> Iterator[tuple[str, str]]:
    for match in _CALLED.finditer(line):
        for name in (match["name"] or match["names"]).split(","):
            yield match["role"], name.strip().lstrip("%")

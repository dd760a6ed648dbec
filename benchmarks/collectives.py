"""Collectives of a compiled program: kind, count and bytes that each device sends, read from its text."""

from __future__ import annotations

import dataclasses
import math
import re

from benchmarks.program_loops import instructions

_BYTES = {"pred": 1, "s8": 1, "u8": 1, "bf16": 2, "f16": 2, "s32": 4, "u32": 4, "f32": 4, "s64": 8, "f64": 8}
_INSTRUCTION = re.compile(
    r"= (?P<result>\([^()]*\)|\S+) "
    r"(?P<kind>all-gather|all-reduce|reduce-scatter|collective-permute|all-to-all)(?P<start>-start)?"
    r"\((?P<rest>.*)"
)
# Comments, and layouts with the tiles of a TPU.
_DECORATION = re.compile(r"/\*.*?\*/|\{[\d,]*:[^{}]*\}")
# Three notations: {{0,1},{2,3}} and [2,2]<=[4] and mesh['a'=2,'b'=2] {'b'}, of which 'b':(1)2 is a part.
_GROUPS = re.compile(
    r"replica_groups=(?:\{\{(?P<listed>[\d,]+)\}|\[\d+,(?P<size>\d+)\]"
    r"|mesh\[(?P<axes>[^\]]*)\] ?\{(?P<used>[^}]*)\})"
)


@dataclasses.dataclass(frozen=True)
class Collective:
    """One kind of collective.

    Attributes:
      kind: as XLA names it.
      count: how often a step has one; in loops, once a round.
      bytes_sent: by each device, in all; rings are assumed, which send the least.
    """

    kind: str
    count: int
    bytes_sent: float


def collectives(program: str) -> list[Collective]:
    """What devices send each other in a program (`compiled.as_text()`); groups of one device send nothing.

    Raises:
      ValueError: a collective in a loop of unknown length, or groups in a notation that is not known.
    """
    found: dict[str, list[float]] = {}
    for line, times in instructions(program):
        match = _INSTRUCTION.search(_DECORATION.sub("", line))
        if match is None:
            continue
        # What starts and is waited for later gives its operands back beside its results.
        sizes = _sizes(match["result"])
        size = max(sizes) if match["start"] else sum(sizes)
        sent = _sent(match["kind"], size, _group_size(match["rest"]))
        if sent and times is None:
            raise ValueError(f"{match['kind']} in a loop of unknown length")
        if sent:
            found.setdefault(match["kind"], []).extend([sent] * (times or 0))
    return [Collective(kind, len(sent), sum(sent)) for kind, sent in sorted(found.items())]


def _sent(kind: str, size: int, group: int | None) -> float:
    if kind == "collective-permute":
        return size
    if group is None:
        raise ValueError(f"{kind} without replica groups that this can read")
    others = (group - 1) / group
    return {"all-reduce": 2 * others, "reduce-scatter": group - 1}.get(kind, others) * size


def _sizes(result: str) -> list[int]:
    arrays = re.findall(r"(\w+)\[([\d,]*)\]", result)
    return [_BYTES[dtype] * math.prod(map(int, filter(None, shape.split(",")))) for dtype, shape in arrays]


def _group_size(rest: str) -> int | None:
    match = _GROUPS.search(rest)
    if match is None:
        return None
    if match["axes"] is None:
        return int(match["size"]) if match["size"] else len(match["listed"].split(","))
    sizes = dict(re.findall(r"'(\w+)'=(\d+)", match["axes"]))
    used = re.findall(r"'(\w+)'(?::\(\d+\)(\d+))?", match["used"])
    return math.prod(int(part or sizes[axis]) for axis, part in used)

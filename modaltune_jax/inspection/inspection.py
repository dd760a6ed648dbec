"""Everything that can be said of slides and cases before they are packed, and whether they can be."""

from __future__ import annotations

import dataclasses
import functools
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from typing import Any, NamedTuple

import numpy as np

from modaltune_jax.inputs.counts import Count, some
from modaltune_jax.inputs.readers.slide_file import SlideFacts
from modaltune_jax.inspection.cohort_checks import CohortFacts
from modaltune_jax.inspection.leaks.leak import Leak
from modaltune_jax.inspection.leaks.sketches import SlideSketch, sketch
from modaltune_jax.inspection.slide_checks import SlideCheck, check_slide, unreadable
from modaltune_jax.inspection.slide_runs import map_slides
from modaltune_jax.inspection.slide_sources import Entry, SlideSource
from modaltune_jax.inspection.wording import plural
from modaltune_jax.packing.planned_case import Quarantined
from modaltune_jax.types import InputError, Slide

_UNITS = ("layout", "encoder", "width", "dtype", "patch_size_level0", "magnification", "mpp", "frame")
_MUST_AGREE = ("encoder", "width", "dtype", "magnification")
"""What differs only by mistake. Tiles of one size in micrometres do have several sizes in pixels."""


class Unit(NamedTuple):
    """What the slides that could be read say of one of their units.

    Attributes:
      field: of `SlideCheck`.
      slides: value -> number of slides, most frequent first; "unknown" where a slide does not say.
      is_mixed: they must agree and do not.
      examples: slides that differ from most, if they must not.
    """

    field: str
    slides: dict[str, int]
    is_mixed: bool
    examples: tuple[str, ...]


class Looked(NamedTuple):
    """What is kept of a slide; `sketch` is None where there is nothing to compare it by."""

    entry: Entry
    check: SlideCheck
    sketch: SlideSketch | None


@dataclasses.dataclass(frozen=True)
class Verdict:
    """Whether this can be packed.

    Attributes:
      can: "yes", "but" (something would be left out or leaks) or "no".
      reasons: phrases, "3 slides would be quarantined".
    """

    can: str
    reasons: tuple[str, ...]

    @property
    def exit_code(self) -> int:
        return {"yes": 0, "but": 1, "no": 2}[self.can]

    def __str__(self) -> str:
        start = {"yes": "yes", "but": "yes, but ", "no": "no: "}[self.can]
        return start + "; ".join(self.reasons)


@dataclasses.dataclass(frozen=True)
class Inspection:
    """What was found under one path, or under several that hold the slides of one cohort.

    Attributes:
      paths: what was looked at.
      kind: "features", "records" or "tcga_bench".
      num_found: slides there; `slides` may be a sample of them.
      slides: worst first, then in the order they were found.
      units: of the slides that could be read.
      cohort: the cases in numbers; None where nothing but slides is known.
      num_left: cases that are not quarantined; None where nothing but slides is known.
      counts: what every join did to the cases.
      quarantined: cases and slides that would be left out, besides `slides` that are bad.
      leaks: what would make results look better than they are.
      notes: sentences on how it was looked at.
      needed: flags without which nothing can be packed, with what they say.
    """

    paths: tuple[str, ...]
    kind: str
    num_found: int
    slides: tuple[SlideCheck, ...]
    units: tuple[Unit, ...]
    cohort: CohortFacts | None = None
    num_left: int | None = None
    counts: tuple[Count, ...] = ()
    quarantined: tuple[Quarantined, ...] = ()
    leaks: tuple[Leak, ...] = ()
    notes: tuple[str, ...] = ()
    needed: tuple[str, ...] = ()

    @property
    def suspects(self) -> tuple[Count, ...]:
        """What a person should look at before this is packed."""
        return tuple(count for count in self.counts if count.suspect)

    @property
    def verdict(self) -> Verdict:
        """Slides and cases that would be left out, leaks that are errors, and what looks wrong count."""
        bad = {check.slide_id for check in self.slides if check.verdict == "bad"}
        cases = {line.case_id for line in self.quarantined if not line.slide_id}
        slides = bad | {line.slide_id for line in self.quarantined if line.slide_id}
        if self.cohort is None and len(bad) == len(self.slides):
            return Verdict("no", ("no slide can be read" if bad else "there are no slides",))
        if self.num_left == 0:
            return Verdict("no", ("no case is left",))
        if self.needed:
            return Verdict("no", self.needed)
        num_leaks = sum(leak.severity == "error" for leak in self.leaks)
        counts = ((len(slides), "slide"), (len(cases), "case"))
        what = "damaged or empty" if self.kind == "records" else "would be quarantined"
        reasons = [f"{plural(count, noun)} {what}" for count, noun in counts if count]
        reasons += [f"{plural(num_leaks, 'leak')} found"] if num_leaks else []
        num_suspects = len(self.suspects)
        reasons += [f"{plural(num_suspects, 'number')} to look at, see the notes"] if num_suspects else []
        return Verdict("but" if reasons else "yes", tuple(reasons))


def look(
    source: SlideSource, *, sample: int | None = None, workers: int | None = None, progress: bool = False
) -> list[Looked]:
    """Checks slides one by one; a slide that cannot be read becomes a check that says why.

    Args:
      source: of the slides.
      sample: look at this many, evenly spaced; None looks at all.
      workers, progress: as of `map_slides`.
    """
    entries = evenly(source.entries, sample)
    look_at = functools.partial(_look_at, source.read)
    return map_slides(
        look_at, entries, workers=workers, description="inspecting", progress=progress, lost=_lost
    )


def evenly(entries: Sequence[Entry], count: int | None) -> list[Entry]:
    """At most `count` of the entries, from the whole length.

    Raises:
      InputError: `count` is below 1.
    """
    if count is not None and count < 1:
        raise InputError(f"--sample is {count}; it must be at least 1 slide")
    if count is None or count >= len(entries):
        return list(entries)
    return [entries[int(i)] for i in np.linspace(0, len(entries) - 1, count).round()]


def worst_first(looked: Iterable[Looked]) -> list[Looked]:
    """Bad slides, then those with warnings, most of them first, then the others."""
    order = {"bad": 0, "warning": 1, "ok": 2}
    return sorted(looked, key=lambda slide: (order[slide.check.verdict], -len(slide.check.findings)))


def units(checks: Sequence[SlideCheck]) -> tuple[Unit, ...]:
    """Counts every unit over the slides that could be read."""
    read = [check for check in checks if check.num_tiles is not None]
    found = []
    for field in _UNITS:
        values = [_spelled(getattr(check, field)) for check in read]
        slides = dict(Counter(values).most_common())
        is_mixed = field in _MUST_AGREE and len(slides) > 1
        most = next(iter(slides), "")
        others = [check.slide_id for check, value in zip(read, values, strict=True) if value != most]
        found.append(Unit(field, slides, is_mixed, some(others) if is_mixed else ()))
    return tuple(found)


def _look_at(read: Callable[[Any], tuple[Slide, SlideFacts]], entry: Entry) -> Looked:
    where = {"case_id": entry.case_id, "path": entry.path, "layout": entry.layout}
    try:
        slide, facts = read(entry.key)
    except (InputError, OSError) as error:
        return Looked(entry, unreadable(entry.slide_id, " ".join(str(error).split()), **where), None)
    return Looked(entry, check_slide(slide, facts, **where), sketch(slide))


def _lost(entry: Entry, reason: str) -> Looked:
    where = {"case_id": entry.case_id, "path": entry.path, "layout": entry.layout}
    return Looked(
        entry, unreadable(entry.slide_id, f"{entry.path}: {reason}, so it is damaged", **where), None
    )


def _spelled(value: object) -> str:
    if value is None or value == "":
        return "unknown"
    return f"{value:.4g}" if isinstance(value, float) else str(value)

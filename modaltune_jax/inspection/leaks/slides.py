"""Cases and slides that are in two places at once."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from modaltune_jax.inputs.counts import some
from modaltune_jax.inspection.leaks.leak import Leak
from modaltune_jax.inspection.leaks.sketches import Alike, SlideSketch, alike


def case_leaks(splits: Iterable[tuple[str, str]]) -> list[Leak]:
    """Cases that are in two splits.

    Args:
      splits: (case, split) pairs; a case may come again.
    """
    found = _several(splits)
    if not found:
        return []
    message = f"cases in several splits: {len(found)}; what is tested was trained on, keep each in one split"
    return [Leak("case-in-two-splits", "error", message, some(found))]


def owner_leaks(owners: Iterable[tuple[str, str]]) -> list[Leak]:
    """Slides that belong to two cases.

    Args:
      owners: (slide, case) pairs; a slide may come again.
    """
    found = _several(owners)
    if not found:
        return []
    message = (
        f"slides of several cases: {len(found)}; the cases may be in different splits, correct the rule or"
        " the table that gives slides to cases"
    )
    return [Leak("slide-in-two-cases", "error", message, some(found))]


def copy_leaks(
    sketches: Sequence[SlideSketch], case_of: Mapping[str, str], split_of: Mapping[str, str]
) -> list[Leak]:
    """Slides that are the same slide, or a part of it, under two names; limits as of `sketches.alike`.

    Args:
      sketches: one a slide.
      case_of: slide id -> case id; slides without one are cases of their own.
      split_of: case id -> split, `""` or nothing if it has none yet.
    """
    groups: dict[tuple[str, str], list[str]] = {}
    for pair in alike(sketches):
        slides = [sketches[i].slide_id for i in (pair.first, pair.second)]
        cases = [case_of.get(id, id) for id in slides]
        splits = [split_of.get(case_id, "") for case_id in cases]
        if cases[0] == cases[1]:
            place = "case"
        elif "" not in splits and splits[0] != splits[1]:
            place = "splits"
        else:
            place = "cases"
        groups.setdefault((place, "same" if pair.is_same else "alike"), []).append(
            _pair(slides, splits, pair)
        )
    return [
        Leak(
            f"{how}-slides-{_PLACES[place][0]}",
            "error" if place == "splits" else "warning",
            f"pairs of slides that {_HOW[how]}, {_PLACES[place][1]}: {len(pairs)}; {_PLACES[place][2]}",
            some(pairs),
        )
        for (place, how), pairs in sorted(groups.items(), reverse=True)
    ]


_HOW = {
    "same": "have the same features bit by bit under two names",
    "alike": "share most tiles of the smaller one, as if extracted twice or in part",
}
_PLACES = {
    "splits": (
        "across-splits",
        "in different splits",
        "what is tested was trained on, remove one of each pair or join their cases",
    ),
    "cases": (
        "across-cases",
        "of different cases",
        "they are one patient, or a file was mistaken for another: look at them, keep them in one split",
    ),
    "case": ("within-case", "of one case", "its tiles count twice, remove one of each pair"),
}


def _pair(slides: Sequence[str], splits: Sequence[str], pair: Alike) -> str:
    named = [f"{slide} ({split})" if split else slide for slide, split in zip(slides, splits, strict=True)]
    return f"{named[0]} and {named[1]}: {pair.share:.0%}"


def _several(pairs: Iterable[tuple[str, str]]) -> list[str]:
    """Keys that come with more than one value, and the values."""
    values: dict[str, set[str]] = {}
    for key, value in pairs:
        values.setdefault(key, set()).add(value)
    return [
        f"{key}: {' and '.join(sorted(found))}" for key, found in sorted(values.items()) if len(found) > 1
    ]

"""How many of the joined cases have which label and split, and which of these numbers look like a mistake."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence

from modaltune_jax.inputs.cohort import SPLITS, CohortSpec
from modaltune_jax.inputs.counts import Count, some
from modaltune_jax.packing.planned_case import PlannedCase

_NEARLY_NONE = 0.1
"""A share of cases below which a label is as good as lost."""


def count_of(
    step: str, before: Iterable[str], after: Iterable[str], reason: str, *, suspect: bool = False
) -> Count:
    """A step from ids to some of them; the reason and the examples are of those left out."""
    before, after = list(before), set(after)
    lost = [id for id in before if id not in after]
    return Count(step, len(before), len(after), reason if lost else "", some(lost), suspect=suspect)


def label_counts(
    cases: Sequence[PlannedCase], specs: Sequence[CohortSpec], classless: Mapping[str, str]
) -> list[Count]:
    """Cases with a diagnosis, a class and an outcome; what nearly no case has is to be looked at.

    Args:
      cases: joined.
      specs: a diagnosis is not missed where no cohort has classes.
      classless: case id -> a diagnosis that has no class.
    """
    ids = [case.id for case in cases]
    given = [case.id for case in cases if case.labels.diagnosis]
    classed = [case.id for case in cases if case.labels.subtype >= 0]
    timed = [case.id for case in cases if case.labels.event >= 0]
    words = sorted({words for id, words in classless.items() if id in set(given)})
    without_class = "the others have diagnoses without a class: " + "; ".join(repr(word) for word in words)
    has_classes = any(spec.classes for spec in specs)
    steps = (
        ("cases to cases with a diagnosis", ids, given, "the others have none", has_classes),
        ("cases with a diagnosis to cases with a class", given, classed, without_class, has_classes),
        ("cases to cases with an outcome", ids, timed, "the others have no known time and event", True),
    )
    return [
        count_of(step, before, after, reason, suspect=is_wanted and len(after) < _NEARLY_NONE * len(before))
        for step, before, after, reason, is_wanted in steps
    ]


def given_split_counts(
    splits: Mapping[str, str], known: Collection[str], of_labels: Mapping[str, str]
) -> list[Count]:
    """What splits that were given leave over, and whom a column of the labels puts elsewhere.

    Args:
      splits: case id -> split.
      known: ids of the labels and of all joined cases.
      of_labels: case id -> split by the labels.
    """
    reason = "the others are in the splits but nowhere else"
    counts = [count_of("cases of the splits to cases known", splits, set(known) & set(splits), reason)]
    both = [id for id in of_labels if id in splits]
    if both:
        step = "cases with a split in the labels to those of the same split"
        reason = "the labels have a column of splits that says otherwise; it is not used"
        counts.append(count_of(step, both, [id for id in both if splits[id] == of_labels[id]], reason))
    return counts


def filled_split_counts(cases: Sequence[PlannedCase]) -> list[Count]:
    """Splits that have cases, once there are splits; only published ones do without test."""
    filled = {case.split for case in cases if case.split}
    if not filled:
        return []
    is_odd = not {"train", "val"} <= filled
    return [
        count_of("splits to splits with cases", SPLITS, filled, "no case is in the others", suspect=is_odd)
    ]

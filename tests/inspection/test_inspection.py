"""Slides looked at one by one, what they have in common, and the verdict over all of it."""

import dataclasses
import re

import numpy as np
import pandas as pd
import pytest

from modaltune_jax.inputs.counts import Count
from modaltune_jax.inputs.readers.slide_file import SlideFacts
from modaltune_jax.inspection.cohort_checks import cohort_facts
from modaltune_jax.inspection.cohort_table import tabulate
from modaltune_jax.inspection.inspection import Inspection, Looked, Unit, evenly, look, units, worst_first
from modaltune_jax.inspection.leakage import Leak
from modaltune_jax.inspection.packing_forecast import empty_cases, mark_misfits
from modaltune_jax.inspection.slide_checks import Finding, SlideCheck
from modaltune_jax.inspection.slide_sources import Entry, SlideSource
from modaltune_jax.packing.planned_case import Quarantined
from modaltune_jax.types import Case, InputError, Labels, Slide

BAD, WARNING = Finding("not-finite", "bad", "x"), Finding("off-grid", "warning", "x")
GOOD = SlideCheck("S", "C", num_tiles=9, width=4, dtype="float16", encoder="uni")


def read(key: str) -> tuple[Slide, SlideFacts]:
    if key == "damaged":
        raise InputError(f"{key}.h5: is no whole HDF5 file;\n  copy it again")
    if key == "gone":
        raise FileNotFoundError(2, "No such file", f"{key}.h5")
    rng = np.random.default_rng(len(key))
    cells = np.stack([np.arange(6), np.zeros(6)], axis=1).astype(np.int32)
    return Slide(key, rng.normal(size=(6, 4)).astype(np.float16), cells * 256, 256), SlideFacts("uni", 0.25)


def source(*keys: str) -> SlideSource:
    return SlideSource(tuple(Entry(key, f"case of {key}", f"{key}.h5", "trident", key) for key in keys), read)


@pytest.mark.parametrize(
    ("key", "words"),
    [
        pytest.param(
            "damaged", "damaged.h5: is no whole HDF5 file; copy it again", id="the reader's sentence"
        ),
        pytest.param("gone", "gone.h5", id="a file that is gone"),
    ],
)
def test_a_broken_slide_becomes_a_row_and_stops_nothing(key, words):
    first, broken, last = look(source("a", key, "b"), workers=1)
    assert (first.check.verdict, broken.check.verdict, last.check.verdict) == ("ok", "bad", "ok")
    assert [finding.kind for finding in broken.check.findings] == ["unreadable"]
    assert words in broken.check.findings[0].message
    assert broken.sketch is None
    assert (broken.check.case_id, broken.check.path, broken.check.layout) == (
        f"case of {key}",
        f"{key}.h5",
        "trident",
    )


def test_processes_find_the_same_in_the_same_order():
    keys = [f"s{i:02d}" for i in range(20)]
    alone = look(source(*keys), workers=1)
    shared = look(source(*keys), workers=2)
    assert [slide.check for slide in shared] == [slide.check for slide in alone]
    assert [slide.entry.key for slide in shared] == keys


@pytest.mark.parametrize(
    ("count", "wanted"),
    [
        pytest.param(None, "abcdefghi", id="all"),
        pytest.param(20, "abcdefghi", id="more than there are"),
        pytest.param(3, "aei", id="from the whole length"),
        pytest.param(1, "a", id="one"),
    ],
)
def test_a_sample_is_evenly_spaced(count, wanted):
    assert "".join(entry.key for entry in evenly(source(*"abcdefghi").entries, count)) == wanted


def test_a_sample_of_none_is_refused():
    with pytest.raises(InputError, match="--sample is 0"):
        evenly(source("a").entries, 0)


def test_the_worst_slides_come_first():
    entry = source("a").entries[0]
    findings = [(), (WARNING,), (BAD,), (WARNING, WARNING), ()]
    checks = [SlideCheck(str(i), findings=found) for i, found in enumerate(findings)]
    ordered = worst_first(Looked(entry, check, None) for check in checks)
    assert [slide.check.slide_id for slide in ordered] == ["2", "3", "1", "0", "4"]


@pytest.mark.parametrize(
    ("change", "field", "slides", "is_mixed"),
    [
        pytest.param({"width": 8}, "width", {"4": 2, "8": 1}, True, id="widths"),
        pytest.param({"dtype": "float32"}, "dtype", {"float16": 2, "float32": 1}, True, id="types"),
        pytest.param({"encoder": "conch"}, "encoder", {"uni": 2, "conch": 1}, True, id="encoders"),
        pytest.param(
            {"encoder": ""}, "encoder", {"uni": 2, "unknown": 1}, True, id="an encoder that is not said"
        ),
        pytest.param(
            {"magnification": 10.0}, "magnification", {"unknown": 2, "10": 1}, True, id="magnifications"
        ),
        pytest.param(
            {"patch_size_level0": 512}, "patch_size_level0", {"unknown": 2, "512": 1}, False, id="patch sizes"
        ),
        pytest.param({}, "width", {"4": 3}, False, id="nothing"),
    ],
)
def test_mixed_units_are_counted(change, field, slides, is_mixed):
    other = dataclasses.replace(GOOD, slide_id="other", **change)
    unreadable = SlideCheck("broken", findings=(BAD,))
    found = {unit.field: unit for unit in units([GOOD, other, GOOD, unreadable])}
    assert found[field] == Unit(field, slides, is_mixed, ("other",) if is_mixed else ())


@pytest.mark.parametrize(
    ("change", "words"),
    [
        pytest.param({"width": 8}, r"float16 \[tiles, 8\], but 2 of 3", id="width"),
        pytest.param({"dtype": "float32"}, "float32", id="type"),
        pytest.param({"encoder": "conch"}, "'conch', but most slides have 'uni'", id="encoder"),
    ],
)
def test_slides_that_pack_would_leave_out_are_bad(change, words):
    other = dataclasses.replace(GOOD, slide_id="other", findings=(WARNING,), **change)
    marked = mark_misfits([GOOD, other, GOOD])
    assert [check.verdict for check in marked] == ["ok", "bad", "ok"]
    assert [finding.kind for finding in marked[1].findings] == ["unlike-most", "off-grid"]
    assert re.search(words, marked[1].findings[0].message)


def test_what_is_bad_already_has_no_say_in_what_most_are():
    broken = dataclasses.replace(GOOD, width=8, findings=(BAD,))
    marked = mark_misfits([broken, broken, GOOD])
    assert [len(check.findings) for check in marked] == [1, 1, 0]


def test_a_case_of_bad_slides_alone_is_lost():
    cases = pd.DataFrame(
        {
            "case_id": ["bad", "half", "empty", "expressed", "slideless"],
            "slides": [True, True, True, True, False],
            "expression": [False, False, False, True, False],
        }
    )
    bad = dataclasses.replace(GOOD, findings=(BAD,))
    checks = [
        dataclasses.replace(bad, case_id="bad"),
        dataclasses.replace(bad, case_id="half"),
        dataclasses.replace(GOOD, case_id="half"),
        dataclasses.replace(GOOD, case_id="empty", num_tiles=0),
        dataclasses.replace(bad, case_id="expressed"),
    ]
    assert [line.case_id for line in empty_cases(cases, checks)] == ["bad", "empty"]


COHORT = cohort_facts(tabulate([Case("C", "lung", "train", (), None, Labels())], (), ()))
INSPECTION = Inspection(("folder",), "features", 1, (GOOD,), ())
OF_CASE, OF_SLIDE = Quarantined("C", "", "", "no split"), Quarantined("C", "T", "", "no case")


@pytest.mark.parametrize(
    ("change", "sentence", "code"),
    [
        pytest.param({}, "yes", 0, id="all is well"),
        pytest.param(
            {"slides": (GOOD, dataclasses.replace(GOOD, findings=(WARNING,)))}, "yes", 0, id="warnings"
        ),
        pytest.param(
            {"slides": (GOOD, SlideCheck("B", findings=(BAD,)))},
            *("yes, but 1 slide would be quarantined", 1),
            id="a bad slide",
        ),
        pytest.param(
            {"cohort": COHORT, "num_left": 1, "quarantined": (OF_CASE, OF_SLIDE)},
            *("yes, but 1 slide would be quarantined; 1 case would be quarantined", 1),
            id="a case and a slide in quarantine",
        ),
        pytest.param(
            {"leaks": (Leak("a", "error", "x"), Leak("b", "warning", "x"), Leak("c", "error", "x"))},
            *("yes, but 2 leaks found", 1),
            id="leaks that are errors",
        ),
        pytest.param(
            {"counts": (Count("a", 1, 0, suspect=True), Count("b", 1, 0))},
            *("yes, but 1 number to look at, see the notes", 1),
            id="a number that looks wrong",
        ),
        pytest.param(
            {"needed": ("give --splits", "give --x")}, "no: give --splits; give --x", 2, id="needed"
        ),
        pytest.param({"leaks": (Leak("b", "warning", "x"),)}, "yes", 0, id="a leak that is a warning"),
        pytest.param(
            {"slides": (SlideCheck("B", findings=(BAD,)),)},
            "no: no slide can be read",
            2,
            id="all slides bad",
        ),
        pytest.param({"slides": ()}, "no: there are no slides", 2, id="no slides"),
        pytest.param({"cohort": COHORT, "num_left": 0}, "no: no case is left", 2, id="no cases left"),
        pytest.param({"cohort": COHORT, "num_left": 1, "slides": ()}, "yes", 0, id="expression alone"),
    ],
)
def test_verdict(change, sentence, code):
    verdict = dataclasses.replace(INSPECTION, **change).verdict
    assert (str(verdict), verdict.exit_code) == (sentence, code)

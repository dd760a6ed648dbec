"""Joins: every case is packed or quarantined, every step is counted, near misses are hinted at."""

import dataclasses
import doctest
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from modaltune_jax.inputs.barcodes import case_rule
from modaltune_jax.inputs.cohort import CohortSpec
from modaltune_jax.inputs.readers.slide_file import SlideFile, SlideOptions
from modaltune_jax.inputs.splits import Splits
from modaltune_jax.inputs.tables.expression import ExpressionTable
from modaltune_jax.inputs.tables.labels import FIELDS, LabelTable
from modaltune_jax.packing import near_misses
from modaltune_jax.packing.join import CohortSource, join
from modaltune_jax.types import InputError, Labels

BREAST = CohortSpec("brca", "Breast", "breast", ("TCGA-BRCA",), ("ductal",), {"duct carcinoma": 0})
KIDNEY = CohortSpec("rcc", "Kidney", "kidney", ("TCGA-KIRC", "TCGA-KICH"), ("clear",), {"clear carcinoma": 0})


def slides_of(*ids):
    return tuple(SlideFile(id, "arrays", Path(f"features/{id}.npz")) for id in ids)


def labels_of(rows, variables=None, slides=None):
    """A label table of {case: fields}; what is not given is unknown."""
    unknown = {"time": np.nan, "event": -1, "age": np.nan}
    records = [{name: row.get(name, unknown.get(name, "")) for name in FIELDS} for row in rows.values()]
    index = pd.Index(list(rows), name="case_id", dtype=object)
    frame = pd.DataFrame(records, index, columns=list(FIELDS))
    columns = pd.DataFrame(variables or {}, index=index)
    return LabelTable(frame, columns, slides or {}, ())


def expression_of(values, genes=("A", "B")):
    frame = pd.DataFrame.from_dict(values, orient="index", columns=list(genes), dtype=np.float32)
    return ExpressionTable(frame, "unknown", ())


def source_of(**changes):
    source = CohortSource(
        specs=(BREAST,),
        slides=slides_of("P1-a", "P1-b", "P2-a"),
        options=SlideOptions(),
        labels=None,
        expression=None,
        gene_sets_path=None,
        splits=None,
        case_of=case_rule(r"(P\d+)"),
    )
    return dataclasses.replace(source, **changes)


def reasons(joined):
    return {line.case_id or line.slide_id: line.reason for line in joined.quarantined}


def step(joined, name):
    (count,) = [count for count in joined.counts if count.step == name]
    return count


def test_slides_alone():
    joined = join(source_of())
    assert [(case.id, case.site, case.split) for case in joined.cases] == [
        ("P1", "brca", ""),
        ("P2", "brca", ""),
    ]
    assert [slide.id for slide in joined.cases[0].slides] == ["P1-a", "P1-b"]
    assert joined.cases[0].expression is None
    assert np.isnan(joined.cases[0].labels.time)
    assert (joined.quarantined, joined.genes, joined.variables) == ((), (), {})
    count = step(joined, "slides with a case to cases with slides")
    assert (count.before, count.after) == (3, 2)


def test_everything_is_joined_by_case(tmp_path):
    (tmp_path / "sets.csv").write_text("pathway,gene\nsecond,C\nfirst,A\nsecond,A\nfirst,Z\n")
    labels = labels_of(
        {
            "P1": {
                "diagnosis": "Duct carcinoma, NOS",
                "time": 12.5,
                "event": 1,
                "age": 50.0,
                "stage": "Stage II",
            },
            "P2": {"diagnosis": "something else"},
        },
        variables={"sex": ["male", None], "ki67": [0.5, np.nan]},
    )
    expression = expression_of({"P2": [1.0, 2.0, 3.0], "P9": [4.0, 5.0, 6.0]}, "ABC")
    splits = Splits({"P1": "train", "P2": "test", "P3": "val"}, "")
    joined = join(
        source_of(labels=labels, expression=expression, splits=splits, gene_sets_path=tmp_path / "sets.csv")
    )
    first, second = joined.cases
    expected = Labels(diagnosis="duct carcinoma", subtype=0, time=12.5, event=1, age=50.0, stage="Stage II")
    assert first.labels == expected
    assert (first.split, second.split) == ("train", "test")
    assert (dict(first.variables), dict(second.variables)) == ({"sex": "male", "ki67": 0.5}, {})
    assert joined.variables == {"sex": "category", "ki67": "number"}
    assert joined.genes == ("A", "C")
    assert joined.gene_sets.names == ("second", "first")
    assert [group.tolist() for group in joined.gene_sets.groups] == [[1, 0], [0]]
    assert first.expression is None
    assert second.expression.tolist() == [1.0, 3.0]
    assert step(joined, "genes to genes of gene sets").examples == ("B",)
    assert step(joined, "cases with expression to those with slides or labels").examples == ("P9",)
    assert "'something else'" in step(joined, "cases with a diagnosis to cases with a class").reason
    assert step(joined, "cases of the splits to cases known").examples == ("P3",)


def test_an_expression_without_values_is_none():
    joined = join(source_of(expression=expression_of({"P1": [np.nan, np.nan], "P2": [np.nan, 1.0]})))
    assert joined.cases[0].expression is None
    assert joined.cases[1].expression is not None
    assert step(joined, "cases with expression to those with measured genes").examples == ("P1",)


@pytest.mark.parametrize(
    ("changes", "id", "reason"),
    [
        pytest.param({"labels": labels_of({"P1": {}})}, "P2", "is not in the labels", id="no-labels"),
        pytest.param(
            {"labels": labels_of({"P1": {}, "p2 ": {}})},
            "P2",
            "there is 'p2 ', which differs in case",
            id="near-miss",
        ),
        pytest.param(
            {"labels": labels_of({"P1": {}, "P2": {}, "P3": {}})}, "P3", "nothing to see", id="labels-alone"
        ),
        pytest.param({"splits": Splits({"P1": "train"}, "")}, "P2", "is in no split", id="no-split"),
        pytest.param(
            {"labels": labels_of({"P1": {"split": "val"}, "P2": {}})},
            "P2",
            "is in no split",
            id="column-split",
        ),
        pytest.param({"case_of": case_rule(r"(P1)")}, "P2-a", "slide P2-a: does not match", id="nameless"),
        pytest.param(
            {"labels": labels_of({"P1": {}, "P2": {"time": -1.0, "event": 1}})},
            "P2",
            "-1.0 months",
            id="time",
        ),
        pytest.param({"labels": labels_of({"P1": {}, "P2": {"stage": "V?"}})}, "P2", "'V?'", id="stage"),
        pytest.param(
            {"expression": expression_of({"P2": [np.inf, 1.0]})}, "P2", "is infinite", id="expression"
        ),
        pytest.param(
            {"specs": (BREAST, KIDNEY), "labels": labels_of({"P1": {"project": "TCGA-KIRC"}, "P2": {}})},
            "P2",
            "has no project",
            id="site",
        ),
    ],
)
def test_what_cannot_be_joined_is_quarantined_with_its_reason(changes, id, reason):
    joined = join(source_of(**changes))
    packed = [case.id for case in joined.cases]
    assert "P1" in packed
    assert id not in packed
    assert reason in reasons(joined)[id]


def test_near_misses():
    assert doctest.testmod(near_misses).attempted > 0
    assert doctest.testmod(near_misses).failed == 0


def test_projects_decide_the_site_and_others_are_not_of_the_cohort():
    rows = {"P1": {"project": "TCGA-KICH"}, "P2": {"project": "TCGA-BRCA"}, "P3": {"project": "TCGA-LUAD"}}
    joined = join(source_of(specs=(BREAST, KIDNEY), labels=labels_of(rows)))
    assert [(case.id, case.site) for case in joined.cases] == [("P1", "rcc"), ("P2", "brca")]
    count = step(joined, "cases to cases of the cohort's projects")
    assert (count.before, count.after, count.examples) == (3, 2, ("P3",))
    assert "TCGA-LUAD" in count.reason
    assert joined.quarantined == ()


def test_the_labels_may_list_the_slides():
    joined = join(source_of(labels=labels_of({"X": {}, "P1": {}}, slides={"P2-a": "X"})))
    assert [case.id for case in joined.cases] == ["P1", "X"]


@pytest.mark.parametrize(
    ("changes", "parts"),
    [
        pytest.param({"labels": labels_of({"Q1": {}})}, ["Q1", "P1-a", "is not in the labels"], id="labels"),
        pytest.param({"case_of": case_rule(r"(X\d)")}, ["P1-a", "does not match"], id="rule"),
        pytest.param(
            {"labels": labels_of({"P1": {"project": "TCGA-LUAD"}}), "slides": slides_of("P1-a")},
            ["TCGA-LUAD", "brca"],
            id="project",
        ),
        pytest.param({"slides": ()}, ["nothing was given"], id="nothing"),
    ],
)
def test_no_case_left(changes, parts):
    with pytest.raises(InputError, match="no case is left") as info:
        join(source_of(**changes))
    for part in parts:
        assert part in str(info.value)


IDS = [f"P{i}" for i in range(6)]
ROW = st.fixed_dictionaries(
    {
        "diagnosis": st.sampled_from(["", "duct carcinoma", "odd"]),
        "project": st.sampled_from(["", "TCGA-BRCA", "TCGA-KIRC", "TCGA-LUAD"]),
        "time": st.sampled_from([np.nan, 0.0, 3.0, -2.0]),
        "event": st.sampled_from([-1, 0, 1]),
        "age": st.sampled_from([np.nan, 50.0, 18000.0]),
        "split": st.sampled_from(["", "train", "test"]),
    }
)


@settings(max_examples=60, deadline=None)
@given(
    slides=st.sets(st.sampled_from([f"{id}-{k}" for id in [*IDS, "odd"] for k in "ab"])),
    labels=st.none() | st.dictionaries(st.sampled_from(IDS), ROW),
    expression=st.dictionaries(
        st.sampled_from(IDS), st.sampled_from([[1.0, 2.0], [np.nan] * 2, [np.inf, 0.0]])
    ),
    splits=st.none()
    | st.dictionaries(st.sampled_from(IDS), st.sampled_from(["train", "val", "test"]), min_size=1),
    specs=st.sampled_from([(BREAST,), (BREAST, KIDNEY)]),
)
def test_cases_in_are_cases_packed_and_cases_quarantined(slides, labels, expression, splits, specs):
    source = source_of(
        specs=specs,
        slides=slides_of(*sorted(slides)),
        labels=None if labels is None else labels_of(labels),
        expression=expression_of(expression) if expression else None,
        splits=None if splits is None else Splits(splits, ""),
    )
    projects = {project for spec in specs for project in spec.projects}
    rows = labels or {}
    cases = {id.split("-")[0] for id in slides if not id.startswith("odd")} | set(rows)
    if labels is None:
        cases |= set(expression)
    cases = {id for id in cases if rows.get(id, {}).get("project", "") in ("", *projects)}
    nameless = sorted(id for id in slides if id.startswith("odd"))
    try:
        joined = join(source)
    except InputError as error:
        assert "no case is left" in str(error)  # noqa: PT017
        return
    packed = [case.id for case in joined.cases]
    quarantined = [line.case_id for line in joined.quarantined if line.case_id]
    assert sorted(packed + quarantined) == sorted(cases)
    assert sorted(line.slide_id for line in joined.quarantined if not line.case_id) == nameless
    assert packed == sorted(packed)
    total = step(joined, "cases of the cohort to cases to pack")
    assert (total.before, total.after) == (len(cases), len(packed))
    for count in joined.counts:
        assert (count.after < count.before) <= bool(count.reason or "cases with slides" in count.step)

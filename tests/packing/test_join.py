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
            "there is 'p2 ', which is written differently",
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
        pytest.param({"case_of": case_rule(r"(P1)")}, "P2-a", "does not match the case rule", id="nameless"),
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
        pytest.param(
            {"labels": labels_of({"P1": {}, "P2": {"project": "tcga_brca"}})},
            "P2",
            "(there is 'TCGA-BRCA', which is written differently)",
            id="misspelt-project",
        ),
        pytest.param(
            {"labels": labels_of({"P1": {}, "P2": {"project": "BRCA"}})},
            "P2",
            "(there is 'TCGA-BRCA', which is longer)",
            id="short-project",
        ),
        pytest.param(
            {"labels": labels_of({"P1": {}, "P2": {}, "P02": {}})},
            "P02",
            "nothing to see (there is 'P2', which is written differently)",
            id="near-slides",
        ),
    ],
)
def test_what_cannot_be_joined_is_quarantined_with_its_reason(changes, id, reason):
    joined = join(source_of(**changes))
    packed = [case.id for case in joined.cases]
    assert "P1" in packed
    assert id not in packed
    assert reason in reasons(joined)[id]


def test_normal_tissue_is_no_tumour_of_the_case():
    slides = slides_of("TCGA-AA-0001-01Z-00-DX1", "TCGA-AA-0001-11A-01-TS1", "TCGA-AA-0002-11A-01-TS1")
    joined = join(source_of(slides=slides, case_of=case_rule("tcga")))
    assert [[slide.id for slide in case.slides] for case in joined.cases] == [["TCGA-AA-0001-01Z-00-DX1"]]
    assert [(line.case_id, line.slide_id) for line in joined.quarantined] == [
        ("TCGA-AA-0001", "TCGA-AA-0001-11A-01-TS1"),
        ("TCGA-AA-0002", "TCGA-AA-0002-11A-01-TS1"),
        ("TCGA-AA-0002", ""),
    ]
    count = step(joined, "slides to slides of tumours")
    assert (count.before, count.after) == (3, 1)


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


LISTING = labels_of({"X": {}, "P1": {}}, slides={"P2-a": "X", "P1-a": "P1"})
OWNERS = "slides whose case the labels list to those whose name says the same"


@pytest.mark.parametrize(
    ("rule", "after", "examples"),
    [
        pytest.param(r"(P\d+)", 1, ("P2-a: X, not P2",), id="another-case"),
        pytest.param("tcga", 2, (), id="a-rule-that-does-not-know"),
    ],
)
def test_the_labels_decide_on_the_slides_they_list(rule, after, examples):
    joined = join(source_of(labels=LISTING, case_of=case_rule(rule)))
    assert [case.id for case in joined.cases] == ["P1", "X"]
    count = step(joined, OWNERS)
    assert (count.before, count.after, count.examples, count.suspect) == (2, after, examples, bool(examples))


def test_a_rule_that_was_given_must_not_contradict_the_labels():
    with pytest.raises(InputError, match=r"another case.*\(P2-a: X, not P2; 1 in all\): leave --case-of"):
        join(source_of(labels=LISTING, is_rule_given=True))
    assert join(source_of(labels=LISTING, is_rule_given=True, case_of=case_rule("tcga"))).cases


LABELLED = {"diagnosis": "duct carcinoma", "time": 3.0, "event": 1}
ALL_SPLITS = Splits({"P1": "train", "P2": "val"}, "")


@pytest.mark.parametrize(
    ("changes", "name", "words"),
    [
        pytest.param(
            {"labels": labels_of({"P1": {"time": 3.0, "event": 1}, "P2": {}})},
            *("cases to cases with a diagnosis", "the others have none"),
            id="no-diagnosis",
        ),
        pytest.param(
            {"labels": labels_of({id: {**LABELLED, "diagnosis": "odd"} for id in ("P1", "P2")})},
            *("cases with a diagnosis to cases with a class", "'odd'"),
            id="no-class",
        ),
        pytest.param(
            {"labels": labels_of({id: {"diagnosis": "duct carcinoma"} for id in ("P1", "P2")})},
            *("cases to cases with an outcome", "no known time and event"),
            id="no-outcome",
        ),
        pytest.param(
            {"splits": Splits({"P1": "train", "P2": "train"}, "")},
            *("splits to splits with cases", "no case is in the others"),
            id="all-in-train",
        ),
        pytest.param(
            {"splits": Splits({"P1": "train", "P2": "test"}, "")},
            *("splits to splits with cases", "no case is in the others"),
            id="no-val",
        ),
        pytest.param(
            {
                "labels": labels_of({"P1": LABELLED, "P2": LABELLED}),
                "expression": expression_of({"P1": [1, 2], "p02": [1, 2]}),
            },
            *("cases with expression to those with slides or labels", "p02 (there is 'P2', which is written"),
            id="expression-written-differently",
        ),
        pytest.param(
            {
                "labels": labels_of({"P1": LABELLED, "P2": LABELLED}),
                "expression": expression_of({"A": [1, 2], "B": [1, 2]}, ("P1", "P2")),
            },
            *("cases with expression to those with slides or labels", "columns have names of cases"),
            id="expression-on-its-side",
        ),
        pytest.param(
            {"labels": labels_of({"P1": LABELLED, "P2": {"project": "UKE-LUNG"}})},
            *("cases to cases of the cohort's projects", "with slides here: 1 of them"),
            id="slides-of-another-project",
        ),
        pytest.param(
            {
                "labels": labels_of({"P1-a": LABELLED, "P1-b": LABELLED}),
                "expression": expression_of({"P1-a": [1, 2]}),
                "case_of": case_rule("tcga"),
            },
            *("slides to slides with a case", "they are cases of the labels, so say --case-of-slide name"),
            id="slides-named-as-cases",
        ),
    ],
)
def test_what_a_person_should_look_at(changes, name, words):
    (found,) = [count for count in join(source_of(**changes)).counts if count.suspect]
    assert found.step == name
    assert words in found.reason


@pytest.mark.parametrize(
    "changes",
    [
        pytest.param({}, id="slides-alone"),
        pytest.param({"labels": labels_of({"P1": LABELLED, "P2": LABELLED})}, id="labels"),
        pytest.param({"splits": ALL_SPLITS}, id="no-test"),
        pytest.param(
            {
                "labels": labels_of({"P1": LABELLED, "P2": LABELLED}),
                "expression": expression_of({"P1": [1, 2], "Q1": [1, 2]}),
            },
            id="expression-of-others",
        ),
        pytest.param(
            {"labels": labels_of({"P1": LABELLED, "P2": LABELLED, "Q1": {"project": "TCGA-LUAD"}})},
            id="labels-of-others",
        ),
    ],
)
def test_what_is_as_it_should_be(changes):
    assert [count for count in join(source_of(**changes)).counts if count.suspect] == []


def test_what_is_not_of_the_cohort_is_unlisted():
    rows = {"P1": LABELLED, "P2": LABELLED, "Q2": {"project": "TCGA-LUAD"}}
    joined = join(source_of(labels=labels_of(rows), expression=expression_of({"P1": [1, 2], "Q1": [1, 2]})))
    assert joined.quarantined == ()
    assert [count.examples for count in joined.unlisted] == [("Q1",), ("Q2",)]


def test_splits_of_the_labels_give_way():
    labels = labels_of({"P1": {**LABELLED, "split": "test"}, "P2": {**LABELLED, "split": "val"}})
    joined = join(source_of(labels=labels, splits=ALL_SPLITS))
    assert [case.split for case in joined.cases] == ["train", "val"]
    count = step(joined, "cases with a split in the labels to those of the same split")
    assert (count.before, count.after, count.examples) == (2, 1, ("P1",))


@pytest.mark.parametrize(
    ("changes", "parts"),
    [
        pytest.param({"labels": labels_of({"Q1": {}})}, ["Q1", "P1-a", "is not in the labels"], id="labels"),
        pytest.param({"case_of": case_rule(r"(X\d)")}, ["P1-a", "does not match"], id="rule"),
        pytest.param(
            {"case_of": case_rule("tcga"), "labels": labels_of({"Q1": {}, "Q2": {}})},
            ["slide P1-a (as all 3) is not a TCGA barcode", "--case-of-slide: name"],
            id="hospital-names",
        ),
        pytest.param(
            {
                "slides": slides_of("Q1", "Q2"),
                "case_of": case_rule("tcga"),
                "labels": labels_of({"Q1": {}, "Q2": {}}),
            },
            ["is not a TCGA barcode", "so say --case-of-slide name"],
            id="hospital-names-of-cases",
        ),
        pytest.param(
            {
                "slides": (),
                "labels": labels_of({"P1": {}, "P2": {}}),
                "expression": expression_of({"A": [1, 2], "B": [1, 2]}, ("P1", "P2")),
            },
            ["columns have names of cases", "expression A, B"],
            id="on-its-side",
        ),
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

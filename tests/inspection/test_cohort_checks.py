"""A cohort in numbers: what is counted where, against values worked out by hand and by lifelines."""

import numpy as np
import pytest
from lifelines import KaplanMeierFitter

from modaltune_jax.inputs.cohort import CohortSpec
from modaltune_jax.inputs.genesets import GeneSets
from modaltune_jax.inspection.cohort_checks import (
    ClassCount,
    FollowUp,
    GeneCoverage,
    Missing,
    SetCoverage,
    Variable,
    cohort_facts,
    median_follow_up,
    packed_coverage,
    set_coverage,
)
from modaltune_jax.inspection.cohort_table import tabulate
from modaltune_jax.types import Case, Labels, Slide

SPECS = (
    CohortSpec(name="lung", title="Lung", organ="lung", classes=("adeno", "squamous")),
    CohortSpec(name="brain", title="Brain", organ="brain", classes=("glioma",)),
)


def some_slide(slide_id: str) -> Slide:
    return Slide(slide_id, np.ones((2, 4), np.float16), np.zeros((2, 2), np.int32), 256)


def some_cases() -> list[Case]:
    measured = np.array([1.0, np.nan, 3.0, np.nan], np.float32)
    known = Labels("x", 0, 12.0, 1, "Stage II", "T2", "NX", "", 61.0)
    return [
        Case(
            "L1",
            "lung",
            "train",
            (some_slide("a"), some_slide("b")),
            measured,
            known,
            {"sex": "f", "pack": 20.0},
        ),
        Case("L2", "lung", "train", (), measured[::-1].copy(), Labels("x", 1, 30.0, 0), {"sex": "m"}),
        Case("L3", "lung", "test", (some_slide("c"),), None, Labels("x", 0, 0.0, 0)),
        Case("B1", "brain", "val", (some_slide("d"),), None, Labels()),
    ]


@pytest.fixture(scope="module")
def facts():
    table = tabulate(some_cases(), ("G1", "G2", "G3", "G4"), SPECS)
    return cohort_facts(table, [SetCoverage("SET", 3, 1)])


def test_cases_and_slides(facts):
    assert (facts.num_cases, facts.slides_per_case) == (4, {0: 1, 1: 2, 2: 1})


def test_what_is_missing_by_site_and_split(facts):
    nothing = {"slides": 0, "expression": 0, "clinical": 0, "class": 0, "survival": 0}
    assert facts.missing == (
        Missing("lung", "train", 2, 2, nothing | {"slides": 1}),
        Missing("lung", "test", 1, 1, nothing | {"expression": 1, "clinical": 1}),
        Missing("brain", "val", 1, 1, nothing | {"expression": 1, "clinical": 1, "class": 1, "survival": 1}),
    )


def test_classes_by_split(facts):
    assert facts.classes == (
        ClassCount("lung", "adeno", {"train": 1, "test": 1}),
        ClassCount("lung", "squamous", {"train": 1, "test": 0}),
        ClassCount("lung", "none", {"train": 0, "test": 0}),
        ClassCount("brain", "glioma", {"val": 0}),
        ClassCount("brain", "none", {"val": 1}),
    )


def test_follow_up_of_each_site(facts):
    # At 0 one of three is censored, 2/3 are followed on; at 30 the last one.
    assert facts.follow_up == (FollowUp("lung", 3, 1, 30.0, 30.0, 1), FollowUp("brain", 0, 0, None, None, 0))


def test_genes_and_gene_sets(facts):
    assert facts.genes == (GeneCoverage("lung", 2, 4, 4, 0.5), GeneCoverage("brain", 0, 0, 4, 0.0))
    assert facts.gene_sets == (SetCoverage("SET", 3, 1),)


def test_clinical_values(facts):
    found = {variable.name: variable for variable in facts.variables}
    assert list(found) == ["stage", "t", "n", "m", "age", "pack", "sex"]
    assert found["t"] == Variable("t", "code", 3, {"T2": 1})
    assert found["n"].num_missing == 4, "NX is not assessable"
    assert found["age"] == Variable("age", "number", 3, {"least": 61.0, "median": 61.0, "most": 61.0})
    assert found["pack"] == Variable("pack", "number", 3, {"least": 20.0, "median": 20.0, "most": 20.0})
    assert found["sex"] == Variable("sex", "category", 2, {"f": 1, "m": 1})


def test_slides_may_be_counted_elsewhere():
    table = tabulate(some_cases(), ("G1", "G2", "G3", "G4"), SPECS, num_slides=[0, 3, 1, 1])
    assert cohort_facts(table).slides_per_case == {0: 1, 1: 2, 3: 1}
    assert table.cases["slides"].tolist() == [False, True, True, True]


def test_a_cohort_without_cases():
    facts = cohort_facts(tabulate([], (), SPECS))
    assert (facts.num_cases, facts.missing, facts.genes) == (0, (), ())


@pytest.mark.parametrize("seed", range(8))
def test_median_follow_up_is_the_reverse_kaplan_meier_estimate(seed):
    rng = np.random.default_rng(seed)
    # Rounded, so that times are tied, deaths with censorings among them.
    time, event = rng.exponential(40.0, 60).round(), rng.integers(0, 2, 60)
    fitted = KaplanMeierFitter().fit(time, event == 0).median_survival_time_
    assert median_follow_up(time, event) == (None if np.isinf(fitted) else fitted)


@pytest.mark.parametrize(
    ("time", "event", "wanted"),
    [
        pytest.param([], [], None, id="no case"),
        pytest.param([5.0, 9.0], [1, 1], None, id="all died"),
        pytest.param([5.0, 9.0], [0, 0], 5.0, id="half censored by the first"),
        pytest.param([1.0, 2.0, 3.0, 50.0], [1, 1, 1, 0], 50.0, id="deaths do not shorten it"),
    ],
)
def test_median_follow_up_at_the_edges(time, event, wanted):
    assert median_follow_up(np.array(time, np.float64), np.array(event, int)) == wanted


def test_coverage_counts_genes_that_the_data_set_lacks(tmp_path):
    path = tmp_path / "sets.csv"
    path.write_text("pathway,gene\nP,G1\nP,G9\nP,G8\nQ,G2\nR,G7\n")
    assert set_coverage(path, ["G1", "G2"]) == (
        SetCoverage("P", 3, 1),
        SetCoverage("Q", 1, 1),
        SetCoverage("R", 1, 0),
    )


def test_coverage_of_packed_sets_has_no_sizes():
    sets = GeneSets(("P", "Q"), (np.array([0, 2], np.int32), np.array([], np.int32)))
    assert packed_coverage(sets) == (SetCoverage("P", None, 2), SetCoverage("Q", None, 0))

"""Leaks that are planted are found; their clean counterparts are not."""

import dataclasses
import doctest
from pathlib import Path

import ml_dtypes
import numpy as np
import pandas as pd
import pytest

from modaltune_jax.inputs.readers import tcga_bench
from modaltune_jax.inspection.leakage import SlideSketch, find_leaks, sketch
from modaltune_jax.inspection.leaks import separation
from modaltune_jax.inspection.leaks.sketches import alike
from modaltune_jax.types import Slide

TCGA = Path(__file__).parents[2] / "../shared/tcga"
needs_tcga = pytest.mark.skipif(not TCGA.is_dir(), reason=f"TCGA benchmark not at {TCGA}")
NUM_CASES = 120
NUM_GENES = 60


def make_cases(num_projects=2, site="rcc", seed=0):
    """Cases of one site in turn from projects P0, P1, ..., whose number is the class."""
    rng = np.random.default_rng(seed)
    number = np.arange(NUM_CASES) % num_projects
    return pd.DataFrame(
        {
            "split": np.where(np.arange(NUM_CASES) % 6 == 5, "test", "train"),
            "site": site,
            "subtype": number,
            "project": [f"P{i}" for i in number],
            "time": rng.exponential(30.0, NUM_CASES),
            "event": rng.integers(0, 2, NUM_CASES),
        },
        index=[f"case-{i:03d}" for i in range(NUM_CASES)],
    )


def make_expression(cases, seed=0):
    """Log expression in which projects differ, correlated by 8 hidden factors, in one unit."""
    rng = np.random.default_rng(seed)
    number = cases["subtype"].to_numpy()
    by_project = rng.standard_normal((number.max() + 1, NUM_GENES))[number]
    factors = rng.standard_normal((len(cases), 8)) @ rng.standard_normal((8, NUM_GENES)) / 3
    values = 5 + by_project + factors + rng.standard_normal((len(cases), NUM_GENES)) / 2
    return pd.DataFrame(np.maximum(values, 0), cases.index, [f"G{i}" for i in range(NUM_GENES)])


def standardised(values):
    return (values - values.mean()) / values.std()


def kinds(leaks):
    return {(leak.kind, leak.severity) for leak in leaks}


def test_doctests():
    assert doctest.testmod(separation).attempted > 0
    assert doctest.testmod(separation).failed == 0


def test_clean_data_have_no_leaks():
    cases = make_cases()
    slides = [(f"{id}-{i}", id) for id in cases.index for i in range(2)]
    variables = pd.DataFrame(
        {"age": np.linspace(30, 80, NUM_CASES), "sex": np.where(np.arange(NUM_CASES) % 3, "female", "male")},
        cases.index,
    )
    assert find_leaks(cases, slides=slides, expression=make_expression(cases), variables=variables) == []
    assert find_leaks(cases.iloc[:0]) == []


def test_a_case_in_two_splits():
    cases = make_cases()
    twice = pd.concat([cases, cases.iloc[[0]].assign(split="test")])
    (leak,) = find_leaks(twice)
    assert leak[:2] == ("case-in-two-splits", "error")
    assert leak.examples == ("case-000: test and train",)
    assert find_leaks(pd.concat([cases, cases.iloc[[0]]])) == [], "two rows in one split are no leak"


def test_a_slide_in_two_cases():
    (leak,) = find_leaks(make_cases(), slides=[("S1", "A"), ("S1", "B"), ("S2", "A"), ("S2", "A")])
    assert leak[:2] == ("slide-in-two-cases", "error")
    assert leak.examples == ("S1: A and B",)


def make_slide(id, seed, num_tiles=600, width=64, dtype=np.float32):
    """Tiles around a mean that all slides share, as those of one stain do."""
    shared = np.random.default_rng(99).standard_normal(width) * 2
    tiles = shared + np.random.default_rng(seed).standard_normal((num_tiles, width)) / 2
    return Slide(id, tiles.astype(dtype), np.zeros((num_tiles, 2), np.int32), 256)


def changed(slide, id, rows=slice(None), dtype=np.float32):
    features = slide.features[rows].astype(dtype)
    return dataclasses.replace(slide, id=id, features=features, coords=slide.coords[rows])


SLIDE = make_slide("S0", 0)
NOISE = 1 + 1e-3 * np.random.default_rng(5).standard_normal(SLIDE.features.shape)


@pytest.mark.parametrize(
    ("copy", "how"),
    [
        pytest.param(changed(SLIDE, "S1"), "same", id="copy"),
        pytest.param(changed(SLIDE, "S1", dtype=np.float16), "alike", id="float16"),
        pytest.param(changed(SLIDE, "S1", dtype=ml_dtypes.bfloat16), "alike", id="bfloat16"),
        pytest.param(changed(SLIDE, "S1", rows=slice(None, None, -1)), "alike", id="other-order"),
        pytest.param(changed(SLIDE, "S1", rows=slice(100, 160)), "alike", id="tenth-of-the-tiles"),
        pytest.param(
            changed(SLIDE, "S1", slice(300, 600), ml_dtypes.bfloat16), "alike", id="half-in-bfloat16"
        ),
        pytest.param(
            dataclasses.replace(SLIDE, id="S1", features=(SLIDE.features * NOISE).astype(np.float32)),
            "alike",
            id="extracted-again",
        ),
    ],
)
def test_a_slide_under_two_names(copy, how):
    cases = pd.DataFrame({"split": ["train", "test", "train", ""]}, ["A", "B", "C", "D"])
    sketches = [sketch(slide) for slide in (SLIDE, make_slide("S2", 2), copy)]
    for owner, kind, severity in (
        ("B", f"{how}-slides-across-splits", "error"),
        ("C", f"{how}-slides-across-cases", "warning"),
        ("D", f"{how}-slides-across-cases", "warning"),
        ("A", f"{how}-slides-within-case", "warning"),
    ):
        (leak,) = find_leaks(cases, slides=[("S0", "A"), ("S1", owner), ("S2", "A")], sketches=sketches)
        assert (leak.kind, leak.severity) == (kind, severity)
        assert leak.examples[0].startswith("S0")
        assert "S1" in leak.examples[0]


def test_different_slides_are_not_alike():
    slides = [make_slide(f"S{i}", i, num_tiles=1 + 60 * i, dtype=np.float16) for i in range(12)]
    blank = np.full((40, 64), 0.25, np.float16)
    with_blanks = [
        dataclasses.replace(slide, features=np.concatenate([slide.features, blank])) for slide in slides[1:]
    ]
    assert alike([sketch(slide) for slide in slides]) == []
    assert alike([sketch(slide) for slide in with_blanks]) == [], "blank tiles are in every slide"


def test_sketches_of_odd_slides():
    empty, zero = (
        make_slide("E", 0, num_tiles=0),
        dataclasses.replace(SLIDE, features=np.zeros((3, 64), np.float16)),
    )
    huge = dataclasses.replace(SLIDE, features=np.full((2, 64), 3e38, np.float32))
    broken = dataclasses.replace(SLIDE, features=np.full((2, 64), np.nan, np.float32))
    sketches = [sketch(slide) for slide in (empty, empty, zero, broken, huge)]
    assert [len(s.keys) for s in sketches] == [0, 0, 0, 0, 1]
    assert alike(sketches) == [], "slides without tiles are not copies of each other"
    assert alike([]) == []


def test_sketches_are_small_and_many_are_compared_quickly():
    long = sketch(make_slide("S", 0, num_tiles=20_000, width=16))
    assert long.keys.nbytes == 2048
    assert (np.diff(long.keys.astype(object)) > 0).all()
    rng = np.random.default_rng(0)
    keys = np.sort(rng.integers(0, 2**64, (4000, 256), dtype=np.uint64), axis=1)
    many = [SlideSketch(str(i), 1000, str(i), row) for i, row in enumerate(keys)]
    pairs = alike([*many, dataclasses.replace(many[7], slide_id="copy")])
    assert [(pair.first, pair.second, pair.share, pair.is_same) for pair in pairs] == [(7, 4000, 1.0, True)]


@pytest.mark.parametrize("num_projects", [2, 4])
def test_expression_standardised_by_project(num_projects):
    cases = make_cases(num_projects)
    expression = make_expression(cases)
    planted = expression.groupby(cases["project"]).transform(standardised)
    leaks = find_leaks(cases, expression=planted)
    assert ("expression-centred-by-project", "error") in kinds(leaks)
    kept = planted.iloc[2:]
    assert ("expression-centred-by-project", "error") in kinds(find_leaks(cases, expression=kept))
    assert find_leaks(cases, expression=np.round(standardised(expression), 9).iloc[:-7]) == []


def test_expression_standardised_by_class_of_one_project():
    cases = make_cases().assign(
        project="P", subtype=lambda c: c["subtype"].where(np.arange(NUM_CASES) > 20, -1)
    )
    expression = make_expression(make_cases())
    label = cases["subtype"]
    planted = expression.groupby(label).transform(lambda values: values - values.mean())
    assert ("expression-centred-by-class", "error") in kinds(find_leaks(cases, expression=planted))
    assert find_leaks(cases, expression=expression) == []


def test_groups_that_do_not_differ_are_no_leak():
    for seed in range(30):
        cases = make_cases(seed=seed)
        together = standardised(make_expression(cases.assign(subtype=0), seed))
        leaks = find_leaks(cases, expression=together.iloc[:-1])
        assert kinds(leaks) <= {("expression-standardised-on-test", "warning")}


def test_expression_standardised_on_test_cases():
    cases = make_cases()
    expression = make_expression(cases)
    (leak,) = find_leaks(cases, expression=standardised(expression))
    assert leak[:2] == ("expression-standardised-on-test", "warning")
    train = expression[cases["split"] == "train"]
    assert find_leaks(cases, expression=(expression - train.mean()) / train.std()) == []


@pytest.mark.parametrize(
    ("change", "number"),
    [
        pytest.param(lambda values: 2**values, "standard deviation", id="log-in-one-only"),
        pytest.param(lambda values: values - 9.97, "median in standard deviations", id="other-offset"),
        pytest.param(lambda values: values.round(1), "decimals", id="rounded"),
        pytest.param(lambda values: values.where(values > 4, 0.0), "share of zeros", id="cut-at-a-threshold"),
        pytest.param(
            lambda values: values.where(values > 4), "share missing", id="missing-below-a-threshold"
        ),
    ],
)
def test_units_that_differ_between_projects(change, number):
    cases = make_cases()
    expression = make_expression(cases)
    is_first = cases["project"] == "P0"
    planted = expression.where(~is_first, change(expression))
    leaks = [
        leak for leak in find_leaks(cases, expression=planted) if leak.kind == "expression-units-tell-project"
    ]
    assert [leak.severity for leak in leaks] == ["error"]
    assert any(f"P0 from P1 by {number}" in example for example in leaks[0].examples)
    everywhere = find_leaks(cases, expression=change(expression))
    assert everywhere == [], "one unit for all is no leak"


@pytest.mark.parametrize(
    "values",
    [
        pytest.param(np.linspace(0, 9, NUM_CASES)[:, None], id="one-gene"),
        pytest.param(np.zeros((NUM_CASES, 30)), id="constant"),
        pytest.param(np.full((NUM_CASES, 30), np.nan), id="nothing-measured"),
        pytest.param(np.zeros((NUM_CASES, 0)), id="no-genes"),
        pytest.param(np.where(np.arange(30) < NUM_CASES % 7, np.nan, np.ones((NUM_CASES, 30))), id="gaps"),
    ],
)
def test_expression_that_says_nothing(values):
    cases = make_cases()
    assert find_leaks(cases, expression=pd.DataFrame(values, cases.index)) == []
    assert find_leaks(cases, expression=pd.DataFrame(values[:3], cases.index[:3])) == []
    assert find_leaks(cases, expression=pd.DataFrame(values[:0], cases.index[:0])) == []


@pytest.mark.parametrize(("site", "severity"), [("rcc", "error"), ("other", "warning")])
def test_genes_of_one_project_only(site, severity):
    cases = make_cases()
    is_first = cases["project"] == "P0"
    cases.loc[is_first, "site"] = site
    expression = make_expression(cases)
    expression.loc[is_first, "G3"] = np.nan
    (leak,) = find_leaks(cases, expression=expression)
    assert (leak.kind, leak.severity) == ("expression-genes-tell-project", severity)
    assert leak.examples == ("P0 from P1 by 1 of 60 genes",)
    expression.loc[:, "G3"] = np.nan
    assert find_leaks(cases, expression=expression) == []


def half_of(values):
    """The values, with every third replaced by those of the next case, so that they tell less."""
    return values.where(np.arange(len(values)) % 3 > 0, values.shift(-1, fill_value=values.iloc[0]))


@pytest.mark.parametrize(
    ("make", "kind", "how"),
    [
        pytest.param(
            lambda cases: cases["subtype"].map({0: "clear cell", 1: "papillary"}).astype(object),
            "variable-tells-class",
            "x in rcc by its values",
            id="histology",
        ),
        pytest.param(
            lambda cases: cases["subtype"] * 100.0 + np.arange(NUM_CASES) / 9,
            "variable-tells-class",
            "x in rcc by its size",
            id="number-per-class",
        ),
        pytest.param(
            lambda cases: cases["event"].map({0: "Alive", 1: "Dead"}).astype(object),
            "variable-tells-event",
            "x in rcc by its values",
            id="vital-status",
        ),
        pytest.param(
            lambda cases: pd.Series(
                np.where(cases["event"] == 1, np.arange(NUM_CASES) % 7, np.nan), cases.index
            ),
            "variable-tells-event",
            "x in rcc by being missing",
            id="known-of-the-dead-only",
        ),
        pytest.param(
            lambda cases: cases["time"] * 30.44, "variable-tells-time", "x by its size", id="time-in-days"
        ),
        pytest.param(
            lambda cases: -np.log(cases["time"]), "variable-tells-time", "x by its size", id="log-of-time"
        ),
    ],
)
def test_variables_that_are_the_label(make, kind, how):
    cases = make_cases()
    column = make(cases)
    (leak,) = find_leaks(cases, variables=pd.DataFrame({"x": column}))
    assert (leak.kind, leak.severity, leak.examples) == (kind, "error", (how,))
    assert find_leaks(cases, variables=pd.DataFrame({"x": half_of(column)})) == []


def test_variables_that_say_little_are_no_leak():
    cases = make_cases()
    variables = pd.DataFrame(
        {
            "id": [f"patient {i}" for i in range(NUM_CASES)],
            "constant": "yes",
            "never": pd.Series([None] * NUM_CASES, cases.index, dtype=object),
            "number": 1.0,
        },
        cases.index,
    )
    assert find_leaks(cases, variables=variables) == []
    few = cases.assign(subtype=-1, event=-1, time=np.nan)
    told = pd.DataFrame({"x": cases["subtype"].map({0: "a", 1: "b"}).astype(object)})
    assert find_leaks(few, variables=told) == [], "without labels there is nothing to tell"


@needs_tcga
def test_real_slides_are_all_different():
    slides = tcga_bench.read(TCGA, ["blca"])[0]
    sketches = [sketch(slide) for case in slides for slide in case.slides]
    assert len(sketches) == 453
    assert alike(sketches) == []


@needs_tcga
@pytest.mark.parametrize(
    ("expression", "found"),
    [
        pytest.param("pancan_sig_dec", set(), id="one-scale"),
        pytest.param(
            "own",
            {("expression-units-tell-project", "error"), ("expression-genes-tell-project", "warning")},
            id="a-unit-a-cohort",
        ),
    ],
)
def test_real_expression(expression, found):
    read, genes = tcga_bench.read(TCGA, ["rcc", "blca"], expression)
    rows = {case.id: case.expression for case in read if case.expression is not None}
    frame = pd.DataFrame(
        {
            "split": [case.split for case in read],
            "site": [case.site for case in read],
            "subtype": [case.labels.subtype for case in read],
            "time": [case.labels.time for case in read],
            "event": [case.labels.event for case in read],
        },
        [case.id for case in read],
    )
    assert kinds(find_leaks(frame, expression=pd.DataFrame.from_dict(rows, "index", columns=genes))) == found

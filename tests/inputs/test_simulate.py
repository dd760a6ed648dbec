"""The simulated cohort: that it is well formed, and that it plants what it says."""

import dataclasses

import numpy as np
import pandas as pd
import pytest
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import balanced_accuracy_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sksurv.metrics import concordance_index_censored

from modaltune_jax.inputs.cohort import check_cases, clean_diagnosis
from modaltune_jax.inputs.simulate import SimulationConfig, planted, simulate
from modaltune_jax.types import InputError

SMALL = SimulationConfig(cases_per_site=48, mean_tiles=30)
LARGE = SimulationConfig(cases_per_site=800, mean_tiles=40, missing_expression=0.0, missing_slides=0.0)
SITES = ("sim_breast", "sim_brain", "sim_lung", "sim_kidney")

# Of a coin tossed for each of the 320 cases outside train; three of these are taken as noise.
ACCURACY_SD = 0.5 / np.sqrt(320)


@pytest.fixture(scope="module")
def small():
    return simulate(SMALL)


@pytest.fixture(scope="module")
def sites():
    """Per site: what each modality says, raw and in the planted directions, and the labels."""
    cases, _, gene_sets, _ = simulate(LARGE)
    prototypes = planted(LARGE).prototypes
    tables = {}
    for site in SITES:
        members = [case for case in cases if case.site == site]
        tiles = [np.concatenate([slide.features for slide in case.slides]) for case in members]
        image = np.stack([rows.mean(axis=0, dtype=np.float32) for rows in tiles])
        expression = np.stack([case.expression for case in members])
        means = [expression[:, group].mean(axis=1) for group in gene_sets.groups[:4]]
        signs = np.stack([*(image @ prototypes.T).T, means[0] - means[1], means[2] - means[3]], axis=1)
        signs = signs - signs.mean(axis=0)
        tables[site] = {
            "image": image,
            "expression": expression,
            "u": signs[:, :1],
            "v": signs[:, 2:3],
            "uv": signs[:, :1] * signs[:, 2:3],
            "p": signs[:, 1],
            "q": signs[:, 3],
            "pq": signs[:, 1] * signs[:, 3],
            "labels": pd.DataFrame([dataclasses.asdict(case.labels) for case in members]),
            "is_train": np.array([case.split == "train" for case in members]),
        }
    return tables


def accuracy(table, *names):
    """Balanced accuracy of a logistic regression, fitted on train and scored on the rest."""
    inputs = np.concatenate([table[name] for name in names], axis=1)
    model = make_pipeline(StandardScaler(), LogisticRegression(C=0.1, max_iter=1000))
    train, subtype = table["is_train"], table["labels"]["subtype"]
    model.fit(inputs[train], subtype[train])
    return balanced_accuracy_score(subtype[~train], model.predict(inputs[~train]))


def concordance(table, name):
    labels = table["labels"]
    return concordance_index_censored(labels["event"] == 1, labels["time"], table[name])[0]


@pytest.mark.parametrize(
    ("site", "inputs", "is_enough"),
    [
        pytest.param("sim_breast", ["image"], True, id="breast-image"),
        pytest.param("sim_breast", ["expression"], False, id="breast-expression"),
        pytest.param("sim_brain", ["image"], False, id="brain-image"),
        pytest.param("sim_brain", ["expression"], True, id="brain-expression"),
        # Half of four subtypes, and half of two.
        *(
            pytest.param(site, inputs, False, id=f"{site[4:]}-{inputs[0]}")
            for site in ("sim_lung", "sim_kidney")
            for inputs in (["image"], ["u"], ["expression"], ["v"])
        ),
        pytest.param("sim_lung", ["u", "v"], True, id="lung-u-v"),
        pytest.param("sim_kidney", ["image", "expression"], False, id="kidney-side-by-side"),
        pytest.param("sim_kidney", ["u", "v", "uv"], True, id="kidney-multiplied"),
    ],
)
def test_what_the_subtype_needs(sites, site, inputs, is_enough):
    score = accuracy(sites[site], *inputs)
    if is_enough:
        assert score > 0.9
    else:
        assert abs(score - 0.5) < 3 * ACCURACY_SD


@pytest.mark.parametrize(("site", "needs"), [("sim_breast", "q"), ("sim_brain", "p"), ("sim_kidney", "pq")])
def test_what_the_risk_needs(sites, site, needs):
    # The standard error of c among 800 cases, half of them censored, is below 0.017.
    for name in ("p", "q", "pq"):
        if name == needs:
            assert concordance(sites[site], name) > 0.68
        else:
            assert abs(concordance(sites[site], name) - 0.5) < 0.05


def test_the_risk_of_lung_adds_up(sites):
    table = sites["sim_lung"]
    assert all(0.57 < concordance(table, name) < 0.68 for name in ("p", "q"))
    assert concordance({**table, "sum": table["p"] + table["q"]}, "sum") > 0.68


def test_censoring(sites):
    for table in sites.values():
        assert 0.38 < (table["labels"]["event"] == 0).mean() < 0.52


def test_stage_follows_risk_loosely(sites):
    for site in ("sim_breast", "sim_lung", "sim_kidney"):
        labels = sites[site]["labels"]
        stage = labels["stage"].map({"Stage I": 1, "Stage II": 2, "Stage III": 3, "Stage IV": 4})
        known = stage.notna()
        assert 0.85 < known.mean() < 0.95
        c = concordance_index_censored(labels["event"][known] == 1, labels["time"][known], stage[known])[0]
        assert 0.53 < c < 0.67
    assert set(sites["sim_brain"]["labels"]["stage"]) == {""}


def test_the_site_shows_in_each_modality(sites):
    for name in ("image", "expression"):
        inputs = np.concatenate([sites[site][name] for site in SITES])
        site = np.repeat(np.arange(4), 800)
        train = np.concatenate([sites[site]["is_train"] for site in SITES])
        model = make_pipeline(StandardScaler(), LogisticRegression()).fit(inputs[train], site[train])
        assert model.score(inputs[~train], site[~train]) > 0.95


def test_cases_are_well_formed(small):
    cases, genes, gene_sets, specs = small
    assert check_cases(cases, specs) == []
    assert tuple(spec.name for spec in specs) == SITES
    assert len(cases) == 4 * 48
    assert len(genes) == len(set(genes)) == SMALL.num_genes
    assert len(gene_sets.names) == SMALL.num_pathways
    spec_of = {spec.name: spec for spec in specs}
    for case in cases:
        spec = spec_of[case.site]
        assert clean_diagnosis(case.labels.diagnosis, spec) == case.labels.diagnosis
        assert spec.subtype(case.labels.diagnosis) == case.labels.subtype


def test_nothing_passes_for_real_data(small):
    cases, genes, gene_sets, specs = small
    names = [*(case.id for case in cases), *genes, *gene_sets.names, *(spec.title for spec in specs)]
    assert all(name.lower().startswith("sim") for name in names)


def test_tiles_lie_on_a_grid_with_holes(small):
    for case in small[0]:
        for slide in case.slides:
            cells = (slide.coords - slide.coords.min(axis=0)) // slide.patch_size_level0
            assert ((slide.coords - slide.coords.min(axis=0)) % slide.patch_size_level0 == 0).all()
            assert len(np.unique(cells, axis=0)) == len(cells)
            assert len(cells) < 10 or len(cells) < np.prod(cells.max(axis=0) + 1)
            assert (np.diff(cells[:, 1]) >= 0).all()
    assert {slide.patch_size_level0 for case in small[0] for slide in case.slides} == {256, 512}


def test_splits_are_stratified(sites):
    table = sites["sim_lung"]
    # 800 is a multiple of 80: all 16 combinations of signs are equally frequent in every split.
    subtype = table["labels"]["subtype"]
    assert table["is_train"].sum() == 480
    assert np.bincount(subtype[table["is_train"]]).tolist() == [120] * 4
    assert np.bincount(subtype[~table["is_train"]]).tolist() == [80] * 4


@pytest.mark.parametrize("cases_per_site", [16, 20, 50])
def test_small_cohorts_have_all_splits_and_subtypes(cases_per_site):
    cases, *_ = simulate(SimulationConfig(cases_per_site=cases_per_site, mean_tiles=5))
    table = pd.DataFrame([(case.site, case.split, case.labels.subtype) for case in cases])
    assert len(table[[0, 1]].drop_duplicates()) == 4 * 3
    assert len(table[table[1] == "train"].drop_duplicates()) == 2 + 2 + 4 + 2


def test_missing_modalities():
    cases, *_ = simulate(SimulationConfig(mean_tiles=5, missing_expression=0.3, missing_slides=0.2))
    no_expression = np.array([case.expression is None for case in cases])
    no_slides = np.array([not case.slides for case in cases])
    assert not (no_expression & no_slides).any()
    assert 0.25 < no_expression.mean() < 0.35
    assert 0.15 < no_slides.mean() < 0.25


def test_the_seed_decides(small):
    first, again, other = (
        small[0][7],
        simulate(SMALL)[0][7],
        simulate(dataclasses.replace(SMALL, seed=1))[0][7],
    )
    assert repr(first.labels) == repr(again.labels)
    np.testing.assert_array_equal(first.slides[0].features, again.slides[0].features)
    np.testing.assert_array_equal(first.expression, again.expression)
    assert first.labels.time != other.labels.time


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ({"cases_per_site": 15}, "cases_per_site is 15"),
        ({"num_pathways": 3}, "num_pathways is 3"),
        ({"seed": -1}, "seed is -1"),
        ({"missing_expression": 0.6, "missing_slides": 0.5}, "exceed 1"),
    ],
)
def test_impossible_settings(setting, message):
    with pytest.raises(InputError, match=message):
        SimulationConfig(**setting)

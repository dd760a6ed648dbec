"""The sentences, against hand-written rows and against every published row."""

import doctest
import json
from pathlib import Path

import pandas as pd
import pytest

from modaltune_jax.inputs import prompts
from modaltune_jax.inputs.cohort import find_spec
from modaltune_jax.inputs.prompts import sentences, survival_words, task_sentences
from modaltune_jax.types import InputError, Labels

TCGA = Path(__file__).parents[2] / "../shared/tcga"
needs_tcga = pytest.mark.skipif(not TCGA.is_dir(), reason=f"TCGA benchmark not at {TCGA}")

EDGES = (0.0, 14.69, 27.17, 54.96, 282.69)
DAYS_PER_MONTH = 30.44


def test_doctests():
    assert doctest.testmod(prompts).attempted > 0
    assert doctest.testmod(prompts).failed == 0


def test_a_full_row():
    labels = Labels("infiltrating duct carcinoma", 0, 20.0, 0, "Stage IIA", "T2", "N0 (i-)", "M0", 50.0)
    general, diagnosis, stage, survival = sentences(labels, find_spec("brca"), EDGES)
    staging = (
        "Overall stage: stage two; Tumor stage status: tumor stage two; Lymph node status: cancer has not"
        " spread to lymph nodes; Distant metastasis status: no metastasis detected;"
    )
    outcome = "Survival status: The patient was censored between 15 and 27 months"
    location, words = "Cancer location: breast;", "Cancer diagnosis: infiltrating duct carcinoma;"
    assert general == f"{location} {words} {staging} {outcome}"
    assert diagnosis == f"{location} {words}"
    assert stage == f"{location} {staging}"
    assert survival == f"{location} {staging} {outcome}"
    assert task_sentences(labels, find_spec("brca"), EDGES) == (general, diagnosis, survival)


@pytest.mark.parametrize(
    ("labels", "stage"),
    [
        pytest.param(Labels(), "Cancer location: kidney;    ", id="nothing-known"),
        pytest.param(
            Labels(t="T1a", n="NX"),
            "Cancer location: kidney;  Tumor stage status: tumor stage one;"
            " Lymph node status: node spread cannot be assessed; ",
            id="stage-and-m-missing",
        ),
        pytest.param(
            Labels(stage="Stage X", t="TX", m="MX"),
            "Cancer location: kidney; Overall stage: stage cannot be determined;"
            " Tumor stage status: tumor stage cannot be assessed; "
            " Distant metastasis status: metastasis status cannot be assessed;",
            id="cannot-be-assessed",
        ),
        pytest.param(
            Labels(stage="Stage IV", t="T0", n="N3c", m="M1a"),
            "Cancer location: kidney; Overall stage: stage four; Tumor stage status: no tumor detected;"
            " Lymph node status: node stage three;"
            " Distant metastasis status: cancer has spread to distant organs;",
            id="no-tumor-but-spread",
        ),
    ],
)
def test_staging_words_and_spaces(labels, stage):
    assert sentences(labels, find_spec("rcc"), EDGES)[2] == stage


@pytest.mark.parametrize(
    ("labels", "edges"),
    [
        pytest.param(Labels(time=3.0), EDGES, id="event-unknown"),
        pytest.param(Labels(), EDGES, id="time-unknown"),
        pytest.param(Labels(time=3.0, event=1), None, id="site-without-bins"),
    ],
)
def test_unknown_survival_is_left_unsaid(labels, edges):
    general, _, stage, survival = sentences(labels, find_spec("rcc"), edges)
    assert survival == stage + " "
    assert general == "Cancer location: kidney;      "


@pytest.mark.parametrize(
    ("time", "words"),
    [
        pytest.param(0.0, "before 15 months", id="zero"),
        pytest.param(14.68, "before 15 months", id="below-first-quantile"),
        pytest.param(14.69, "between 15 and 27 months", id="at-first-quantile"),
        pytest.param(200.0, "between 55 and 283 months", id="last-bin"),
        pytest.param(282.69, "after 283 months", id="at-last-edge"),
        pytest.param(999.0, "after 283 months", id="beyond-last-edge"),
    ],
)
def test_survival_words(time, words):
    assert survival_words(time, EDGES) == words


def test_below_the_first_edge_is_before_the_first_quantile():
    assert survival_words(2.0, (6.0, 10.0, 20.0)) == "before 10 months"


def test_unreadable_stage():
    with pytest.raises(InputError, match="'Stage Q' is not an AJCC code"):
        sentences(Labels(stage="Stage Q"), find_spec("brca"), EDGES)


@needs_tcga
@pytest.mark.parametrize("cohort", ["brca", "gbmlgg", "nsclc", "rcc", "blca"])
def test_every_published_sentence(cohort):
    published = pd.read_csv(TCGA / "prompts.csv.gz", dtype=str, keep_default_na=False)
    published = published[published.cohort == cohort.upper()]
    table = pd.read_csv(TCGA / f"splits/{cohort}.csv", dtype=str, keep_default_na=False)
    rows = table.drop(columns="stage").assign(overall=table["stage"]).merge(published, on="case_id")
    assert len(rows) == len(published) == len(table) > 0
    edges = json.loads((TCGA / "prompt_bins.json").read_text())[cohort.upper()]["edges_months"]
    spec = find_spec(cohort)
    for row in rows.to_dict("records"):
        # The split file rounds months to four decimals; whole days give back what the edges were cut from.
        time = round(float(row["durations_months"]) * DAYS_PER_MONTH) / DAYS_PER_MONTH
        labels = Labels(
            diagnosis=row["primary_diagnosis"],
            time=time,
            event=int(row["vital_status"]),
            stage=row["overall"],
            t=row["T"],
            n=row["N"],
            m=row["M"],
        )
        expected = (row["general"], row["diagnosis"], row["stage"], row["survival"])
        assert sentences(labels, spec, edges) == expected, row["case_id"]


@needs_tcga
def test_every_published_bin_wording():
    for bins in json.loads((TCGA / "prompt_bins.json").read_text()).values():
        edges = bins["edges_months"]
        starts = [0.0, *edges[1:]]
        words = {str(index): survival_words(start, edges) for index, start in enumerate(starts)}
        assert words == bins["sentences"]

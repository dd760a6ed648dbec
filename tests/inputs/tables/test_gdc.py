"""Clinical tables of the Genomic Data Commons, old and new names."""

import math

import numpy as np
import pandas as pd
import pytest

from modaltune_jax.inputs.tables.read import read_labels
from modaltune_jax.types import InputError

MISSING = "'--"
NEW = {
    "case": "cases.submitter_id",
    "project": "project.project_id",
    "vital": "demographic.vital_status",
    "death": "demographic.days_to_death",
    "years": "demographic.age_at_index",
    "gender": "demographic.gender",
    "days": "diagnoses.age_at_diagnosis",
    "seen": "diagnoses.days_to_last_follow_up",
    "diagnosis": "diagnoses.primary_diagnosis",
    "stage": "diagnoses.ajcc_pathologic_stage",
    "t": "diagnoses.ajcc_pathologic_t",
    "primary": "diagnoses.diagnosis_is_primary_disease",
    "class": "diagnoses.classification_of_tumor",
    "therapy": "treatments.treatment_type",
}
OLD = {
    **{key: name.split(".")[-1] for key, name in NEW.items()},
    "case": "case_submitter_id",
}
OLDER = {**OLD, "case": "submitter_id"}
ALIVE = {
    **{"case": "TCGA-AA-0001", "project": "TCGA-COAD", "vital": "Alive", "years": "61", "gender": "female"},
    **{"days": "22300", "seen": "304.4", "diagnosis": "Adenocarcinoma, NOS", "stage": "Stage IIA", "t": "T3"},
}
DEAD = {
    **{"case": "TCGA-AA-0002", "project": "TCGA-COAD", "vital": "Dead", "death": "608.8", "gender": "male"},
    **{
        "days": "20088.75",
        "seen": "100",
        "diagnosis": "Mucinous adenocarcinoma",
        "stage": "Stage IV",
        "t": "T4b",
    },
}


def clinical(path, rows, names=NEW):
    """Writes the rows as the GDC does: a UUID first, every column there, "'--" where nothing is known."""
    table = pd.DataFrame([{name: row.get(key, MISSING) for key, name in names.items()} for row in rows])
    table.insert(0, "cases.case_id" if names is NEW else "case_id", [f"uuid-{i}" for i in range(len(rows))])
    table.to_csv(path, sep="\t", index=False)
    return path


def counts_of(labels):
    return {count.step: count for count in labels.counts}


@pytest.mark.parametrize(
    "names", [pytest.param(NEW, id="dotted"), pytest.param(OLD, id="flat"), pytest.param(OLDER, id="older")]
)
def test_old_and_new_names_say_the_same(tmp_path, names):
    rows = [{**ALIVE, "therapy": "Chemo"}, {**ALIVE, "therapy": "Radiation"}, DEAD]
    labels = read_labels(f"gdc:{clinical(tmp_path / 'clinical.tsv', rows, names)}", variables=["gender"])
    frame = labels.frame
    assert frame.index.tolist() == ["TCGA-AA-0001", "TCGA-AA-0002"]
    np.testing.assert_allclose(frame["time"], [10.0, 20.0], rtol=1e-12)
    assert frame["event"].tolist() == [0, 1]
    np.testing.assert_allclose(frame["age"], [61, 55])
    assert frame["stage"].tolist() == ["Stage IIA", "Stage IV"]
    assert frame["t"].tolist() == ["T3", "T4b"]
    assert frame["n"].tolist() == ["", ""]
    assert frame["project"].tolist() == ["TCGA-COAD"] * 2
    assert labels.variables["gender"].tolist() == ["female", "male"]
    counts = counts_of(labels)
    assert counts["ages from age_at_diagnosis"].examples == ("TCGA-AA-0002",)
    assert (
        counts["rows of clinical.tsv to cases"].before,
        counts["rows of clinical.tsv to cases"].after,
    ) == (3, 2)
    assert "cases that contradict themselves" not in counts


@pytest.mark.parametrize(
    ("main", "other"),
    [
        pytest.param({"primary": "true"}, {"primary": "false"}, id="flag"),
        pytest.param({"class": "primary"}, {"class": "Prior primary"}, id="classification"),
        pytest.param({"primary": "true"}, {"class": "primary"}, id="flag-before-classification"),
    ],
)
@pytest.mark.parametrize("is_first", [True, False])
def test_the_primary_diagnosis_counts(tmp_path, main, other, is_first):
    rows = [
        {**ALIVE, **main},
        {**ALIVE, "diagnosis": "Melanoma, NOS", "t": "T1", "stage": "Stage 0", **other},
    ]
    path = clinical(tmp_path / "clinical.tsv", rows if is_first else rows[::-1])
    labels = read_labels(f"gdc:{path}")
    assert labels.frame["diagnosis"].tolist() == ["Adenocarcinoma, NOS"]
    assert "1 row of other diagnoses" in counts_of(labels)["rows of clinical.tsv to cases"].reason


def test_a_missing_stage_is_not_taken_from_another_diagnosis(tmp_path):
    rows = [{**ALIVE, "primary": "true", "stage": MISSING}, {**ALIVE, "primary": "false"}]
    assert read_labels(f"gdc:{clinical(tmp_path / 'c.tsv', rows)}").frame["stage"].tolist() == [""]


def test_contradictions_are_counted_and_the_first_row_taken(tmp_path):
    rows = [ALIVE, {**ALIVE, "diagnosis": "Mucinous adenocarcinoma"}, DEAD]
    labels = read_labels(f"gdc:{clinical(tmp_path / 'c.tsv', rows)}")
    assert labels.frame["diagnosis"].iloc[0] == "Adenocarcinoma, NOS"
    assert counts_of(labels)["cases that contradict themselves"].examples == ("TCGA-AA-0001: diagnosis",)


def test_the_last_follow_up_is_the_latest(tmp_path):
    rows = [{**ALIVE, "seen": "30.44"}, {**ALIVE, "seen": "913.2"}, {**ALIVE, "seen": MISSING}]
    path = clinical(tmp_path / "clinical.tsv", rows)
    assert read_labels(f"gdc:{path}").frame["time"].iloc[0] == pytest.approx(30)
    visits = pd.DataFrame(
        {"cases.submitter_id": ["TCGA-AA-0001"] * 2, "follow_ups.days_to_follow_up": ["3044", "1"]}
    )
    visits.to_csv(tmp_path / "follow_up.tsv", sep="\t", index=False)
    labels = read_labels(f"gdc:{tmp_path / 'follow_up.tsv'},{path}")
    assert labels.frame["time"].iloc[0] == pytest.approx(100)


@pytest.mark.parametrize(
    ("row", "time", "event"),
    [
        pytest.param({"vital": "Dead", "death": MISSING}, math.nan, -1, id="death-without-a-day"),
        pytest.param({"vital": "Alive", "seen": MISSING}, math.nan, -1, id="never-seen-again"),
        pytest.param({"vital": "Alive", "seen": "-7"}, math.nan, -1, id="negative"),
        pytest.param({"vital": "Not Reported"}, 10.0, -1, id="status-not-reported"),
        pytest.param({"vital": "Dead", "death": "0"}, 0.0, 1, id="death-on-day-0"),
    ],
)
def test_survival_by_rule(tmp_path, row, time, event):
    labels = read_labels(f"gdc:{clinical(tmp_path / 'c.tsv', [{**ALIVE, **row}])}")
    np.testing.assert_allclose(labels.frame["time"], [time])
    assert labels.frame["event"].tolist() == [event]


@pytest.mark.parametrize(
    ("case", "slide"),
    [
        pytest.param("case_submitter_id", "slide_submitter_id", id="flat"),
        pytest.param("cases.submitter_id", "slides.submitter_id", id="dotted"),
    ],
)
def test_slides_find_their_case_without_the_uuid(tmp_path, case, slide):
    table = pd.DataFrame({case: ["TCGA-AA-0001"] * 2, slide: ["TCGA-AA-0001-01Z-00-DX1", MISSING]})
    table.to_csv(tmp_path / "slide.tsv", sep="\t", index=False)
    path = clinical(tmp_path / "clinical.tsv", [ALIVE, DEAD])
    labels = read_labels(f"gdc:{path},{tmp_path / 'slide.tsv'}")
    assert labels.slides == {"TCGA-AA-0001-01Z-00-DX1": "TCGA-AA-0001"}
    assert labels.case_of("TCGA-AA-0001-01Z-00-DX1.663B9B44-E9B4.svs") == "TCGA-AA-0001"
    assert labels.case_of("TCGA-AA-0001-01Z-00-DX2.663B9B44-E9B4") == ""


def test_several_projects(tmp_path):
    one = clinical(tmp_path / "a.tsv", [ALIVE])
    other = clinical(tmp_path / "b.tsv", [{**DEAD, "project": "TCGA-READ"}], OLD)
    with pytest.raises(InputError, match="old and new column names are mixed; download the tables anew"):
        read_labels(f"gdc:{one},{other}")
    labels = read_labels(f"gdc:{one},{clinical(tmp_path / 'c.tsv', [{**DEAD, 'project': 'TCGA-READ'}])}")
    assert labels.frame["project"].tolist() == ["TCGA-COAD", "TCGA-READ"]


def test_other_endpoints_are_said_where_to_find(tmp_path):
    path = clinical(tmp_path / "c.tsv", [ALIVE])
    with pytest.raises(InputError, match=r"does not define the endpoint 'PFI', only OS; .* Liu et al\. 2018"):
        read_labels(f"gdc:{path}", endpoint="PFI")


def test_columns_of_ones_own_overrule(tmp_path):
    path = clinical(tmp_path / "c.tsv", [{**ALIVE, "class": "Mucinous"}])
    columns = tmp_path / "columns.toml"
    columns.write_text('diagnosis = "diagnoses.classification_of_tumor"')
    labels = read_labels(f"gdc:{path}", columns=columns)
    assert labels.frame.loc["TCGA-AA-0001", ["diagnosis", "event", "stage"]].tolist() == [
        "Mucinous",
        0,
        "Stage IIA",
    ]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        pytest.param("a\tb\n1\t2\n", "so it is no table of the GDC; its columns are a, b", id="other"),
        pytest.param(
            "case_submitter_id\tx\nA\t2\n", "is neither clinical.tsv, slide.tsv nor follow_up.tsv", id="kind"
        ),
        pytest.param(
            "case_submitter_id\tslide_submitter_id\nA\tB\n", "no clinical.tsv with cases", id="no-clinical"
        ),
        pytest.param(
            "case_submitter_id\tvital_status\tdays_to_last_follow_up\nA\tAlive\tsoon\n",
            "case A: 'soon' is no",
            id="day",
        ),
        pytest.param(
            "case_submitter_id\tvital_status\nA\tGone\n", "case A: vital status is 'Gone'", id="vital"
        ),
    ],
)
def test_wrong_tables(tmp_path, text, message):
    path = tmp_path / "clinical.tsv"
    path.write_text(text)
    with pytest.raises(InputError, match=message):
        read_labels(f"gdc:{path}")

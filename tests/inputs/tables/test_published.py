"""Tables of SurvPath, MCAT, the TCGA clinical data resource, and Patho-Bench."""

import zipfile

import numpy as np
import pandas as pd
import pytest

from modaltune_jax.inputs.cohort import clean_diagnosis, find_spec
from modaltune_jax.inputs.tables.read import read_labels
from modaltune_jax.types import InputError

# Laid out as SurvPath's tcga_brca.csv, with an unnamed index in front; the rows are invented.
SURVPATH = pd.DataFrame(
    {
        "case_id": ["TCGA-ZZ-0001", "TCGA-ZZ-0001", "TCGA-ZZ-0002"],
        "slide_id": [
            "TCGA-ZZ-0001-01Z-00-DX1.A.svs",
            "TCGA-ZZ-0001-01Z-00-DX2.B.svs",
            "TCGA-ZZ-0002-01Z-00-DX1.C.svs",
        ],
        "age": [50.0, 50.0, 71.0],
        "site": ["ZZ", "ZZ", "ZZ"],
        "survival_months": [133.5, 133.5, 3.25],
        "survival_months_dss": [133.5, 133.5, 3.0],
        "survival_months_pfi": [20.0, 20.0, 2.5],
        "censorship": [1, 1, 0],
        "censorship_dss": [1, 1, 1],
        "censorship_pfi": [0, 0, 0],
        "is_female": [1.0, 1.0, 0.0],
        "oncotree_code": ["IDC", "IDC", "ILC"],
        "train": [1.0, 1.0, 0.0],
    }
)


@pytest.mark.parametrize(
    ("endpoint", "times", "events"),
    [
        pytest.param("", [133.5, 3.25], [0, 1], id="default"),
        pytest.param("OS", [133.5, 3.25], [0, 1], id="OS"),
        pytest.param("DSS", [133.5, 3.0], [0, 0], id="DSS"),
        pytest.param("PFI", [20.0, 2.5], [1, 1], id="PFI"),
    ],
)
def test_survpath(tmp_path, endpoint, times, events):
    path = tmp_path / "tcga_brca.csv"
    SURVPATH.to_csv(path)
    labels = read_labels(f"survpath:{path}", endpoint=endpoint, variables=["is_female", "site"])
    assert labels.frame["time"].tolist() == times
    assert labels.frame["event"].tolist() == events
    assert labels.frame["age"].tolist() == [50, 71]
    assert labels.slides["TCGA-ZZ-0001-01Z-00-DX2.B"] == "TCGA-ZZ-0001"
    assert labels.variables["is_female"].tolist() == [1, 0]
    assert labels.variables["site"].tolist() == ["ZZ", "ZZ"]
    assert labels.frame["project"].tolist() == ["TCGA-BRCA", "TCGA-BRCA"]
    brca = find_spec("brca")
    assert [brca.subtype(clean_diagnosis(words, brca)) for words in labels.frame["diagnosis"]] == [0, 1]


def test_mcat_is_a_zip_with_genes_beside(tmp_path):
    table = SURVPATH.drop(
        columns=["survival_months_dss", "censorship_dss", "survival_months_pfi", "censorship_pfi"]
    )
    table = table.assign(TP53_rnaseq=[0.5, 0.5, -1], TP53_mut=[1, 1, 0], MYC_cnv=[2, 2, 0])
    path = tmp_path / "tcga_brca_all_clean.csv.zip"
    with zipfile.ZipFile(path, "w") as file:
        file.writestr("./tcga_brca_all_clean.csv.zip", table.to_csv())
    labels = read_labels(f"mcat:{path}")
    assert labels.frame["event"].tolist() == [0, 1]
    with pytest.raises(InputError, match="does not define the endpoint 'DSS', only OS"):
        read_labels(f"mcat:{path}", endpoint="DSS")
    with pytest.raises(InputError, match="variable 'TP53_rnaseq' fits 0 columns"):
        read_labels(f"mcat:{path}", variables=["TP53_rnaseq"])


def test_an_unknown_code_stays_and_is_counted(tmp_path):
    path = tmp_path / "t.csv"
    SURVPATH.assign(oncotree_code=["IDC", "IDC", "XYZ"]).to_csv(path)
    labels = read_labels(f"survpath:{path}")
    assert labels.frame["diagnosis"].tolist()[1] == "XYZ"
    count = labels.counts[0]
    assert (count.before, count.after, count.examples) == (3, 2, ("XYZ",))


def test_another_table_is_not_survpaths(tmp_path):
    path = tmp_path / "t.csv"
    SURVPATH.drop(columns=["censorship"]).to_csv(path)
    with pytest.raises(InputError, match=r"lacks the columns censorship of SurvPath's tables; .* use csv:"):
        read_labels(f"survpath:{path}")


CDR = pd.DataFrame(
    {
        "bcr_patient_barcode": ["TCGA-ZZ-0001", "TCGA-ZZ-0002"],
        "type": ["BRCA", "COAD"],
        "age_at_initial_pathologic_diagnosis": ["55", "#N/A"],
        "gender": ["FEMALE", "MALE"],
        "ajcc_pathologic_tumor_stage": ["Stage IIB", "[Not Applicable]"],
        "histological_type": ["Infiltrating Ductal Carcinoma", "[Unknown]"],
        "vital_status": ["Alive", "Dead"],
        "OS": ["0", "1"],
        "OS.time": ["3044", "30.44"],
        "DSS": ["0", "#N/A"],
        "DSS.time": ["3044", "30.44"],
        "PFI": ["1", "1"],
        "PFI.time": ["304.4", "15.22"],
    }
)


@pytest.mark.parametrize("suffix", [".csv", ".xlsx"])
@pytest.mark.parametrize(
    ("endpoint", "times", "events"),
    [
        pytest.param("OS", [100, 1], [0, 1], id="OS"),
        pytest.param("DSS", [100, 1], [0, -1], id="DSS"),
        pytest.param("PFI", [10, 0.5], [1, 1], id="PFI"),
    ],
)
def test_clinical_data_resource(tmp_path, suffix, endpoint, times, events):
    path = tmp_path / f"cdr{suffix}"
    if suffix == ".csv":
        CDR.to_csv(path)
    else:
        with pd.ExcelWriter(path) as book:
            CDR.to_excel(book, sheet_name="TCGA-CDR")
            CDR[["type"]].to_excel(book, sheet_name="ExtraEndpoints")
    labels = read_labels(f"cdr:{path}", endpoint=endpoint)
    np.testing.assert_allclose(labels.frame["time"], times)
    assert labels.frame["event"].tolist() == events
    assert labels.frame["project"].tolist() == ["TCGA-BRCA", "TCGA-COAD"]
    assert labels.frame["stage"].tolist() == ["Stage IIB", ""]
    np.testing.assert_array_equal(labels.frame["age"], [55, np.nan])


SURVIVAL_CONFIG = """
datasets:
- cptac_pda
task_col: OS
extra_cols:
- OS_event
- OS_days
task_type: survival
metrics:
- cindex
label_dict:
  0: Quartile 1, Event 0
  1: Quartile 1, Event 1
sample_col: case_id
"""
CLASS_CONFIG = """
datasets: [cptac_luad]
task_col: EGFR_mutation
extra_cols: []
task_type: classification
label_dict:
  0: wildtype
  1: mutant
sample_col: case_id
"""


def write_task(folder, config, **columns):
    folder.mkdir()
    (folder / "config.yaml").write_text(config)
    table = pd.DataFrame(
        {
            "case_id": ["C3L-00001", "C3L-00001", "C3L-00002"],
            "slide_id": ["C3L-00001-21", "C3L-00001-22", "C3L-00002-21"],
            **columns,
        }
    )
    table.to_csv(folder / "k=all.tsv", sep="\t", index=False)
    return folder / "k=all.tsv"


def test_survival_task_of_patho_bench(tmp_path):
    path = write_task(
        tmp_path / "OS",
        SURVIVAL_CONFIG,
        OS=[0, 0, 1],
        OS_event=[0, 0, 1],
        OS_days=[3044.0, 3044.0, 30.44],
        fold_0=["train", "train", "test"],
        fold_1=["test", "test", "train"],
    )
    labels = read_labels(f"patho_bench:{path}#1")
    np.testing.assert_allclose(labels.frame["time"], [100, 1])
    assert labels.frame["event"].tolist() == [0, 1]
    assert labels.frame["split"].tolist() == ["test", "train"]
    assert labels.slides["C3L-00001-22"] == "C3L-00001"
    unsplit = read_labels(f"patho_bench:{path.parent}", endpoint="OS")
    assert unsplit.frame["split"].tolist() == ["", ""]
    assert "2 folds and none was chosen" in unsplit.counts[0].reason
    with pytest.raises(InputError, match="has no fold '7', only fold_0, fold_1"):
        read_labels(f"patho_bench:{path}#7")
    with pytest.raises(InputError, match="does not define the endpoint 'PFS', only OS"):
        read_labels(f"patho_bench:{path}", endpoint="PFS")


def test_class_task_of_patho_bench(tmp_path):
    path = write_task(
        tmp_path / "EGFR", CLASS_CONFIG, EGFR_mutation=[1, 1, 0], fold_0=["train", "train", "test"]
    )
    labels = read_labels(f"patho_bench:{path}")
    assert labels.variables["EGFR_mutation"].tolist() == ["mutant", "wildtype"]
    assert labels.frame["split"].tolist() == ["train", "test"]
    assert labels.frame["event"].tolist() == [-1, -1]


@pytest.mark.parametrize(
    ("config", "columns", "message"),
    [
        pytest.param(
            CLASS_CONFIG,
            {"EGFR_mutation": [1, 1, 5]},
            "EGFR_mutation is '5', which is not in label_dict",
            id="label",
        ),
        pytest.param(CLASS_CONFIG, {"other": 1}, r"lacks the columns \['EGFR_mutation'\]", id="column"),
        pytest.param(SURVIVAL_CONFIG, {"OS": 1}, "has no columns OS_days and OS_event", id="endpoint"),
        pytest.param("task_col: x", {"x": 1}, "config.yaml: lacks label_dict, task_type", id="config"),
        pytest.param("a: [", {"x": 1}, "config.yaml: is not YAML", id="yaml"),
        pytest.param(
            CLASS_CONFIG,
            {"EGFR_mutation": [1, 1, 0], "fold_0": ["train", "test", "test"]},
            "case C3L-00001 has fold_0 'train' and 'test'",
            id="leak",
        ),
    ],
)
def test_wrong_tasks(tmp_path, config, columns, message):
    path = write_task(tmp_path / "task", config, **columns)
    with pytest.raises(InputError, match=message):
        read_labels(f"patho_bench:{path}")

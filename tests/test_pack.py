"""`python -m modaltune_jax.pack` from files to records, and what it says when something is wrong."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import h5py
import numpy as np
import pandas as pd
import pytest

from modaltune_jax import pack
from modaltune_jax.inputs.records import Records
from modaltune_jax.types import InputError

COLUMNS = """\
case_id = "Patient"
diagnosis = "Diagnosis"
age = "Age"
[endpoint]
time = "Months"
unit = "months"
event = "Dead"
[variables]
grade = "Grade"
"""


def write_trident(path: Path, num_tiles: int, seed: int) -> None:
    """As TRIDENT writes it."""
    generator = np.random.default_rng(seed)
    with h5py.File(path, "w") as file:
        file["features"] = generator.standard_normal((num_tiles, 8)).astype(np.float32)
        coords = 512 * np.stack([np.arange(num_tiles), np.zeros(num_tiles, int)], axis=1)
        dataset = file.create_dataset("coords", data=coords)
        attributes = {
            "patch_size": 256,
            "patch_size_level0": 512,
            "level0_magnification": 40,
            "target_magnification": 20,
            "overlap": 0,
            "name": path.stem,
            "savetodir": "jobs",
            "level0_width": 100000,
            "level0_height": 100000,
        }
        dataset.attrs.update(attributes)


@pytest.fixture
def cohort(tmp_path, monkeypatch):
    """A user's folder: slides of 12 patients, tables of 13."""
    monkeypatch.chdir(tmp_path)
    Path("features").mkdir()
    ids = [f"TCGA-AA-{i:04d}" for i in range(13)]
    for i, id in enumerate(ids[:12]):
        write_trident(Path(f"features/{id}-01Z-00-DX1.h5"), 4 + i, seed=i)
    table = pd.DataFrame(
        {
            "Patient": ids,
            "Diagnosis": ["Infiltrating duct carcinoma, NOS", "Lobular carcinoma, NOS"] * 6 + [""],
            "Age": np.arange(40, 53),
            "Months": np.arange(13) + 0.5,
            "Dead": [1, 0, 0, 1] * 3 + [0],
            "Grade": [1, 2, 3] * 4 + [1],
        }
    )
    table.to_csv("labels.csv", index=False)
    Path("columns.toml").write_text(COLUMNS)
    expression = pd.DataFrame({"case_id": ids[:6], "TP53": np.arange(6.0), "MYC": 1.0, "XIST": 0.5})
    expression.to_csv("expression.csv", index=False)
    Path("sideways.csv").write_text("gene,P1,P2\nTP53,1,2\nMYC,3,4\n")
    Path("hospital").mkdir()
    write_trident(Path("hospital/UKE-1.h5"), 4, seed=0)
    Path("sets.csv").write_text("pathway,gene\none,TP53\none,MYC\n")
    return tmp_path


FLAGS = [
    *(
        "--cohort",
        "brca",
        "--features",
        "features",
        "--labels",
        "csv:labels.csv",
        "--columns",
        "columns.toml",
    ),
    *("--expression", "csv:expression.csv", "--gene-sets", "sets.csv", "--workers", "1", "--quiet"),
    *("--split", "stratified:0.5,0.25,0.25:0", "--out", "records/mine"),
]


def test_a_cohort_is_packed_and_verified(cohort, capsys):
    pack.main(FLAGS)
    said = capsys.readouterr().out
    assert "records/mine: 12 cases of 12 slides, 114 tiles" in said
    assert "QUARANTINE: left out are 1 case and 0 slides, see records/mine/quarantine.csv" in said
    assert "nothing to see" in said
    records = Records("records/mine")
    assert records.genes == ("TP53", "MYC")
    assert records.variables == {"grade": "number"}
    assert set(records.table["split"]) == {"train", "val", "test"}
    assert records.table["has_expression"].sum() == 6
    assert records.labels(1).diagnosis == "lobular carcinoma"
    assert dict(records[4].variables) == {"grade": 2.0}
    assert records[4].slides[0].patch_size_level0 == 512
    with h5py.File("features/TCGA-AA-0004-01Z-00-DX1.h5") as file:
        np.testing.assert_array_equal(records[4].slides[0].features, file["features"][()])
    manifest = json.loads(Path("records/mine/manifest.json").read_text())
    assert [table["path"] for table in manifest["tables"]] == [
        *("labels.csv", "expression.csv", "columns.toml", "sets.csv")
    ]
    assert manifest["flags"]["split"] == "stratified:0.5,0.25,0.25:0"
    pack.main(["--verify", "records/mine", "--sources", "--quiet"])
    assert "16 source files have the hashes of the manifest" in capsys.readouterr().out


def test_splits_and_cases_by_file(cohort):
    Path("slides.csv").write_text(
        "slide_id,case_id\n" + "".join(f"TCGA-AA-{i:04d}-01Z-00-DX1,K{i % 3}\n" for i in range(12))
    )
    Path("splits.csv").write_text("case_id,split\nK0,train\nK1,val\nK2,test\n")
    pack.main(
        [
            *("--cohort", "brca", "--features", "features", "--case-of-slide", "slides.csv"),
            *("--splits", "splits.csv", "--out", "out", "--workers", "1", "--quiet"),
        ]
    )
    assert Records("out").table[["case_id", "split", "num_slides"]].to_numpy().tolist() == [
        ["K0", "train", 4],
        ["K1", "val", 4],
        ["K2", "test", 4],
    ]


@pytest.mark.parametrize(
    ("rule", "ids", "case_ids"),
    [
        pytest.param(
            r"(.+)-\d", ["UKE-0", "UKE-1-1", "UKE-2-1"], ["UKE-0", "UKE-1", "UKE-2"], id="regular-expression"
        ),
        pytest.param("slides.csv", ["UKE-0-1", "UKE-1-1", "K2"], ["K0", "K1", "K2"], id="file"),
        pytest.param("name", ["UKE-0-1", "UKE-1-1", "UKE-2-1"], ["UKE-0-1", "UKE-1-1", "UKE-2-1"], id="name"),
    ],
)
def test_splits_that_list_slides(cohort, rule, ids, case_ids):
    for i, path in enumerate(sorted(Path("features").iterdir())):
        path.rename(f"features/UKE-{i}-1.h5") if i < 3 else path.unlink()
    Path("slides.csv").write_text("slide_id,case_id\n" + "".join(f"UKE-{i}-1,K{i}\n" for i in range(3)))
    Path("splits.csv").write_text(f"train,val,test\n{','.join(ids)}\n")
    flags = ["--cohort", "brca", "--features", "features", "--case-of-slide", rule, "--splits", "splits.csv"]
    pack.main([*flags, "--out", "out", "--workers", "1", "--quiet"])
    table = Records("out").table
    assert dict(zip(table["case_id"], table["split"], strict=True)) == dict(
        zip(case_ids, ("train", "val", "test"), strict=True)
    )


def test_what_looks_wrong_is_said_first(cohort, capsys):
    Path("splits.csv").write_text("case_id,split\n" + "".join(f"TCGA-AA-{i:04d},train\n" for i in range(12)))
    pack.main(changed(split=None, splits="splits.csv"))
    first, second, *_ = capsys.readouterr().out.splitlines()
    assert first == "note: splits to splits with cases: 3 -> 1; no case is in the others (val, test)"
    assert not second.startswith("note:")


def changed(**changes):
    """The flags with some changed, or left out if None."""
    pairs = dict(zip(*[iter([flag for flag in FLAGS if flag != "--quiet"])] * 2, strict=True))
    pairs |= {f"--{name.replace('_', '-')}": value for name, value in changes.items()}
    return [word for pair in pairs.items() if pair[1] is not None for word in pair]


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        pytest.param(changed(out=None), "--out is missing", id="out"),
        pytest.param(changed(cohort=None), "--cohort is missing", id="cohort"),
        pytest.param(changed(cohort="brain"), "unknown cohort 'brain'", id="unknown-cohort"),
        pytest.param(changed(splits="splits.csv"), "give one of them", id="two-splits"),
        pytest.param(changed(split=None), "12 cases have no split", id="no-splits"),
        pytest.param(changed(gene_sets=None), "--expression needs --gene-sets", id="gene-sets"),
        pytest.param(changed(labels=None), "--columns has no meaning without --labels", id="columns"),
        pytest.param(changed(workers="0"), "--workers is 0", id="workers"),
        pytest.param(
            changed(case_of_slide=r"(X\d)", expression=None, gene_sets=None), "no case is left", id="rule"
        ),
        pytest.param(changed(expression="csv:sideways.csv"), r"has genes \(MYC, TP53\) where", id="sideways"),
        pytest.param(
            changed(features="hospital", expression=None, gene_sets=None), "is not a TCGA", id="names"
        ),
        pytest.param([*FLAGS, "--strict"], "case TCGA-AA-0012: .*nothing to see", id="strict"),
        pytest.param([*FLAGS, "--cohort", "brca"], "comes twice", id="twice"),
        pytest.param([*FLAGS, "--sources"], "--sources belongs to --verify", id="sources"),
        pytest.param([*FLAGS, "--verify", "x"], "--verify reads records", id="verify"),
        pytest.param([*FLAGS, "--features", "features", "features"], "slide TCGA-AA-0000", id="slide-twice"),
        pytest.param(["--cohort", "brca", "--out", "x"], "nothing to see", id="nothing"),
        pytest.param(["--outt", "x"], "unrecognized arguments: --outt", id="misspelt"),
    ],
)
def test_what_is_wrong_is_told_and_nothing_is_written(cohort, flags, message):
    before = sorted(cohort.rglob("*"))
    with pytest.raises(InputError, match=message):
        pack.main(flags)
    assert sorted(cohort.rglob("*")) == before


def test_exit_code_of_wrong_input(cohort, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["pack", *FLAGS, "--strict"])
    with pytest.raises(SystemExit) as info:
        pack.run()
    assert info.value.code == 2
    assert capsys.readouterr().err.startswith("error: case TCGA-AA-0012")


KILLED = """\
import os, signal, sys
from modaltune_jax import pack
from modaltune_jax.packing import pack as packing
count = []
def deadly(faults, effort):
    count.append(faults)
    if len(count) == 5:
        os.kill(os.getpid(), signal.SIGKILL)
packing._stop_if_strict = deadly
pack.main(sys.argv[1:])
"""


def test_after_a_kill_the_same_command_goes_on(cohort, capsys):
    environment = {**os.environ, "PYTHONPATH": str(Path(pack.__file__).parents[1])}
    killed = subprocess.run(
        [sys.executable, "-c", KILLED, *FLAGS], capture_output=True, env=environment, check=False
    )
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    assert len(list(Path("records/.mine.packing/cases").glob("*.json"))) in (5, 6)
    assert not Path("records/mine").exists()
    pack.main(FLAGS)
    other = [*FLAGS[:-1], "undisturbed"]
    pack.main(other)
    assert os.listdir("records") == ["mine"]
    for path in Path("undisturbed").iterdir():
        assert path.read_bytes() == Path("records/mine", path.name).read_bytes(), path.name

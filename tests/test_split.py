"""`python -m modaltune_jax.split` as a user types it."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from modaltune_jax import split
from modaltune_jax.inputs.splits import read_splits
from modaltune_jax.types import InputError

ROOT = Path(__file__).parents[1]
COLUMNS = """
case_id = "case"
diagnosis = "diagnosis"
project = "project"
[endpoint]
time = "months"
unit = "months"
event = "dead"
"""


@pytest.fixture
def folder(tmp_path):
    rng = np.random.default_rng(0)
    number = np.arange(80)
    table = pd.DataFrame(
        {
            "case": [f"TCGA-{'ABCDEFGH'[i % 8]}1-{i:04d}" for i in number],
            "diagnosis": np.where(number < 50, "Infiltrating duct carcinoma, NOS", "Lobular carcinoma, NOS"),
            "project": np.where(number < 72, "TCGA-BRCA", "TCGA-LUAD"),
            "months": rng.exponential(20, 80).round(2),
            "dead": rng.integers(0, 2, 80),
        }
    )
    table.to_csv(tmp_path / "labels.csv", index=False)
    (tmp_path / "columns.toml").write_text(COLUMNS)
    return tmp_path


def words(folder, *more, recipe="stratified:0.5,0.25,0.25:0", out="splits.csv", cohort="brca"):
    return [
        *("--cohort", cohort, "--labels", f"csv:{folder}/labels.csv", "--columns", f"{folder}/columns.toml"),
        *("--recipe", recipe, "--out", f"{folder}/{out}", *more),
    ]


def test_splits_are_written_and_counted(folder):
    done = subprocess.run(
        [sys.executable, "-m", "modaltune_jax.split", *words(folder)],
        cwd=folder,
        env={"PYTHONPATH": str(ROOT), "PATH": "/usr/bin:/bin"},
        capture_output=True,
        text=True,
    )
    assert (done.returncode, done.stderr) == (0, "")
    splits = read_splits(folder / "splits.csv")
    assert splits.recipe == "stratified:0.5,0.25,0.25:0"
    assert splits.sha256 in done.stdout
    first, _, _, header, *rows = done.stdout.splitlines()
    assert first == "72 cases of brca; 80 are in the labels"
    assert header.split() == ["cohort", "class", "train", "val", "test"]
    classes = ["infiltrating duct carcinoma", "lobular carcinoma", "no class", "all"]
    assert [row.removeprefix("brca").strip().split("  ")[0] for row in rows] == classes
    labels = pd.read_csv(folder / "labels.csv", index_col="case").iloc[:72]
    test = labels[labels.index.map(splits.of) == "test"]
    assert rows[-1].split()[-2:] == [str(len(test)), f"({test['dead'].sum()})"]


def test_all_folds(folder, capsys):
    split.main(words(folder, "--all-folds", recipe="site-preserved:4:1:3", out="folds"))
    assert sorted(path.name for path in (folder / "folds").iterdir()) == [f"fold-{i}.csv" for i in range(4)]
    assert read_splits(folder / "folds/fold-2.csv").recipe == "site-preserved:4:2:3"
    assert capsys.readouterr().out.count("sha256") == 4


def test_all_folds_are_written_if_nobody_reads_on(folder):
    script = '"$@" | head -n 1'
    split_all = [
        sys.executable,
        "-m",
        "modaltune_jax.split",
        *words(folder, "--all-folds", recipe="kfold:3:0:0"),
    ]
    done = subprocess.run(
        ["bash", "-c", script, "bash", *split_all],
        cwd=folder,
        env={"PYTHONPATH": str(ROOT), "PATH": "/usr/bin:/bin", "PYTHONUNBUFFERED": "1"},
        capture_output=True,
        text=True,
    )
    assert done.stderr == ""
    assert len(list((folder / "splits.csv").iterdir())) == 3


def test_tissue_source_sites_of_a_column(folder):
    table = pd.read_csv(folder / "labels.csv")
    table["hospital"] = [f"H{i % 5}" for i in range(len(table))]
    table["case"] = [f"P{i}" for i in range(len(table))]
    table.to_csv(folder / "labels.csv", index=False)
    with pytest.raises(InputError, match="has no tissue source site"):
        split.main(words(folder, recipe="site-preserved:3:0:0"))
    with (folder / "columns.toml").open("a") as file:
        file.write('[variables]\ntissue_source_site = "hospital"\n')
    split.main(words(folder, recipe="site-preserved:3:0:0"))
    of = read_splits(folder / "splits.csv").of
    hospital = dict(zip(table["case"], table["hospital"], strict=True))
    assert len({(hospital[case], part) for case, part in of.items()}) == 5


def test_what_looks_wrong_in_the_labels_is_said(folder, capsys):
    columns = (folder / "columns.toml").read_text()
    (folder / "columns.toml").write_text(columns.replace('unit = "months"', 'unit = "years"'))
    split.main(words(folder))
    assert "\nnote: " in capsys.readouterr().out


def test_force_replaces(folder):
    split.main(words(folder))
    before = (folder / "splits.csv").read_bytes()
    with pytest.raises(InputError, match="exists: name another"):
        split.main(words(folder, recipe="stratified:0.5,0.25,0.25:1"))
    assert (folder / "splits.csv").read_bytes() == before
    split.main(words(folder, "--force", recipe="stratified:0.5,0.25,0.25:1"))
    assert read_splits(folder / "splits.csv").recipe == "stratified:0.5,0.25,0.25:1"


def test_several_cohorts_are_told_apart_by_project(folder, capsys):
    split.main(words(folder, "--cohort", "nsclc"))
    assert "80 cases of brca, nsclc; 80 are in the labels" in capsys.readouterr().out
    assert len(read_splits(folder / "splits.csv").of) == 80


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        pytest.param({"recipe": "kfold:5"}, "recipe 'kfold:5' cannot be read", id="recipe"),
        pytest.param({"cohort": "brac"}, "unknown cohort 'brac'", id="cohort"),
        pytest.param(
            {"cohort": "ucec"}, r"none of the 80 cases is of the projects \['TCGA-UCEC'\]", id="no-case"
        ),
        pytest.param({"more": ("--cohort", "brca")}, "cohort brca comes twice", id="twice"),
        pytest.param({"out": "labels.csv"}, "exists: name another, or say --force", id="there"),
    ],
)
def test_what_cannot_be(folder, changes, message):
    with pytest.raises(InputError, match=message):
        split.main(words(folder, *changes.pop("more", ()), **changes))
    with pytest.raises(InputError, match="has no folds"):
        split.main(words(folder, "--all-folds"))
    assert not (folder / "splits.csv").exists()


def test_a_case_of_no_project(folder):
    labels = folder / "labels.csv"
    labels.write_text(labels.read_text().replace("TCGA-LUAD", ""))
    with pytest.raises(InputError, match="has no project, so it may be of any of brca, nsclc"):
        split.main(words(folder, "--cohort", "nsclc"))
    split.main(words(folder))
    assert len(read_splits(folder / "splits.csv").of) == 80, "one cohort takes cases without a project"

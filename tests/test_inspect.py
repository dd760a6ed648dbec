"""The command `inspect`: what it prints, what it writes for machines, and how it ends."""

import json
import subprocess
import sys
from pathlib import Path

import h5py
import numpy as np
import pandas as pd
import pytest

from modaltune_jax import inspect, pack
from modaltune_jax.inputs import records
from modaltune_jax.inputs.cohort import CohortSpec
from modaltune_jax.inputs.genesets import GeneSets
from modaltune_jax.inspection import slide_runs
from modaltune_jax.inspection.leaks.leak import Leak
from modaltune_jax.inspection.text import WIDTH
from modaltune_jax.types import Case, InputError, Labels, Slide

ROOT = Path(__file__).parents[1]


@pytest.fixture(autouse=True)
def _in_this_process(monkeypatch):
    """Faster, and what tests replace is replaced there."""
    monkeypatch.setattr(slide_runs, "FEWEST", 0)


TCGA = ROOT / "../shared/tcga"
SIDE = 5
IDS = tuple(f"TCGA-AA-000{i}-01Z-00-DX1" for i in range(4))
SLIDE_KEYS = {
    *("verdict", "slide_id", "case_id", "path", "layout", "num_tiles", "width", "dtype", "patch_size_level0"),
    *("spacing", "num_cells", "num_shared", "num_off_grid", "num_negative", "num_beyond", "num_not_finite"),
    *("num_zero", "num_duplicate", "encoder", "mpp", "magnification", "frame", "tile_size", "findings"),
}
INSPECTION_KEYS = {
    *("verdict", "paths", "kind", "num_found", "slides", "units", "cohort", "num_left", "counts"),
    *("quarantined", "leaks", "notes", "needed"),
}
COHORT_KEYS = {
    *("num_cases", "slides_per_case", "missing", "classes", "follow_up", "genes", "gene_sets", "variables"),
}


def write_slide(folder: Path, slide_id: str, seed: int, step: int = 512, width: int = 8) -> None:
    """As TRIDENT writes it."""
    folder.mkdir(exist_ok=True)
    cells = np.stack(np.meshgrid(np.arange(SIDE), np.arange(SIDE)), axis=-1).reshape(-1, 2)
    features = np.random.default_rng(seed).normal(size=(len(cells), width)).astype(np.float16)
    with h5py.File(folder / f"{slide_id}.h5", "w") as file:
        file.create_dataset("features", data=features).attrs["encoder"] = "uni_v2"
        coords = file.create_dataset("coords", data=cells.astype(np.int64) * step)
        said = {
            "patch_size": 256,
            "patch_size_level0": 512,
            "level0_magnification": 40,
            "target_magnification": 20,
        }
        coords.attrs.update(said)


@pytest.fixture
def folder(tmp_path):
    """Four clean slides."""
    for seed, slide_id in enumerate(IDS):
        write_slide(tmp_path / "features_uni_v2", slide_id, seed)
    return tmp_path / "features_uni_v2"


@pytest.fixture
def tables(tmp_path):
    """Flags of labels and splits for the four cases."""
    cases = [slide_id[:12] for slide_id in IDS]
    pd.DataFrame(
        {
            "case_id": cases,
            "diagnosis": ["infiltrating duct carcinoma", "lobular carcinoma"] * 2,
            "months": [10.0, 20.0, 30.0, 40.0],
            "dead": [1, 0, 1, 0],
        }
    ).to_csv(tmp_path / "labels.csv", index=False)
    (tmp_path / "columns.toml").write_text(
        'case_id = "case_id"\ndiagnosis = "diagnosis"\n'
        '[endpoint]\ntime = "months"\nunit = "months"\nevent = "dead"\n'
    )
    splits = pd.DataFrame({"case_id": cases, "split": ["train", "train", "val", "test"]})
    splits.to_csv(tmp_path / "splits.csv", index=False)
    return [
        *("--cohort", "brca", "--labels", f"csv:{tmp_path / 'labels.csv'}"),
        *("--columns", str(tmp_path / "columns.toml"), "--splits", str(tmp_path / "splits.csv")),
    ]


def run(*arguments: object) -> int:
    """The exit code."""
    try:
        inspect.main([str(argument) for argument in arguments])
    except SystemExit as end:
        return end.code if isinstance(end.code, int) else -1
    return 0


def as_json(capsys, *arguments: object) -> tuple[int, dict]:
    code = run(*arguments, "--json", "-")
    return code, json.loads(capsys.readouterr().out, parse_constant=pytest.fail)


def truncate(path: Path) -> None:
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2])


def spoil(path: Path) -> None:
    with h5py.File(path, "a") as file:
        file["features"][3, 2] = np.nan


def test_a_clean_folder_can_be_packed(folder, capsys):
    assert run(folder) == 0
    text = capsys.readouterr().out
    assert text.splitlines()[2] == "can be packed: yes"
    assert "findings" not in text
    assert "uni_v2" in text


@pytest.mark.parametrize(
    ("damage", "kind"),
    [pytest.param(truncate, "unreadable", id="truncated"), pytest.param(spoil, "not-finite", id="NaN")],
)
def test_a_bad_slide_is_named_and_the_others_are_looked_at(folder, capsys, damage, kind):
    damage(folder / f"{IDS[2]}.h5")
    assert run(folder) == 1
    lines = capsys.readouterr().out.splitlines()
    assert lines[2] == "can be packed: yes, but 1 slide would be quarantined"
    (finding,) = [line for line in lines if line.startswith("  bad ")]
    assert kind in finding
    assert IDS[2] in finding
    assert sum(line.startswith("  TCGA-AA") for line in lines) == len(IDS)


def test_a_wrong_patch_size_is_said(folder, capsys):
    write_slide(folder, "S", 9, step=1024)
    assert run(folder) == 0
    words = " ".join(capsys.readouterr().out.split())
    assert "tiles are 1024 px apart but the patch size is 512 px: one grid cell in 4 is used" in words
    assert "is --patch-size-level0 1024?" in words


def test_nothing_readable_cannot_be_packed(folder, capsys):
    for slide_id in IDS[1:]:
        (folder / f"{slide_id}.h5").unlink()
    spoil(folder / f"{IDS[0]}.h5")
    assert run(folder) == 2
    assert "can be packed: no: no slide can be read" in capsys.readouterr().out


def test_a_cohort_is_joined_as_pack_would(folder, tables, capsys):
    assert run(folder, *tables) == 0
    text = capsys.readouterr().out
    assert "feature files: 4 cases, 4 slides\n" in text
    for title in ("missing", "classes", "follow-up in months", "clinical values", "joins"):
        assert f"\n{title}" in text, title
    assert "infiltrating duct carcinoma" in text


def test_what_pack_still_needs_is_a_no(folder, tables, capsys):
    assert run(folder, *tables[:-2]) == 2
    assert "can be packed: no: the cases have no splits yet, give --splits FILE" in capsys.readouterr().out
    expression = folder.parent / "expression.csv"
    expression.write_text("case_id,TP53\n" + "".join(f"{slide_id[:12]},1.5\n" for slide_id in IDS))
    assert run(folder, *tables, "--expression", f"csv:{expression}") == 2
    assert "can be packed: no: expression needs --gene-sets FILE" in capsys.readouterr().out


def test_what_looks_wrong_is_said_at_the_head(folder, tables, capsys):
    splits = Path(tables[-1])
    splits.write_text(splits.read_text().replace("val", "train"))
    assert run(folder, *tables) == 1
    lines = capsys.readouterr().out.splitlines()
    assert lines[2] == "can be packed: yes, but 1 number to look at, see the notes"
    assert lines[3] == "note: splits to splits with cases: 3 -> 2; no case is in the others (val)"


def test_expression_of_others_is_noted(folder, tables, capsys):
    expression = folder.parent / "expression.csv"
    ids = [*(slide_id[:12] for slide_id in IDS), "TCGA-ZZ-0009"]
    expression.write_text("case_id,TP53\n" + "".join(f"{id},{i}\n" for i, id in enumerate(ids)))
    (folder.parent / "sets.csv").write_text("pathway,gene\none,TP53\n")
    sets = ["--gene-sets", f"{folder.parent}/sets.csv"]
    assert run(folder, *tables, "--expression", f"csv:{expression}", *sets) == 0
    assert "note: cases with expression to those with slides or labels: 5 -> 4" in capsys.readouterr().out


def test_a_case_that_is_left_out_counts(folder, tables, capsys):
    splits = Path(tables[-1])
    splits.write_text("\n".join(splits.read_text().splitlines()[:-1]) + "\n")
    assert run(folder, *tables) == 1
    text = capsys.readouterr().out
    assert "1 case would be quarantined" in text
    assert "TCGA-AA-0003: is in no split" in text


def test_a_slide_in_two_splits_is_a_leak(folder, tables, capsys):
    (folder / f"{IDS[3]}.h5").write_bytes((folder / f"{IDS[0]}.h5").read_bytes())
    code, report = as_json(capsys, folder, *tables)
    assert code == 1
    (leak,) = report["inspections"][0]["leaks"]
    assert (leak["kind"], leak["severity"]) == ("same-slides-across-splits", "error")
    assert set(leak) == set(Leak._fields)


def test_json_has_everything_under_stable_keys(folder, tables, capsys):
    truncate(folder / f"{IDS[1]}.h5")
    code, report = as_json(capsys, folder, *tables)
    (found,) = report["inspections"]
    assert (report["format"], report["exit_code"], code) == (1, 1, 1)
    assert set(found) == INSPECTION_KEYS
    assert all(set(slide) == SLIDE_KEYS for slide in found["slides"])
    assert set(found["cohort"]) == COHORT_KEYS
    assert found["verdict"]["can"] == "but"
    assert found["verdict"]["sentence"].startswith("yes, but 1 slide would be quarantined")
    assert [slide["verdict"] for slide in found["slides"]] == ["bad", "ok", "ok", "ok"]
    assert (found["slides"][0]["slide_id"], found["slides"][0]["num_tiles"]) == (IDS[1], None)
    assert found["slides"][1]["case_id"] == "TCGA-AA-0000"
    assert [line["case_id"] for line in found["quarantined"]] == ["TCGA-AA-0001"]
    assert {unit["field"]: unit["slides"] for unit in found["units"]}["width"] == {"8": 3}
    assert {"step", "before", "after", "reason", "examples", "suspect"} == set(found["counts"][0])


def test_what_is_left_out_is_what_pack_leaves_out(folder, tables, tmp_path, capsys):
    write_slide(folder, "TCGA-AA-0000-01Z-00-DX2", 7, width=4)
    spoil(folder / f"{IDS[1]}.h5")
    splits = Path(tables[-1])
    splits.write_text(splits.read_text().replace("TCGA-AA-0003,test\n", ""))
    code, report = as_json(capsys, folder, *tables)
    (found,) = report["inspections"]
    bad = {(slide["case_id"], slide["slide_id"]) for slide in found["slides"] if slide["verdict"] == "bad"}
    left_out = bad | {(line["case_id"], line["slide_id"]) for line in found["quarantined"]}

    out = tmp_path / "records"
    pack.main([*tables, "--features", str(folder), "--out", str(out), "--workers", "1", "--quiet"])
    quarantine = pd.read_csv(out / "quarantine.csv", keep_default_na=False)
    assert code == 1
    assert len(left_out) == 4
    assert left_out == set(zip(quarantine["case_id"], quarantine["slide_id"], strict=True))


def test_json_is_written_beside_the_text(folder, tmp_path, capsys):
    assert run(folder, "--json", tmp_path / "report.json") == 0
    assert "can be packed: yes" in capsys.readouterr().out
    assert json.loads((tmp_path / "report.json").read_text())["exit_code"] == 0
    assert not list(tmp_path.glob("*.partial"))


def test_a_sample_is_said_to_be_one(folder, capsys):
    code, report = as_json(capsys, folder, "--sample", 2)
    (found,) = report["inspections"]
    assert (code, found["num_found"]) == (0, 4)
    assert [slide["slide_id"] for slide in found["slides"]] == [IDS[0], IDS[3]]
    run(folder, "--sample", 2)
    assert "4 slides, 2 looked at" in capsys.readouterr().out


def test_a_long_report_is_cut_unless_all_is_asked_for(folder, capsys):
    for i in range(30):
        write_slide(folder, f"S{i:02d}", 100 + i, step=1024)
    run(folder)
    assert "slides, worst first: 20 of 34" in capsys.readouterr().out
    run(folder, "--all")
    text = capsys.readouterr().out
    assert all(f"  S{i:02d} " in text for i in range(30))
    assert max(map(len, text.splitlines()[1:])) <= WIDTH


def test_pictures_are_drawn(folder, tables, tmp_path, capsys):
    truncate(folder / f"{IDS[1]}.h5")
    assert run(folder, *tables, "--pictures", tmp_path / "pictures") == 1
    paths = sorted((tmp_path / "pictures").iterdir())
    assert [path.name for path in paths] == ["cohort.png", "tile_maps_1.png"]
    assert all(path.stat().st_size > 20_000 for path in paths)


@pytest.fixture
def packed(tmp_path):
    """Two cases, one with two slides, one without."""
    rng = np.random.default_rng(0)
    cells = np.stack([np.arange(6), np.zeros(6)], axis=1).astype(np.int32)
    slides = tuple(
        Slide(name, rng.normal(size=(6, 4)).astype(np.float16), cells * 256, 256) for name in ("A-1", "A-2")
    )
    slides[1].features[0] = 0
    expression = np.array([1, 2], np.float32)
    cases = [
        Case("A", "lung", "train", slides, expression, Labels("x", 0, 12.0, 1)),
        Case("B", "lung", "test", (), 2 * expression, Labels("x", 0, 5.0, 0)),
    ]
    records.write(
        tmp_path / "records",
        cases,
        genes=["G1", "G2"],
        gene_sets=GeneSets(("P",), (np.array([0, 1], np.int32),)),
        specs=[CohortSpec("lung", "Lung", "lung", classes=("x",))],
        source="test",
        encoder="uni",
    )
    return tmp_path / "records"


def test_packed_records(packed, capsys):
    code, report = as_json(capsys, packed)
    (found,) = report["inspections"]
    assert (code, found["kind"], found["num_found"]) == (0, "records", 2)
    assert [(s["slide_id"], s["case_id"], s["verdict"], s["encoder"]) for s in found["slides"]] == [
        ("A-2", "A", "warning", "uni"),
        ("A-1", "A", "ok", "uni"),
    ]
    assert found["cohort"]["slides_per_case"] == {"0": 1, "2": 1}
    assert found["cohort"]["gene_sets"] == [{"name": "P", "num_genes": None, "num_measured": 2}]
    run(packed)
    assert "can be used: yes" in capsys.readouterr().out


def test_damaged_records_are_bad_slides(packed, capsys):
    (path,) = packed.glob("cases-train*")
    content = bytearray(path.read_bytes())
    features = next(iter(records.Records(packed))).slides[0].features
    content[content.index(features.tobytes())] ^= 0xFF
    path.write_bytes(content)
    code, report = as_json(capsys, packed)
    (found,) = report["inspections"]
    assert code == 1
    assert found["verdict"]["sentence"] == "yes, but 2 slides damaged or empty"
    assert {finding["kind"] for slide in found["slides"] for finding in slide["findings"]} == {"unreadable"}


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        pytest.param([], "nothing to look at", id="nothing"),
        pytest.param(["nowhere"], "nowhere: no such folder", id="a path that is not there"),
        pytest.param(["FOLDER", "--sample", "0"], "--sample is 0", id="a sample of none"),
        pytest.param(["FOLDER", "--workers", "0"], "--workers: '0' is not", id="no workers"),
        pytest.param(["FOLDER", "--splits", "x.csv"], "--cohort is missing", id="tables without a cohort"),
        pytest.param(["FOLDER", "--patch-size-level0", "0"], "--patch-size-level0 is 0", id="a size of none"),
        pytest.param(["PACKED", "--cohort", "brca"], "--cohort has no meaning", id="a cohort for records"),
        pytest.param(["PACKED", "--mpp", "0.25"], "--mpp has no meaning", id="units for records"),
    ],
)
def test_wrong_input_is_told_in_a_sentence(folder, packed, arguments, words):
    places = {"FOLDER": str(folder), "PACKED": str(packed)}
    with pytest.raises(InputError, match=words):
        inspect.main([places.get(word, word) for word in arguments])


def test_the_command_as_a_process(folder, tables):
    spoil(folder / f"{IDS[0]}.h5")
    command = [sys.executable, "-m", "modaltune_jax.inspect", str(folder), *tables, "--workers", "2"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert done.returncode == 1
    assert "can be packed: yes, but 1 slide would be quarantined; 1 case" in done.stdout
    assert done.stderr == ""


@pytest.mark.skipif(not TCGA.is_dir(), reason=f"TCGA benchmark not at {TCGA}")
def test_a_cohort_of_the_benchmark(capsys):
    code, report = as_json(capsys, TCGA, "--cohort", "blca", "--sample", 40)
    (found,) = report["inspections"]
    assert (code, found["kind"], found["cohort"]["num_cases"]) == (0, "tcga_bench", 385)
    assert (found["num_found"], len(found["slides"])) == (453, 40)
    assert "invented" in found["notes"][0]

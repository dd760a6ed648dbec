"""The documents beside packed records, and verification: whatever is changed is found."""

import json
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from modaltune_jax.inputs.barcodes import case_rule
from modaltune_jax.inputs.cohort import CohortSpec
from modaltune_jax.inputs.counts import Count
from modaltune_jax.inputs.genesets import GeneSets
from modaltune_jax.inputs.readers.slide_file import SlideOptions
from modaltune_jax.inputs.slide_files import find_slides
from modaltune_jax.inputs.splits import read_splits
from modaltune_jax.packing.join import Joined
from modaltune_jax.packing.pack import Effort, Origin, pack
from modaltune_jax.packing.planned_case import PlannedCase, Quarantined
from modaltune_jax.packing.verification import verify
from modaltune_jax.types import InputError, Labels

SPEC = CohortSpec("brca", "Breast", "breast")
OPTIONS = SlideOptions(coords_unit="level0", patch_size_level0=256, encoder="mine")


@pytest.fixture
def records(tmp_path, monkeypatch):
    """Two cases, one slide of `.npy` files each, and a third in quarantine."""
    monkeypatch.chdir(tmp_path)
    folder = Path("features")
    folder.mkdir()
    for id, tiles in (("A", 3), ("B", 0)):
        np.save(folder / f"{id}.npy", np.ones((tiles, 4), np.float32))
        np.save(folder / f"{id}_coords.npy", np.zeros((tiles, 2), np.int32) + 256 * np.arange(tiles)[:, None])
    Path("labels.csv").write_text("case_id\nA\nB\n")
    rule = case_rule("name")
    cases = tuple(
        PlannedCase(rule(file.id), "brca", "train", (file,), Labels(), {}, np.zeros(1, np.float32))
        for file in find_slides(folder, OPTIONS)
    )
    joined = Joined(
        cases,
        (Quarantined("C", "", "", "is in no split"),),
        (Count("cases to cases", 3, 2, "one is not", ("C",)),),
        ("G",),
        GeneSets(("one",), (np.array([0], np.int32),)),
        {},
    )
    origin = Origin((SPEC,), OPTIONS, [Path("labels.csv")], {"labels": "csv:labels.csv"}, "by hand")
    pack(joined, origin, Path("out"), Effort())
    return Path("out")


def test_documents(records):
    manifest = json.loads((records / "manifest.json").read_text())
    assert manifest["flags"] == {"labels": "csv:labels.csv"}
    assert manifest["tables"][0]["path"] == "labels.csv"
    assert (manifest["num_cases"], manifest["num_slides"], manifest["num_tiles"]) == (2, 2, 3)
    assert (manifest["num_quarantined_cases"], manifest["num_quarantined_slides"]) == (1, 0)
    assert [count["step"] for count in manifest["counts"]] == [
        "cases to cases",
        "slides of cases to slides packed",
        "slides packed to slides with tiles",
        "cases to cases packed",
    ]
    assert manifest["counts"][2]["examples"] == ["B"]
    assert {"numpy", "h5py", "python", "modaltune_jax"} <= manifest["versions"].keys()
    slides = pd.read_parquet(records / "slides.parquet")
    assert slides["path"].tolist() == ["features/A.npy", "features/B.npy"]
    assert slides["coords_path"].tolist() == ["features/A_coords.npy", "features/B_coords.npy"]
    assert slides["num_tiles"].tolist() == [3, 0]
    assert slides["encoder"].tolist() == ["mine", "mine"]
    splits = read_splits(records / "splits.csv")
    assert dict(splits.of) == {"A": "train", "B": "train"}
    assert manifest["splits_sha256"] == splits.sha256
    assert (records / "quarantine.csv").read_text().splitlines()[1:] == ["C,,,is in no split"]


def test_all_is_right(records):
    assert len(verify(records).lines) == 3
    assert verify(records, with_sources=True).lines[-1] == "3 source files have the hashes of the manifest"


def flip(path: Path, position: int) -> None:
    content = bytearray(path.read_bytes())
    content[position] ^= 1
    path.write_bytes(content)


def change_table(directory: Path) -> None:
    """A table and its hash, as somebody would who means to."""
    slides = pd.read_parquet(directory / "slides.parquet")
    slides["num_tiles"] = [2, 1]
    slides.to_parquet(directory / "slides.parquet", index=False)
    from modaltune_jax.packing.source_files import sha256

    manifest = json.loads((directory / "manifest.json").read_text())
    for file in manifest["files"]:
        path = directory / file["path"]
        file["bytes"] = path.stat().st_size
        if "sha256" in file:
            file["sha256"] = sha256([path])
    (directory / "manifest.json").write_text(json.dumps(manifest))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        pytest.param(
            lambda out: (out / "manifest.json").unlink(), "a folder that pack wrote", id="no-manifest"
        ),
        pytest.param(lambda out: flip(out / "manifest.json", 0), "manifest.json is damaged", id="manifest"),
        pytest.param(
            lambda out: (out / "splits.csv").unlink(), r"\['splits.csv'\] are missing", id="missing"
        ),
        pytest.param(lambda out: (out / "x").touch(), r"\['x'\] do not belong there", id="additional"),
        pytest.param(lambda out: flip(out / "splits.csv", -2), "splits.csv is not as it was", id="changed"),
        pytest.param(
            lambda out: (out / "quarantine.csv").write_text("a"), "quarantine.csv is not", id="shorter"
        ),
        pytest.param(change_table, "tiles of slides.parquet and the index differ", id="tiles"),
    ],
)
def test_what_was_changed_is_found(records, change, message):
    change(records)
    with pytest.raises(InputError, match=message):
        verify(records)


def test_a_changed_record_is_found(records):
    path = next(records.glob("*.array_record-*"))
    flip(path, path.read_bytes().index(np.ones(12, np.float32).tobytes()) + 2)
    with pytest.raises(InputError, match="case A"):
        verify(records)


@pytest.mark.parametrize("name", ["labels.csv", "features/A.npy", "features/A_coords.npy"])
def test_changed_sources_are_found_when_asked_for(records, name):
    flip(Path(name), -1)
    verify(records)
    with pytest.raises(InputError, match="has changed since out was packed"):
        verify(records, with_sources=True)


def test_sources_that_are_gone_are_counted(records):
    Path("features/A_coords.npy").unlink()
    lines = verify(records, with_sources=True).lines
    assert lines[-2:] == (
        "2 source files have the hashes of the manifest",
        "1 source file not there to compare, e.g. features/A.npy",
    )


def test_sources_that_are_all_gone_are_no_comparison(records):
    shutil.rmtree("features")
    Path("labels.csv").unlink()
    found = verify(records, with_sources=True)
    assert found.lines[-1].startswith("none of the 3 source files is there to compare")
    assert not found.is_complete
    assert verify(records).is_complete


@pytest.mark.parametrize("content", ["[]", "{}", '"x"', '{"files": 3}'])
def test_a_manifest_of_something_else(records, content):
    (records / "manifest.json").write_text(content)
    with pytest.raises(InputError, match=r"manifest.json is damaged \(.*\); pack again"):
        verify(records)


def test_what_systems_leave_in_folders_is_harmless(records):
    (records / ".DS_Store").write_bytes(b"x")
    assert len(verify(records).lines) == 3

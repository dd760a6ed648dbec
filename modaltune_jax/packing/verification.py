"""Packed records compared with what was written about them, and with their sources."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import pandas as pd

from modaltune_jax.inputs.readers.slide_file import SlideFile
from modaltune_jax.inputs.records import Records
from modaltune_jax.inputs.splits import read_splits
from modaltune_jax.packing.manifest import MANIFEST, QUARANTINE, SLIDES, SPLITS_FILE
from modaltune_jax.packing.source_files import files_of, sha256
from modaltune_jax.types import InputError


def verify(directory: Path, *, with_sources: bool = False, progress: bool = False) -> list[str]:
    """Reads all records and compares everything with everything.

    Args:
      directory: of packed records.
      with_sources: hash the source files too, where they still are.
      progress: show bars.

    Returns:
      What was found to be right, a sentence each.

    Raises:
      InputError: the first thing that is not.
    """
    manifest = _read_manifest(directory)
    lines = [_check_files(directory, manifest)]
    records = Records(directory)
    records.verify(progress)
    lines.append(f"{records.num_cases} records agree with their checksums and the index")
    lines.append(_check_tables(directory, records, manifest))
    if with_sources:
        lines += _check_sources(directory, manifest, progress)
    return lines


def _read_manifest(directory: Path) -> dict[str, Any]:
    path = directory / MANIFEST
    if not path.is_file():
        raise InputError(f"{path}: no such file; --verify takes a folder that pack wrote")
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise InputError(f"{path} is damaged ({error}); pack again") from error


def _check_files(directory: Path, manifest: dict[str, Any]) -> str:
    expected = {file["path"]: file for file in manifest["files"]}
    there = {path.name for path in directory.iterdir()} - {MANIFEST}
    if there != set(expected):
        missing, others = sorted(set(expected) - there), sorted(there - set(expected))
        raise InputError(
            f"{directory}: the files {missing} are missing, and {others} do not belong there; pack again"
        )
    for name, file in expected.items():
        path = directory / name
        if path.stat().st_size != file["bytes"] or ("sha256" in file and sha256([path]) != file["sha256"]):
            raise InputError(f"{path} is not as it was written; pack again")
    return f"{len(expected)} files are those of the manifest"


def _check_tables(directory: Path, records: Records, manifest: dict[str, Any]) -> str:
    slides = pd.read_parquet(directory / SLIDES)
    tiles = slides.groupby("case_id")["num_tiles"].agg(["sum", "count"])
    tiles = tiles.reindex(records.table["case_id"], fill_value=0)
    splits = read_splits(directory / SPLITS_FILE)
    with (directory / QUARANTINE).open(newline="", encoding="utf-8") as file:
        num_quarantined = sum(1 for _ in csv.DictReader(file))
    pairs = {
        "cases of the manifest and the index": (manifest["num_cases"], records.num_cases),
        f"tiles of {SLIDES} and the index": (tiles["sum"].tolist(), records.lengths.tolist()),
        f"slides of {SLIDES} and the index": (tiles["count"].tolist(), records.table["num_slides"].tolist()),
        "slides of the manifest and the table": (manifest["num_slides"], len(slides)),
        "tiles of the manifest and the table": (manifest["num_tiles"], int(slides["num_tiles"].sum())),
        f"splits of {SPLITS_FILE} and the index": (
            dict(splits.of),
            dict(zip(records.table["case_id"], records.table["split"], strict=True)),
        ),
        f"hashes of the manifest and {SPLITS_FILE}": (manifest["splits_sha256"], splits.sha256),
        f"rows of the manifest and {QUARANTINE}": (
            manifest["num_quarantined_cases"] + manifest["num_quarantined_slides"],
            num_quarantined,
        ),
    }
    for what, (first, second) in pairs.items():
        if first != second:
            raise InputError(f"{directory}: {what} differ; pack again")
    return (
        f"{len(slides)} slides, {manifest['num_tiles']} tiles, {num_quarantined} rows of quarantine and the"
        " splits agree with the manifest"
    )


def _check_sources(directory: Path, manifest: dict[str, Any], progress: bool) -> list[str]:
    from tqdm import tqdm

    slides = pd.read_parquet(directory / SLIDES)
    sources = [(file["path"], file["sha256"], None) for file in manifest["tables"]]
    sources += [tuple(row) for row in slides[["path", "sha256", "coords_path"]].itertuples(index=False)]
    gone = []
    for name, digest, coords in tqdm(sources, desc="hashing", unit="file", disable=not progress):
        slide = SlideFile("", "", Path(name), Path(coords) if coords else None)
        if not slide.path.exists() or not (slide.coords_path or slide.path).exists():
            gone.append(name)
        elif sha256(files_of(slide)) != digest:
            raise InputError(
                f"{name} has changed since {directory} was packed from it; pack again, or restore it"
            )
    lines = [f"{len(sources) - len(gone)} source files have the hashes of the manifest"]
    if gone:
        lines.append(f"{len(gone)} source files are not there to compare, e.g. {gone[0]}")
    return lines

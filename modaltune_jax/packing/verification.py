"""Packed records compared with what was written about them, and with their sources."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any, NamedTuple

import pandas as pd

from modaltune_jax.inputs.counts import plural
from modaltune_jax.inputs.readers.slide_file import SlideFile
from modaltune_jax.inputs.records import Records
from modaltune_jax.inputs.splits import read_splits
from modaltune_jax.packing.manifest import MANIFEST, QUARANTINE, SLIDES, SPLITS_FILE
from modaltune_jax.packing.source_files import files_of, sha256
from modaltune_jax.types import InputError

_FIELDS = {
    "files": list,
    "tables": list,
    "splits_sha256": str,
    **dict.fromkeys(("num_cases", "num_slides", "num_tiles"), int),
    **dict.fromkeys(("num_quarantined_cases", "num_quarantined_slides"), int),
}


class Verified(NamedTuple):
    """What was found to be right.

    Attributes:
      lines: a sentence each.
      is_complete: False where sources were to be compared and none of them is there.
    """

    lines: tuple[str, ...]
    is_complete: bool


def verify(directory: Path, *, with_sources: bool = False, progress: bool = False) -> Verified:
    """Reads all records and compares everything with everything.

    Args:
      directory: of packed records.
      with_sources: hash the source files too, where they still are.
      progress: show bars.

    Raises:
      InputError: the first thing that is not.
    """
    manifest = _read_manifest(directory)
    lines = [_check_files(directory, manifest)]
    records = Records(directory)
    records.verify(progress)
    lines.append(f"{records.num_cases} records agree with their checksums and the index")
    lines.append(_check_tables(directory, records, manifest))
    num_compared = 0
    if with_sources:
        num_compared, more = _check_sources(directory, manifest, progress)
        lines += more
    return Verified(tuple(lines), not with_sources or num_compared > 0)


def _read_manifest(directory: Path) -> dict[str, Any]:
    path = directory / MANIFEST
    if not path.is_file():
        raise InputError(f"{path}: no such file; --verify takes a folder that pack wrote")
    try:
        manifest = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise InputError(f"{path} is damaged ({error}); pack again") from error
    if not isinstance(manifest, dict):
        raise InputError(f"{path} is damaged (no object); pack again")
    for name, kind in _FIELDS.items():
        if not isinstance(manifest.get(name), kind):
            raise InputError(f"{path} is damaged ({name} is {manifest.get(name)!r:.60}); pack again")
    for file in (*manifest["files"], *manifest["tables"]):
        if not isinstance(file, dict) or not isinstance(file.get("path"), str) or "bytes" not in file:
            raise InputError(f"{path} is damaged (a file is {file!r:.60}); pack again")
    return manifest


def _check_files(directory: Path, manifest: dict[str, Any]) -> str:
    expected = {file["path"]: file for file in manifest["files"]}
    # Hidden ones are what systems leave anywhere, such as .DS_Store.
    there = {path.name for path in directory.iterdir() if not path.name.startswith(".")} - {MANIFEST}
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


def _check_sources(directory: Path, manifest: dict[str, Any], progress: bool) -> tuple[int, list[str]]:
    from tqdm import tqdm

    slides = pd.read_parquet(directory / SLIDES)
    sources = [(file["path"], file.get("sha256"), None) for file in manifest["tables"]]
    sources += [tuple(row) for row in slides[["path", "sha256", "coords_path"]].itertuples(index=False)]
    gone = []
    for name, digest, coords in tqdm(
        sources, desc="hashing", unit="file", disable=None if progress else True
    ):
        slide = SlideFile("", "", Path(name), Path(coords) if coords else None)
        if not slide.path.exists() or not (slide.coords_path or slide.path).exists():
            gone.append(name)
        elif sha256(files_of(slide)) != digest:
            raise InputError(
                f"{name} has changed since {directory} was packed from it; pack again, or restore it"
            )
    found = len(sources) - len(gone)
    if not found:
        return 0, [f"none of the {plural(len(gone), 'source file')} is there to compare, e.g. {gone[0]}"]
    lines = [f"{plural(found, 'source file')} {'has' if found == 1 else 'have'} the hashes of the manifest"]
    if gone:
        lines.append(f"{plural(len(gone), 'source file')} not there to compare, e.g. {gone[0]}")
    return found, lines

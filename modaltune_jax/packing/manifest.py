"""What records were made from, and what became of everything: the documents beside packed records.

::

    slides.parquet    a row a slide: its file, the file's sha256, what the file says, tiles
    quarantine.csv    a row a case or slide that was left out, and why
    splits.csv        the split of every case
    manifest.json     sources with hashes, flags, versions, counts of every step, hashes of the files here

None of them holds a date: the same input gives the same bytes.
"""

from __future__ import annotations

import csv
import dataclasses
import importlib.metadata
import json
import platform
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import pandas as pd

import modaltune_jax
from modaltune_jax.inputs.counts import Count
from modaltune_jax.inputs.splits import Splits, write_splits
from modaltune_jax.packing.packed_case import PackedSlide
from modaltune_jax.packing.planned_case import Quarantined
from modaltune_jax.packing.source_files import sha256

SLIDES = "slides.parquet"
QUARANTINE = "quarantine.csv"
SPLITS_FILE = "splits.csv"
MANIFEST = "manifest.json"

_LIBRARIES = ("numpy", "pandas", "pyarrow", "h5py", "array_record", "tensorflow_datasets", "ml_dtypes")
_LAYOUT = ("width", "dtype")
"""The same for all slides, and in metadata.json."""


class Packed(NamedTuple):
    """What a pack did.

    Attributes:
      num_cases: packed.
      num_slides, num_tiles: in them.
      source_bytes, record_bytes: of the slides' files and of the records.
      quarantined: what was left out.
      counts: of every step.
    """

    num_cases: int
    num_slides: int
    num_tiles: int
    source_bytes: int
    record_bytes: int
    quarantined: tuple[Quarantined, ...]
    counts: tuple[Count, ...]

    @property
    def num_quarantined_cases(self) -> int:
        """Whole cases left out."""
        return sum(not line.slide_id for line in self.quarantined)


def write_documents(
    directory: Path,
    *,
    splits: Mapping[str, str],
    splits_recipe: str,
    slides: Sequence[PackedSlide],
    quarantined: Sequence[Quarantined],
    counts: Sequence[Count],
    tables: Iterable[Path],
    flags: Mapping[str, Any],
) -> Packed:
    """Writes the documents; the records and what belongs to them are there already.

    Args:
      directory: of the records.
      splits: of the packed cases.
      splits_recipe: as of `Splits`.
      slides: packed.
      quarantined, counts: as said.
      tables: source files other than slides.
      flags: as given by the user.
    """
    table = pd.DataFrame(slides, columns=PackedSlide._fields).drop(columns=list(_LAYOUT))
    table = table.astype({"mpp": "float64", "magnification": "float64"})
    table.to_parquet(directory / SLIDES, index=False)
    with (directory / QUARANTINE).open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(Quarantined._fields)
        writer.writerows(quarantined)
    of = Splits(dict(splits), splits_recipe)
    write_splits(directory / SPLITS_FILE, of)
    packed = Packed(
        num_cases=len(splits),
        num_slides=len(slides),
        num_tiles=sum(slide.num_tiles for slide in slides),
        source_bytes=sum(slide.bytes for slide in slides),
        record_bytes=sum(path.stat().st_size for path in directory.glob("*.array_record-*")),
        quarantined=tuple(quarantined),
        counts=tuple(counts),
    )
    manifest = {
        "flags": dict(flags),
        "versions": _versions(),
        "tables": [_described(path, str(path)) for path in tables],
        "splits_sha256": of.sha256,
        "num_cases": packed.num_cases,
        "num_slides": packed.num_slides,
        "num_tiles": packed.num_tiles,
        "source_bytes": packed.source_bytes,
        "record_bytes": packed.record_bytes,
        "num_quarantined_cases": packed.num_quarantined_cases,
        "num_quarantined_slides": len(quarantined) - packed.num_quarantined_cases,
        "counts": [dataclasses.asdict(count) for count in counts],
        "files": [
            # Records have checksums of their own, and reading them again would double the time.
            {"path": path.name, "bytes": path.stat().st_size}
            if ".array_record-" in path.name
            else _described(path, path.name)
            for path in sorted(directory.iterdir())
            if path.name != MANIFEST
        ],
    }
    (directory / MANIFEST).write_text(json.dumps(manifest, indent=1), encoding="utf-8")
    return packed


def _described(path: Path, name: str) -> dict[str, Any]:
    return {"path": name, "bytes": path.stat().st_size, "sha256": sha256([path])}


def _versions() -> dict[str, str]:
    libraries = {name: importlib.metadata.version(name) for name in _LIBRARIES}
    return {"modaltune_jax": modaltune_jax.__version__, "python": platform.python_version(), **libraries}

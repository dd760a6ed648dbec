"""Slides to look at one by one, wherever they are: feature files, packed records, the TCGA benchmark."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from modaltune_jax.inputs.readers import tcga_bench
from modaltune_jax.inputs.readers.slide_file import SlideFacts, SlideFile, SlideOptions
from modaltune_jax.inputs.records import Records
from modaltune_jax.inputs.slide_files import read_slide
from modaltune_jax.types import Case, Slide


class Entry(NamedTuple):
    """A slide that was found.

    Attributes:
      slide_id, case_id: `case_id` is `""` if not known.
      path, layout: where it is, and how it is stored.
      key: what `SlideSource.read` takes.
    """

    slide_id: str
    case_id: str
    path: str
    layout: str
    key: Any


@dataclasses.dataclass(frozen=True)
class SlideSource:
    """Slides of one kind.

    Attributes:
      entries: in a fixed order.
      read: from `Entry.key` to the slide and what its file says; can be pickled, and keeps little.
    """

    entries: tuple[Entry, ...]
    read: Callable[[Any], tuple[Slide, SlideFacts]]


def feature_files(
    files: Sequence[SlideFile], options: SlideOptions, case_of: Mapping[str, str]
) -> SlideSource:
    """Feature files; `case_of` need not have every slide."""
    entries = tuple(
        Entry(file.id, case_of.get(file.id, ""), str(file.path), file.layout, file) for file in files
    )
    return SlideSource(entries, functools.partial(read_slide, options=options))


def packed_slides(directory: Path, records: Records) -> SlideSource:
    """The slides of records; a slide's own id is known when its case has been read."""
    entries = tuple(
        Entry(f"{case_id} slide {number + 1}", case_id, str(directory), "records", (row, number))
        for row, (case_id, num_slides) in enumerate(
            zip(records.table["case_id"], records.table["num_slides"], strict=True)
        )
        for number in range(num_slides)
    )
    return SlideSource(entries, functools.partial(_read_packed, directory))


def benchmark_slides(root: Path, cases: Mapping[str, Sequence[Case]]) -> SlideSource:
    """The slides of a TCGA benchmark by cohort."""
    entries = tuple(
        Entry(slide.id, case.id, f"{root}/wsi_hipt/{cohort}.npz", "tcga_bench", (cohort, row, number))
        for cohort, of_cohort in cases.items()
        for row, case in enumerate(of_cohort)
        for number, slide in enumerate(case.slides)
    )
    return SlideSource(entries, functools.partial(_read_benchmark, root))


def _read_packed(directory: Path, key: tuple[int, int]) -> tuple[Slide, SlideFacts]:
    row, number = key
    slide = _packed_case(directory, row).slides[number]
    return slide, _packed_facts(directory).get(slide.id, SlideFacts(encoder=_records(directory).encoder))


def _read_benchmark(root: Path, key: tuple[str, int, int]) -> tuple[Slide, SlideFacts]:
    cohort, row, number = key
    slide = _benchmark_cases(root, cohort)[row].slides[number]
    size = f"{tcga_bench.REGION_SIZE} px, positions invented"
    return slide, SlideFacts(encoder=tcga_bench.ENCODER, magnification=20.0, frame="tile", tile_size=size)


# What neighbouring slides share is read once a process.
@functools.lru_cache(maxsize=1)
def _records(directory: Path) -> Records:
    return Records(directory)


@functools.lru_cache(maxsize=1)
def _packed_case(directory: Path, row: int) -> Case:
    return _records(directory)[row]


@functools.lru_cache(maxsize=1)
def _packed_facts(directory: Path) -> dict[str, SlideFacts]:
    """By slide, from the table that packing leaves beside the records; older records have none."""
    path = directory / "slides.parquet"
    if not path.is_file():
        return {}
    table = pd.read_parquet(path, columns=["slide_id", *SlideFacts._fields])
    table = table.astype(object).where(table.notna(), None).replace({np.nan: None})
    return {row[0]: SlideFacts(*row[1:]) for row in table.itertuples(index=False, name=None)}


@functools.lru_cache(maxsize=1)
def _benchmark_cases(root: Path, cohort: str) -> list[Case]:
    return tcga_bench.read(root, [cohort])[0]

"""Cases on disk: a TFDS data set of ArrayRecord files that needs no TensorFlow, with an index beside it.

A folder of records holds::

    cases-<split>.array_record-*       one example a case, uncompressed; slides of a case stacked
    dataset_info.json, features.json   so that `tfds.builder_from_directory` reads the folder
    index.parquet                      one row a case: site, split, number of tiles, labels
    expression.npy                     `[n, g]` float32, to read expression without the slides
    metadata.json                      genes, gene sets, cohorts, feature width, encoder, counts, format
"""

from __future__ import annotations

import dataclasses
import functools
import itertools
import json
import os
import shutil
import uuid
import zlib
from collections.abc import Iterable, Iterator, Mapping, Sequence, Sized
from pathlib import Path
from typing import Any, SupportsIndex

import numpy as np
import pandas as pd
from jaxtyping import Float, Int, Shaped

from modaltune_jax.inputs.cohort import SPLITS, CohortSpec
from modaltune_jax.inputs.genesets import GeneSets
from modaltune_jax.inputs.storage import examples
from modaltune_jax.inputs.storage.array_record import RecordFiles
from modaltune_jax.inputs.storage.example_bytes import serialize
from modaltune_jax.inputs.storage.record_folder import (
    DESCRIPTION,
    EXPRESSION,
    FORMAT,
    INDEX,
    METADATA,
    NAME,
    Header,
    index_row,
    write_sidecars,
)
from modaltune_jax.inputs.storage.tfds_writer import TfdsWriter, write_dataset_info
from modaltune_jax.types import Case, InputError, Labels

_LABELS = tuple(field.name for field in dataclasses.fields(Labels))
_DTYPES = ("float16", "bfloat16", "float32")


def write(
    directory: str | Path,
    cases: Iterable[Case],
    *,
    genes: Sequence[str],
    gene_sets: GeneSets,
    specs: Sequence[CohortSpec],
    source: str,
    encoder: str,
    variables: Mapping[str, str] | None = None,
    overwrite: bool = False,
    progress: bool = False,
) -> None:
    """Writes cases as records; the directory appears complete or not at all.

    Args:
      directory: to be created.
      cases: read once, one at a time; all features of one width and dtype.
      genes: names in the order of `Case.expression`.
      gene_sets: groups of `genes`.
      specs: one for every site.
      source: where the cases come from, for people.
      encoder: name of the tile encoder that made the features.
      variables: "number" or "category" for every name that `Case.variables` may have.
      overwrite: replace an existing directory.
      progress: show a progress bar.

    Raises:
      InputError: the directory exists, or a case does not fit the others; the message names it.
    """
    directory = Path(directory)
    if directory.exists() and not (overwrite and (directory / METADATA).is_file()):
        what = "is not a folder of records" if overwrite else "exists already"
        raise InputError(
            f"{directory} {what}; remove it, choose another directory, or allow overwriting records"
        )
    temporary = directory.with_name(f".{directory.name}-{uuid.uuid4().hex[:8]}.partial")
    temporary.mkdir(parents=True)
    try:
        header = Header(genes, gene_sets, specs, source, encoder, dict(variables or {}))
        _write_cases(temporary, cases, header, progress)
        _move_into_place(temporary, directory)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _write_cases(directory: Path, cases: Iterable[Case], header: Header, progress: bool) -> None:
    from tqdm import tqdm

    total = len(cases) if isinstance(cases, Sized) else None
    cases, feature_dim, feature_dtype = _feature_layout(cases)
    ids: set[str] = set()
    rows: list[dict[str, Any]] = []
    expression: list[np.ndarray | None] = []
    with TfdsWriter(directory, NAME) as writer:
        for case in tqdm(cases, desc="writing records", unit="case", total=total, disable=not progress):
            _check(case, ids, header, feature_dim, feature_dtype)
            ids.add(case.id)
            writer.add(case.split, b"".join(serialize(examples.encode(case))))
            expression.append(case.expression)
            rows.append(index_row(case, [len(slide.features) for slide in case.slides], len(header.genes)))
        sizes = writer.finish()
    if not rows:
        raise InputError("there are no cases to write as records; check the source and its filters")
    write_dataset_info(
        directory,
        name=NAME,
        version=f"{FORMAT}.0.0",
        description=DESCRIPTION,
        features=examples.features_dict(feature_dim, feature_dtype),
        splits=sizes,
    )
    write_sidecars(directory, rows, expression, feature_dim, feature_dtype, header)


def _feature_layout(cases: Iterable[Case]) -> tuple[Iterable[Case], int, str]:
    """All cases again, and width and dtype of the first slide among them."""
    rest = iter(cases)
    looked_at = []
    for case in rest:
        looked_at.append(case)
        if case.slides:
            features = case.slides[0].features
            return itertools.chain(looked_at, rest), features.shape[1], features.dtype.name
    return looked_at, 0, _DTYPES[0]


def _check(case: Case, ids: set[str], header: Header, feature_dim: int, feature_dtype: str) -> None:
    """What one record must have in common with the others; `cohort.check_cases` looks at the values."""
    if case.id in ids:
        raise InputError(f"case {case.id}: comes twice; join its slides into one case")
    if case.split not in SPLITS:
        raise InputError(f"case {case.id}: split {case.split!r} is none of {', '.join(SPLITS)}")
    sites = {spec.name for spec in header.specs}
    num_genes, variables = len(header.genes), set(header.variables)
    if case.site not in sites:
        raise InputError(f"case {case.id}: site {case.site!r} has no cohort definition among {sorted(sites)}")
    if case.expression is not None and case.expression.shape != (num_genes,):
        raise InputError(
            f"case {case.id}: expression of shape {case.expression.shape} for {num_genes} genes; give every"
            " gene a value, NaN where it was not measured"
        )
    if not set(case.variables) <= variables:
        raise InputError(
            f"case {case.id}: variables {sorted(set(case.variables) - variables)} are not among those"
            f" declared, {sorted(variables)}; say of each whether it is a number or a category"
        )
    for slide in case.slides:
        where = f"case {case.id}, slide {slide.id}"
        shape, dtype = slide.features.shape, slide.features.dtype.name
        if dtype not in _DTYPES or dtype != feature_dtype or shape[1:] != (feature_dim,):
            raise InputError(
                f"{where}: features are {dtype} of shape {shape}, expected {feature_dtype} [tiles,"
                f" {feature_dim}]; take all features from one encoder, in one of {', '.join(_DTYPES)}"
            )
        if slide.coords.shape != (shape[0], 2):
            raise InputError(f"{where}: {shape[0]} tiles but coordinates of shape {slide.coords.shape}")


def _move_into_place(temporary: Path, directory: Path) -> None:
    replaced = directory.with_name(f"{temporary.name}.replaced")
    if directory.exists():
        os.rename(directory, replaced)
    os.rename(temporary, directory)
    shutil.rmtree(replaced, ignore_errors=True)


class Records:
    """Cases on disk, by row number in the order they were written.

    A sequence of `Case` that reads on access, checks every record against its checksum, can be shared by
    threads and pickled. Arrays of a case are read-only.

    Args:
      directory: as `write` made it.

    Attributes:
      table: one row a case, its index the row number: case_id, site, split, num_slides, num_tiles,
        has_expression and the fields of `Labels`.
      lengths: `[n]` int32 tiles per case.
      sites: site names; a case's site index is its position here.
      genes, gene_sets, specs: as written.
      feature_dim: width of the tile features, 0 if no case has slides.
      feature_dtype: of the tile features.
      variables: "number" or "category" for every further clinical value.
      encoder, source: names, as written.

    Raises:
      InputError: no records there, of another format, or damaged.
    """

    def __init__(self, directory: str | Path):
        self.directory = Path(directory)
        metadata = self._read_metadata()
        self.genes: tuple[str, ...] = tuple(metadata["genes"])
        self.gene_sets = GeneSets(
            tuple(metadata["gene_sets"]["names"]),
            tuple(np.asarray(group, np.int32) for group in metadata["gene_sets"]["groups"]),
        )
        self.specs = tuple(
            CohortSpec(**spec | {"projects": tuple(spec["projects"]), "classes": tuple(spec["classes"])})
            for spec in metadata["specs"]
        )
        self.sites = tuple(spec.name for spec in self.specs)
        self.feature_dim: int = metadata["feature_dim"]
        self.feature_dtype = np.dtype(metadata["feature_dtype"])
        self.encoder: str = metadata["encoder"]
        self.source: str = metadata["source"]
        self.variables: dict[str, str] = metadata["variables"]
        self.table = self._read_table(metadata["index_crc32"])
        self._expression_xxh3 = self.table.pop("expression_xxh3").tolist()
        self._variables = [json.loads(text) for text in self.table.pop("variables")]
        self._labels = [Labels(**row) for row in self.table[list(_LABELS)].to_dict("records")]
        self._position = self.table.groupby("split").cumcount().to_numpy()
        self.lengths: Int[np.ndarray, "n"] = self.table["num_tiles"].to_numpy(np.int32)

    @property
    def num_cases(self) -> int:
        """Number of cases in all splits."""
        return len(self.table)

    def rows(self, split: str, site: str | None = None) -> Int[np.ndarray, "c"]:
        """Row numbers of a split, of one site or of all."""
        chosen = self.table["split"] == split
        if site is not None:
            chosen &= self.table["site"] == site
        return np.flatnonzero(chosen).astype(np.int32)

    def labels(self, i: SupportsIndex) -> Labels:
        """Labels of case i, without reading its record."""
        return self._labels[i]

    def without_slides(self, i: SupportsIndex) -> Case:
        """Case i with its expression and labels but no slides: for whatever needs no features.

        Raises:
          InputError: the expression is damaged.
        """
        row = self.table.iloc[i]
        expression = None
        if row["has_expression"]:
            expression = np.asarray(self._expression[i])
            if examples.array_checksum(expression) != self._expression_xxh3[i]:
                raise InputError(self._damage(i, "its expression has another checksum than was written"))
        return Case(
            row["case_id"], row["site"], row["split"], (), expression, self.labels(i), self._variables[i]
        )

    def __len__(self) -> int:
        return self.num_cases

    def __iter__(self) -> Iterator[Case]:
        return (self[i] for i in range(self.num_cases))

    def __getitem__(self, i: SupportsIndex) -> Case:
        return self.read(i, np.empty((self.lengths[i], self.feature_dim), self.feature_dtype))

    def read(self, i: SupportsIndex, out: Shaped[np.ndarray, "l d"]) -> Case:
        """Case i, its tile features in memory of the caller, e.g. rows of a batch.

        Args:
          i: row number.
          out: contiguous, a row for every tile; of any dtype, to which features are cast. It must not change
            while the case is in use.

        Raises:
          InputError: the record is damaged or missing.
        """
        if not out.flags.c_contiguous:
            raise ValueError("tile features can only be read into contiguous memory")
        case_id, split = self.table.at[i, "case_id"], self.table.at[i, "split"]
        try:
            with self._files[split].open(int(self._position[i])) as record:
                case = examples.decode(record, self._fields, self.feature_dtype, out)
        except (OSError, ValueError) as error:
            raise InputError(self._damage(i, str(error).strip().partition("\n")[0])) from error
        if case.id != case_id:
            raise InputError(self._damage(i, f"its place holds case {case.id}"))
        return case

    def verify(self, progress: bool = False) -> None:
        """Reads every case and compares it with its checksums and its row.

        Raises:
          InputError: the first case that is damaged.
        """
        from tqdm import tqdm

        for i in tqdm(range(self.num_cases), desc="verifying", unit="case", disable=not progress):
            self[i]
            self.without_slides(i)

    def __reduce__(self) -> tuple[Any, ...]:
        return Records, (self.directory,)

    @functools.cached_property
    def _files(self) -> dict[str, RecordFiles]:
        """The files of every split."""
        import tensorflow_datasets as tfds

        splits = tfds.builder_from_directory(str(self.directory)).info.splits
        return {
            name: RecordFiles([Path(path) for path in split.filepaths], split.shard_lengths)
            for name, split in splits.items()
        }

    @functools.cached_property
    def _fields(self) -> Any:
        return examples.fields_dict()

    @functools.cached_property
    def _expression(self) -> Float[np.ndarray, "n g"]:
        return np.load(self.directory / EXPRESSION, mmap_mode="r")

    def _read_metadata(self) -> dict[str, Any]:
        path = self.directory / METADATA
        if not path.is_file():
            raise InputError(
                f"{self.directory} holds no records ({METADATA} is missing); write them first,"
                " see data/README.md"
            )
        try:
            metadata = json.loads(path.read_text(encoding="utf-8"))
        except ValueError as error:
            raise InputError(f"{path} is damaged ({error}); write the records again") from error
        if metadata["format"] != FORMAT:
            raise InputError(
                f"{self.directory} holds records of format {metadata['format']}, this version reads {FORMAT};"
                " write the records again"
            )
        return metadata

    def _read_table(self, crc32: int) -> pd.DataFrame:
        path = self.directory / INDEX
        if not path.is_file() or zlib.crc32(path.read_bytes()) != crc32:
            raise InputError(f"{path} is missing or damaged; write the records again")
        return pd.read_parquet(path).rename_axis("index")

    def _damage(self, i: SupportsIndex, reason: str) -> str:
        return f"case {self.table.at[i, 'case_id']} in {self.directory}: {reason}; write the records again"

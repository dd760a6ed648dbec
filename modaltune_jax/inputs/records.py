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
from jaxtyping import Float, Int

from modaltune_jax.inputs import examples
from modaltune_jax.inputs.cohort import SPLITS, CohortSpec
from modaltune_jax.inputs.genesets import GeneSets
from modaltune_jax.inputs.tfds_writer import TfdsWriter
from modaltune_jax.types import Case, InputError, Labels

FORMAT = 2
"""Raised whenever code that reads an older format could not read what `write` writes."""

_INDEX = "index.parquet"
_EXPRESSION = "expression.npy"
_METADATA = "metadata.json"
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
    if directory.exists() and not (overwrite and (directory / _METADATA).is_file()):
        what = "is not a folder of records" if overwrite else "exists already"
        raise InputError(
            f"{directory} {what}; remove it, choose another directory, or allow overwriting records"
        )
    temporary = directory.with_name(f".{directory.name}-{uuid.uuid4().hex[:8]}.partial")
    temporary.mkdir(parents=True)
    try:
        counts = _write_cases(temporary, cases, genes, specs, set(variables or {}), progress)
        metadata = {
            "format": FORMAT,
            "source": source,
            "encoder": encoder,
            "variables": dict(variables or {}),
            **counts,
            "genes": list(genes),
            "gene_sets": {"names": gene_sets.names, "groups": [group.tolist() for group in gene_sets.groups]},
            "specs": [dataclasses.asdict(spec) for spec in specs],
        }
        (temporary / _METADATA).write_text(json.dumps(metadata, indent=1), encoding="utf-8")
        _move_into_place(temporary, directory)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _write_cases(
    directory: Path,
    cases: Iterable[Case],
    genes: Sequence[str],
    specs: Sequence[CohortSpec],
    variables: set[str],
    progress: bool,
) -> dict[str, Any]:
    """Writes everything but the metadata, and returns what only the cases can tell of it."""
    from tqdm import tqdm

    total = len(cases) if isinstance(cases, Sized) else None
    cases, feature_dim, feature_dtype = _feature_layout(cases)
    sites = {spec.name for spec in specs}
    ids: set[str] = set()
    rows: list[dict[str, Any]] = []
    expression: list[np.ndarray] = []
    with TfdsWriter(
        directory,
        name="cases",
        version=f"{FORMAT}.0.0",
        description="Cases of modaltune_jax: tile features of all slides, expression, labels.",
        features=examples.features_dict(feature_dim, feature_dtype),
    ) as writer:
        for case in tqdm(cases, desc="writing records", unit="case", total=total, disable=not progress):
            _check(case, ids, sites, len(genes), variables, feature_dim, feature_dtype)
            ids.add(case.id)
            writer.add(case.split, examples.encode(case, feature_dim, feature_dtype))
            measured = np.full(len(genes), np.nan) if case.expression is None else case.expression
            expression.append(measured.astype(np.float32))
            rows.append(_index_row(case, examples.array_checksum(expression[-1])))
        writer.finish()
    if not rows:
        raise InputError("there are no cases to write as records; check the source and its filters")
    if genes:
        np.save(directory / _EXPRESSION, np.stack(expression))
    table = pd.DataFrame(rows)
    table.to_parquet(directory / _INDEX, index=False)
    return {
        "num_cases": len(table),
        "num_tiles": int(table["num_tiles"].sum()),
        "splits": table["split"].value_counts(sort=False).to_dict(),
        "feature_dim": feature_dim,
        "feature_dtype": feature_dtype,
        "index_crc32": zlib.crc32((directory / _INDEX).read_bytes()),
    }


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


def _check(
    case: Case,
    ids: set[str],
    sites: set[str],
    num_genes: int,
    variables: set[str],
    feature_dim: int,
    feature_dtype: str,
) -> None:
    """What one record must have in common with the others; `cohort.check_cases` looks at the values."""
    if case.id in ids:
        raise InputError(f"case {case.id}: comes twice; join its slides into one case")
    if case.split not in SPLITS:
        raise InputError(f"case {case.id}: split {case.split!r} is none of {', '.join(SPLITS)}")
    if case.site not in sites:
        raise InputError(f"case {case.id}: site {case.site!r} has no cohort definition among {sorted(sites)}")
    if case.expression is not None and case.expression.shape != (num_genes,):
        raise InputError(
            f"case {case.id}: expression of shape {case.expression.shape} for {num_genes} genes; give every"
            " gene a value, NaN where it was not measured"
        )
    if not set(case.variables) <= variables:
        raise InputError(
            f"case {case.id}: variables {sorted(set(case.variables) - variables)} are not among those declared,"
            f" {sorted(variables)}; say of each whether it is a number or a category"
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


def _index_row(case: Case, expression_crc32: int) -> dict[str, Any]:
    return {
        "case_id": case.id,
        "site": case.site,
        "split": case.split,
        "num_slides": len(case.slides),
        "num_tiles": sum(len(slide.features) for slide in case.slides),
        "has_expression": case.expression is not None,
        "expression_crc32": expression_crc32,
        "variables": json.dumps(dict(case.variables)),
        **dataclasses.asdict(case.labels),
    }


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
        self.encoder: str = metadata["encoder"]
        self.source: str = metadata["source"]
        self.variables: dict[str, str] = metadata["variables"]
        self.table = self._read_table(metadata["index_crc32"])
        self._expression_crc32 = self.table.pop("expression_crc32").to_numpy()
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
            if examples.array_checksum(expression) != self._expression_crc32[i]:
                raise InputError(self._damage(i, "its expression has another checksum than was written"))
        return Case(
            row["case_id"], row["site"], row["split"], (), expression, self.labels(i), self._variables[i]
        )

    def __len__(self) -> int:
        return self.num_cases

    def __iter__(self) -> Iterator[Case]:
        return (self[i] for i in range(self.num_cases))

    def __getitem__(self, i: SupportsIndex) -> Case:
        case_id, split = self.table.at[i, "case_id"], self.table.at[i, "split"]
        try:
            example = self._sources[split][int(self._position[i])]
        except (OSError, RuntimeError) as error:  # what ArrayRecord raises for missing and damaged files
            raise InputError(self._damage(i, str(error).splitlines()[0])) from error
        case = examples.decode(example)
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
            num_tiles = sum(len(slide.features) for slide in self[i].slides)
            if num_tiles != self.lengths[i]:
                raise InputError(
                    self._damage(i, f"it has {num_tiles} tiles where the index says {self.lengths[i]}")
                )
            self.without_slides(i)

    def __reduce__(self) -> tuple[Any, ...]:
        return Records, (self.directory,)

    @functools.cached_property
    def _sources(self) -> dict[str, Any]:
        import tensorflow_datasets as tfds

        builder = tfds.builder_from_directory(str(self.directory))
        return {split: builder.as_data_source(split) for split in builder.info.splits}

    @functools.cached_property
    def _expression(self) -> Float[np.ndarray, "n g"]:
        return np.load(self.directory / _EXPRESSION, mmap_mode="r")

    def _read_metadata(self) -> dict[str, Any]:
        path = self.directory / _METADATA
        if not path.is_file():
            raise InputError(
                f"{self.directory} holds no records ({_METADATA} is missing); write them first,"
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
        path = self.directory / _INDEX
        if not path.is_file() or zlib.crc32(path.read_bytes()) != crc32:
            raise InputError(f"{path} is missing or damaged; write the records again")
        return pd.read_parquet(path).rename_axis("index")

    def _damage(self, i: SupportsIndex, reason: str) -> str:
        return f"case {self.table.at[i, 'case_id']} in {self.directory}: {reason}; write the records again"

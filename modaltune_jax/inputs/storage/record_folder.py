"""What lies beside the records in their folder: index, expression, metadata."""

from __future__ import annotations

import dataclasses
import json
import zlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from modaltune_jax.inputs.cohort import CohortSpec
from modaltune_jax.inputs.genesets import GeneSets
from modaltune_jax.inputs.storage import examples
from modaltune_jax.packing.planned_case import PlannedCase
from modaltune_jax.types import Case

FORMAT = 3
"""Raised whenever code that reads an older format could not read what is written now."""

NAME = "cases"
DESCRIPTION = "Cases of modaltune_jax: tile features of all slides, expression, labels."

INDEX = "index.parquet"
EXPRESSION = "expression.npy"
METADATA = "metadata.json"


@dataclasses.dataclass(frozen=True, eq=False)
class Header:
    """What is known of records before a case is read.

    Attributes:
      genes: names in the order of `Case.expression`.
      gene_sets: groups of `genes`.
      specs: one for every site.
      source: where the cases come from, for people.
      encoder: name of the tile encoder that made the features.
      variables: "number" or "category" for every name that `Case.variables` may have.
    """

    genes: Sequence[str]
    gene_sets: GeneSets
    specs: Sequence[CohortSpec]
    source: str
    encoder: str
    variables: Mapping[str, str]


def index_row(case: Case | PlannedCase, slide_lengths: Sequence[int], num_genes: int) -> dict[str, Any]:
    """The row of a case in the index; `slide_lengths` are the tiles of its slides in the record."""
    return {
        "case_id": case.id,
        "site": case.site,
        "split": case.split,
        "num_slides": len(slide_lengths),
        "num_tiles": sum(slide_lengths),
        "has_expression": case.expression is not None,
        "expression_xxh3": examples.array_checksum(_measured(case.expression, num_genes)),
        "variables": json.dumps(dict(case.variables)),
        **dataclasses.asdict(case.labels),
    }


def write_sidecars(
    directory: Path,
    rows: Sequence[Mapping[str, Any]],
    expression: Sequence[np.ndarray | None],
    feature_dim: int,
    feature_dtype: str,
    header: Header,
) -> None:
    """Writes what lies beside the records; the metadata, which makes them records, last.

    Args:
      directory: of the records.
      rows: `index_row` of every case, in their order.
      expression: of every case, in the same order.
      feature_dim, feature_dtype: of the tile features.
      header: as said.
    """
    num_genes = len(header.genes)
    if num_genes:
        shape = (len(rows), num_genes)
        table = np.lib.format.open_memmap(directory / EXPRESSION, "w+", np.dtype(np.float32), shape)
        for row, values in enumerate(expression):
            table[row] = _measured(values, num_genes)
        table.flush()
    index = pd.DataFrame(rows)
    index.to_parquet(directory / INDEX, index=False)
    metadata = {
        "format": FORMAT,
        "source": header.source,
        "encoder": header.encoder,
        "variables": dict(header.variables),
        "num_cases": len(index),
        "num_tiles": int(index["num_tiles"].sum()),
        "splits": index["split"].value_counts(sort=False).to_dict(),
        "feature_dim": feature_dim,
        "feature_dtype": feature_dtype,
        "index_crc32": zlib.crc32((directory / INDEX).read_bytes()),
        "genes": list(header.genes),
        "gene_sets": {
            "names": header.gene_sets.names,
            "groups": [group.tolist() for group in header.gene_sets.groups],
        },
        "specs": [dataclasses.asdict(spec) for spec in header.specs],
    }
    (directory / METADATA).write_text(json.dumps(metadata, indent=1), encoding="utf-8")


def _measured(expression: np.ndarray | None, num_genes: int) -> np.ndarray:
    """Values as they are stored: NaN where nothing was measured."""
    if expression is None:
        return np.full(num_genes, np.nan, np.float32)
    return expression.astype(np.float32, copy=False)

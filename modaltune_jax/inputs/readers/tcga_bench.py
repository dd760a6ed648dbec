"""Reader of the compact TCGA benchmark: published splits, HIPT region features, expression tables.

Layout under the root::

    splits/<cohort>.csv       one row a case: labels, split, slide barcodes
    wsi_hipt/<cohort>.npz     q uint8 [n, 192] with x = q * scale + lo; start, n, slide per slide
    rna/<cohort>.parquet      case_id and one column a gene or signature score
    rna/pancan_sig_dec.parquet    119 scores for the cases of all cohorts, on one scale

One row of features is the embedding of a region of 4096 px at 20x by HIPT's region encoder.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pandas as pd
from jaxtyping import Float, Int

from modaltune_jax.inputs.cohort import CohortSpec, clean_diagnosis, find_spec
from modaltune_jax.types import Case, InputError, Labels, Slide

REGION_SIZE = 4096
"""Side of a region in pixels, taken as level-0 pixels."""

ENCODER = "hipt-vit4096-256"

_PANCAN = "pancan_sig_dec"
_LABEL_COLUMNS = (
    *("case_id", "split", "primary_class", "primary_diagnosis", "vital_status", "durations_months"),
    *("stage", "T", "N", "M", "age", "slide_ids"),
)
# Z-scores computed on non-log values, with a heavy right tail.
_Z_SCORE_TABLES = ("rna/brca.parquet",)


def read(root: str | Path, cohorts: Sequence[str], expression: str = _PANCAN) -> tuple[list[Case], list[str]]:
    """All cases of `cohorts` with the published splits; cases without slides or expression are kept.

    The source has no coordinates. Regions are laid out on an invented square grid, `pseudo_grid`: good for
    running an encoder that wants positions, not for anything about tissue architecture.

    Args:
      root: folder with the layout above.
      cohorts: e.g. ("brca", "rcc"); each needs a cohort definition.
      expression: "pancan_sig_dec" for the joint table of scores; "own" for each cohort's own genes, whose
        units differ between cohorts, so use it for one cohort at a time; or the path of a parquet file
        relative to root.

    Returns:
      The cases, in the order of the split files, and the genes: the columns of the tables used, in order of
      first appearance. Genes that a case's table lacks are NaN. Z-scores are compressed by sign * log1p.

    Raises:
      InputError: a file or column is missing, a cohort is unknown, or a value is not a number.
    """
    root = Path(root)
    paths = {cohort: _expression_path(cohort, expression) for cohort in cohorts}
    tables = {path: _read_expression(root, path) for path in dict.fromkeys(paths.values())}
    genes = list(dict.fromkeys(gene for table in tables.values() for gene in table.columns))
    rows = {path: _rows(table, genes) for path, table in tables.items()}
    cases = [
        case
        for cohort in cohorts
        for case in _read_cohort(root, find_spec(cohort), cohort, rows[paths[cohort]])
    ]
    return cases, genes


def pseudo_grid(num_regions: int) -> Int[np.ndarray, "l 2"]:
    """Invented level-0 coordinates (x, y): regions fill a square column by column.

    >>> pseudo_grid(3).tolist()
    [[0, 0], [0, 4096], [4096, 0]]
    """
    side = math.isqrt(max(num_regions - 1, 0)) + 1
    index = np.arange(num_regions)
    return (np.stack([index // side, index % side], axis=1) * REGION_SIZE).astype(np.int32)


def _read_cohort(
    root: Path, spec: CohortSpec, cohort: str, expression: Mapping[str, Float[np.ndarray, "g"]]
) -> list[Case]:
    path = _existing(root / "splits" / f"{cohort}.csv")
    table = pd.read_csv(path, dtype=str, keep_default_na=False)
    absent = [column for column in _LABEL_COLUMNS if column not in table]
    if absent:
        raise InputError(f"{path}: lacks the columns {absent}; take the split file of the benchmark as it is")
    slides = _read_slides(root / "wsi_hipt" / f"{cohort}.npz")
    cases = []
    for row in table.to_dict("records"):
        try:
            labels = _labels(row, spec)
        except ValueError as error:
            raise InputError(
                f"{path}: case {row['case_id']}: {error}; correct the cell or leave it empty"
            ) from None
        cases.append(
            Case(
                id=row["case_id"],
                site=spec.name,
                split=row["split"],
                slides=tuple(slides[id] for id in row["slide_ids"].split(";") if id in slides),
                expression=expression.get(row["case_id"]),
                labels=labels,
            )
        )
    return cases


def _labels(row: Mapping[str, str], spec: CohortSpec) -> Labels:
    return Labels(
        diagnosis=clean_diagnosis(row["primary_diagnosis"], spec),
        subtype=int(row["primary_class"]),
        time=float(row["durations_months"] or "nan"),
        event=int(row["vital_status"] or -1),
        stage=row["stage"],
        t=row["T"],
        n=row["N"],
        m=row["M"],
        age=float(row["age"] or "nan"),
    )


def _read_slides(path: Path) -> dict[str, Slide]:
    with np.load(_existing(path)) as file:
        features = (file["q"].astype(np.float32) * file["scale"] + file["lo"]).astype(np.float16)
        index = zip(file["slide"].tolist(), file["start"].tolist(), file["n"].tolist(), strict=True)
    return {
        id: Slide(id, features[start : start + num_regions], pseudo_grid(num_regions), REGION_SIZE)
        for id, start, num_regions in index
    }


def _expression_path(cohort: str, expression: str) -> str:
    if expression.endswith(".parquet"):
        return expression
    if expression not in ("own", _PANCAN):
        raise InputError(
            f"expression {expression!r} is not known; write own, {_PANCAN} or a path ending in .parquet"
        )
    return f"rna/{cohort if expression == 'own' else _PANCAN}.parquet"


def _read_expression(root: Path, relative: str) -> pd.DataFrame:
    path = _existing(root / relative)
    table = pd.read_parquet(path)
    if "case_id" not in table:
        raise InputError(f"{path}: lacks the column case_id; add it, one row a case")
    table = table.set_index("case_id").astype(np.float32)
    if not table.index.is_unique:
        raise InputError(
            f"{path}: case {table.index[table.index.duplicated()][0]} is there twice; keep one row a case"
        )
    return np.sign(table) * np.log1p(table.abs()) if relative in _Z_SCORE_TABLES else table


def _rows(table: pd.DataFrame, genes: list[str]) -> dict[str, Float[np.ndarray, "g"]]:
    values = table.reindex(columns=genes).to_numpy(np.float32)
    return dict(zip(table.index, values, strict=True))


def _existing(path: Path) -> Path:
    if not path.is_file():
        raise InputError(f"{path}: no such file; give the root of the benchmark and one of its cohorts")
    return path

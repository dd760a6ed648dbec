"""Expression with cases in rows and genes in columns: CSV, TSV or parquet, SurvPath's and MCAT's tables."""

from __future__ import annotations

import collections
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pandas as pd
from jaxtyping import Float

from modaltune_jax.inputs.barcodes import is_barcode
from modaltune_jax.inputs.counts import Count, some
from modaltune_jax.inputs.table_file import separator
from modaltune_jax.inputs.tables.expression import ExpressionTable, GeneRows
from modaltune_jax.inputs.tables.gene_symbols import GeneSymbols
from modaltune_jax.inputs.tables.number_file import NumberFile
from modaltune_jax.inputs.tables.samples import choose_samples
from modaltune_jax.inputs.text_file import READ_ERRORS, existing, unreadable
from modaltune_jax.types import InputError

_KEY = "case_id"
_MCAT_SUFFIX = "_rnaseq"


def read_csv(path: Path, symbols: GeneSymbols) -> ExpressionTable:
    """The first column, or that named case_id, has the cases; all others are genes.

    Raises:
      InputError: the file is missing or damaged, has cases in columns, a cell is no number, or rows of one
        case differ.
    """
    return _read_text(path, symbols, lambda column: column)


def read_mcat(path: Path, symbols: GeneSymbols) -> ExpressionTable:
    """The columns that end in _rnaseq; the rows of a case, one a slide, say the same.

    Raises:
      InputError: as `read_csv`, or there are no such columns.
    """
    return _read_text(
        path,
        symbols,
        lambda column: column.removesuffix(_MCAT_SUFFIX) if column.endswith(_MCAT_SUFFIX) else None,
    )


def read_parquet(path: Path, symbols: GeneSymbols) -> ExpressionTable:
    """As `read_csv`; the cases may be the index.

    Raises:
      InputError: as `read_csv`.
    """
    existing(path)
    try:
        frame = pd.read_parquet(path)
    except READ_ERRORS as error:
        raise unreadable(path, error) from None
    if _KEY in frame:
        frame = frame.set_index(_KEY)
    elif isinstance(frame.index, pd.RangeIndex):
        raise InputError(f"{path}: has no column {_KEY} and no index of cases; add one")
    texts = [column for column in frame if not pd.api.types.is_numeric_dtype(frame[column])]
    if texts:
        raise InputError(f"{path}: column {texts[0]!r} is no number; keep {_KEY} and genes only")
    header, names = [str(column) for column in frame], [str(name).strip() for name in frame.index]
    found = {column: symbols.symbol(name) for column, name in enumerate(header)}
    wanted = [column for column, symbol in found.items() if symbol]
    _check_direction(path, names, header, symbols)
    return _table(
        path, names, frame.iloc[:, wanted].to_numpy(np.float32), [found[i] for i in wanted], symbols
    )


def _read_text(path: Path, symbols: GeneSymbols, gene_of: Callable[[str], str | None]) -> ExpressionTable:
    file = NumberFile(path, separator(existing(path)))
    header = file.header
    key = header.index(_KEY) if _KEY in header else 0
    genes = {column: gene_of(name) for column, name in enumerate(header) if column != key}
    found = {column: symbols.symbol(gene) for column, gene in genes.items() if gene is not None}
    if not found:
        raise InputError(f"{path}: has no columns of expression beside {header[key]!r}; give another file")
    wanted = [column for column, symbol in found.items() if symbol]
    names: list[str] = []
    parts = [np.zeros((0, len(wanted)), np.float32)]
    for block in file.blocks(key, wanted):
        names += block.names
        parts.append(block.values)
    _check_direction(path, names, header, symbols)
    return _table(path, names, np.concatenate(parts), [found[column] for column in wanted], symbols)


def _check_direction(path: Path, names: Sequence[str], header: Sequence[str], symbols: GeneSymbols) -> None:
    has_barcodes = not any(map(is_barcode, names)) and any(map(is_barcode, header))
    if has_barcodes or (symbols.are_wanted(names) and not symbols.are_wanted(header)):
        raise InputError(f"{path}: has cases in columns; read it with xena:, csv: is for cases in rows")


def _table(
    path: Path,
    names: Sequence[str],
    values: Float[np.ndarray, "r g"],
    genes: Sequence[str],
    symbols: GeneSymbols,
) -> ExpressionTable:
    if "" in names:
        raise InputError(
            f"{path}: row {list(names).index('') + 1} names no case; fill the cell or drop the row"
        )
    first = _first_rows(path, names, values, genes)
    counts: tuple[Count, ...] = ()
    if len(first) < len(names):
        repeated = some(name for name, times in collections.Counter(names).items() if times > 1)
        text = "rows of one name have the same values"
        counts = (Count("rows of expression to samples", len(names), len(first), text, repeated),)
    chosen, sample_counts = choose_samples(first)
    rows = GeneRows(list(chosen), str(path))
    ordered = values[[first[sample] for sample in chosen.values()]]
    for gene, column in zip(genes, ordered.T, strict=True):
        rows.add(gene, column)
    return rows.table(counts + sample_counts + symbols.counts())


def _first_rows(
    path: Path, names: Sequence[str], values: Float[np.ndarray, "r g"], genes: Sequence[str]
) -> dict[str, int]:
    """The first row of every name; the others of a name must equal it."""
    first: dict[str, int] = {}
    for row, name in enumerate(names):
        start = first.setdefault(name, row)
        is_same = (values[row] == values[start]) | np.isnan(values[row]) & np.isnan(values[start])
        if not is_same.all():
            raise InputError(
                f"{path}: case {name} has rows that differ, first in {genes[int(np.argmin(is_same))]}; keep"
                " one row"
            )
    return first

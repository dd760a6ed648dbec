"""Large tables of numbers as text, read in blocks of rows."""

from __future__ import annotations

import csv
import itertools
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd
from jaxtyping import Float

from modaltune_jax.inputs.counts import plural
from modaltune_jax.inputs.table_file import clean, read_header
from modaltune_jax.inputs.text_file import READ_ERRORS, open_text, unreadable
from modaltune_jax.types import InputError

# Errors of the file; other ValueErrors are of a cell.
_DAMAGED = (pd.errors.ParserError, pd.errors.EmptyDataError, UnicodeError)

# What pandas reads as missing at full speed; other words for it cost a second look.
_MISSING = ("", "NA", "N/A", "NaN", "nan", "null", "#N/A")


class Block(NamedTuple):
    """Some rows of a table.

    Attributes:
      names: of the rows.
      values: `[rows, columns]`, NaN where missing.
    """

    names: list[str]
    values: Float[np.ndarray, "r c"]


class NumberFile:
    """A text table of numbers: one line of names, and one column of names.

    Args:
      path: gzipped, zipped or not.
      sep: between cells.

    Attributes:
      header: names of all columns, as written; a name may be there twice.

    Raises:
      InputError: the file is missing or damaged.
    """

    def __init__(self, path: Path, sep: str):
        self._path, self._sep = path, sep
        self.header = read_header(path, sep)

    def blocks(self, key: int, wanted: Sequence[int], num_rows: int = 1000) -> Iterator[Block]:
        """Reads some columns, `num_rows` rows at a time.

        Args:
          key: position of the column with the names of the rows.
          wanted: positions of the columns of numbers, in the order of the result.
          num_rows: in a block.

        Raises:
          InputError: the file is damaged, or a cell is no number.
        """
        num_read = 0
        try:
            with self._open(key, wanted, num_rows) as blocks:
                for block in blocks:
                    names = [name.strip() for name in block[key]]
                    yield Block(names, block[list(wanted)].to_numpy(np.float32))
                    num_read += len(names)
        except READ_ERRORS as error:
            if isinstance(error, _DAMAGED) or not isinstance(error, ValueError):
                raise unreadable(self._path, error) from None
        else:
            return
        # A cell is no number as it stands: from this block on, cells are read one by one.
        try:
            yield from self._slow_blocks(key, wanted, num_rows, num_read)
        except READ_ERRORS as error:
            raise (error if isinstance(error, InputError) else unreadable(self._path, error)) from None

    def _open(self, key: int, wanted: Sequence[int], num_rows: int) -> pd.io.parsers.TextFileReader:
        # Numbers as labels: names may be there twice, and pandas would rename the second.
        return pd.read_csv(
            self._path,
            sep=self._sep,
            header=0,
            names=range(len(self.header)),
            usecols=[key, *wanted],
            keep_default_na=False,
            chunksize=num_rows,
            dtype={key: str, **dict.fromkeys(wanted, np.float32)},
            na_values={column: list(_MISSING) for column in wanted},
        )

    def _slow_blocks(self, key: int, wanted: Sequence[int], num_rows: int, num_read: int) -> Iterator[Block]:
        """The blocks after `num_read` rows, with every word for "missing", and a sentence for other words."""
        with open_text(self._path) as file:
            filled = (row for row in csv.reader(file, delimiter=self._sep) if row)
            rows = itertools.islice(filled, 1 + num_read, None)
            while block := list(itertools.islice(rows, num_rows)):
                names = [row[key].strip() if key < len(row) else "" for row in block]
                yield Block(names, self._numbers(block, names, wanted))

    def _numbers(
        self, rows: list[list[str]], names: list[str], wanted: Sequence[int]
    ) -> Float[np.ndarray, "r c"]:
        values = np.empty((len(rows), len(wanted)), np.float32)
        wrong: list[tuple[str, str, str]] = []
        for name, row, into in zip(names, rows, values, strict=True):
            cells = [row[column] if column < len(row) else "" for column in wanted]
            into[:] = pd.to_numeric(np.asarray(cells, object), errors="coerce")
            for place in np.flatnonzero(np.isnan(into)).tolist():
                if clean(cells[place]):
                    wrong.append((cells[place].strip(), name, self.header[wanted[place]]))
        if wrong:
            cell, name, column = wrong[0]
            more = f"; so are {plural(len(wrong) - 1, 'cell')} more near it" if len(wrong) > 1 else ""
            raise InputError(
                f"{self._path}: {cell!r} is no number (row {name}, column {column}{more}); correct the cell,"
                " or drop what is no gene"
            )
        return values

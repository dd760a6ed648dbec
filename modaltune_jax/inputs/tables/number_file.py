"""Large tables of numbers as text, read in blocks of rows."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from jaxtyping import Float

from modaltune_jax.inputs.tables.table_file import READ_ERRORS, clean, read_header, unreadable
from modaltune_jax.types import InputError

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
        types = {key: str, **dict.fromkeys(wanted, np.float32)}
        missing = {column: list(_MISSING) for column in wanted}
        try:
            with self._open([key, *wanted], num_rows, dtype=types, na_values=missing) as blocks:
                for block in blocks:
                    names = [name.strip() for name in block[key]]
                    yield Block(names, block[list(wanted)].to_numpy(np.float32))
        except READ_ERRORS as error:
            raise self._explain(key, wanted, num_rows, error) from None

    def _open(self, columns: Sequence[int], num_rows: int, **options: Any) -> pd.io.parsers.TextFileReader:
        # Numbers as labels: names may be there twice, and pandas would rename the second.
        return pd.read_csv(
            self._path,
            sep=self._sep,
            header=0,
            names=range(len(self.header)),
            usecols=list(columns),
            keep_default_na=False,
            chunksize=num_rows,
            **options,
        )

    def _explain(self, key: int, wanted: Sequence[int], num_rows: int, error: Exception) -> InputError:
        """Finds the cell that is no number; reads the file again, for the sentence only."""
        try:
            with self._open([key, *wanted], num_rows, dtype=str) as blocks:
                for block in blocks:
                    for column in wanted:
                        texts = block[column].map(clean)
                        is_wrong = (texts != "") & pd.to_numeric(texts, errors="coerce").isna()
                        if is_wrong.any():
                            row = block[key][is_wrong].iloc[0]
                            return InputError(
                                f"{self._path}: {texts[is_wrong].iloc[0]!r} is no number (row {row}, column"
                                f" {self.header[column]}); correct the cell, or drop what is no gene"
                            )
        except READ_ERRORS:
            return unreadable(self._path, error)
        return unreadable(self._path, error)

"""One's own table of labels: CSV, TSV or Excel, its columns named by a columns file or as we name them."""

from __future__ import annotations

from modaltune_jax.inputs.table_file import read_table, split_sheet
from modaltune_jax.inputs.tables.columns import COLUMN_KEYS, Columns
from modaltune_jax.inputs.tables.labels import LabelSource


def read(path: str) -> LabelSource:
    """Cells as written, of which the columns named as `COLUMN_KEYS` hold what they say.

    Args:
      path: a table; of a workbook with several sheets, FILE.xlsx#SHEET.
    """
    file, sheet = split_sheet(path)
    table = read_table(file, sheet, verbatim=True)
    return LabelSource(table, Columns({key: key for key in COLUMN_KEYS if key in table}), str(file))

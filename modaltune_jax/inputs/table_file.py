"""Tables on disk as text: CSV, TSV and Excel; whatever a source writes for "missing" becomes ""."""

from __future__ import annotations

import collections
import csv
import itertools
import math
import os
import re
from collections.abc import Callable
from pathlib import Path

import pandas as pd

from modaltune_jax.inputs.ajcc import NOT_GIVEN
from modaltune_jax.inputs.text_file import READ_ERRORS, existing, open_text, unreadable
from modaltune_jax.types import InputError

# "None" is an answer in many columns: no progression, no smoking.
_MISSING = (NOT_GIVEN - {"none"}) | {
    *("#n/a", "<na>", "null", "not applicable", "not allowed to collect", "discrepancy")
}
_UNNAMED = "Unnamed: "
_TEXT_FILE = re.compile(r"\.(csv|tsv|txt)(\.(gz|zip))?$", re.IGNORECASE)
_EXCEL_FILE = re.compile(r"\.(xlsx|xlsm)$", re.IGNORECASE)
_NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)(e[+-]?\d+)?", re.IGNORECASE | re.ASCII)
_SEPARATORS = {",": "commas", ";": "semicolons", "\t": "tabs", "|": "vertical bars"}


def is_table(name: str) -> bool:
    """Whether a file is a table by its ending; of a workbook, FILE.xlsx#SHEET too."""
    name = split_sheet(name)[0].name
    return bool(_TEXT_FILE.search(name) or _EXCEL_FILE.search(name))


def split_sheet(path: str) -> tuple[Path, str]:
    """Path and what stands after "#": the sheet of a workbook or the fold of a task; `""` if nothing does."""
    if Path(path).exists():
        return Path(path), ""
    name, _, part = path.partition("#")
    return Path(name), part


def is_missing(value: str) -> bool:
    """Whether a cell says that nothing is known: empty, "'--", "[Not Available]", "NA" and their kin."""
    return value.strip().strip("[]").lower() in _MISSING


def read_table(
    path: Path,
    sheet: str = "",
    *,
    keep: Callable[[str], bool] | None = None,
    otherwise: str = "",
    verbatim: bool = False,
    skip: int = 0,
) -> pd.DataFrame:
    """All cells as text, stripped; `""` where missing. Rows without any content are left out.

    Args:
      path: CSV, TSV or tab-separated TXT, gzipped or zipped or not; XLSX.
      sheet: of a workbook; `""` if it has one only.
      keep: which columns of a text table to read; None reads all.
      otherwise: separator of a file whose ending is none of these; `""` refuses it.
      verbatim: words for "missing" stay as they are.
      skip: lines of a text table above its header.

    Raises:
      InputError: no such file or sheet, an unknown ending, or a file that cannot be read.
    """
    existing(path)
    if _EXCEL_FILE.search(path.name):
        table = _read_sheet(path, sheet)
    else:
        sep = separator(path, otherwise)
        header = _named(read_header(path, sep, skip))
        try:
            table = pd.read_csv(
                path,
                sep=sep,
                header=0,
                names=header,
                usecols=keep,
                dtype=str,
                keep_default_na=False,
                skiprows=skip,
            )
        except READ_ERRORS as error:
            raise unreadable(path, error) from None
    # pandas 3 has a text type of its own, whose missing values are not None.
    table = table.astype(object).fillna("")
    text_of = (lambda text: text.strip()) if verbatim else clean
    for column in table:
        table[column] = table[column].map({value: text_of(str(value)) for value in table[column].unique()})
    return table[(table != "").any(axis=1)].reset_index(drop=True)


def read_header(path: Path, sep: str, skip: int = 0) -> list[str]:
    """The cells of the first line, with single spaces.

    Raises:
      InputError: no such file; it is damaged, separated otherwise, or cut off in its last line.
    """
    existing(path)
    try:
        with open_text(path) as file:
            first = next(itertools.islice(file, skip, None), "")
        _check_separator(path, first, sep)
        # Two lines, so that a header with a name too few is an error and no shift of all columns.
        lines = pd.read_csv(
            path, sep=sep, header=None, nrows=2, dtype=str, keep_default_na=False, skiprows=skip
        )
    except READ_ERRORS as error:
        raise (error if isinstance(error, InputError) else unreadable(path, error)) from None
    header = [_in_one_line(name) for name in lines.iloc[0]]
    last = _last_line(path)
    # pandas would fill the cells that are not there. Quoted cells may hold separators and ends of lines.
    if last and '"' not in last and len(last.split(sep)) < len(header):
        raise InputError(
            f"{path}: its last line, {last[:40]!r}, has fewer cells than the first; was the download cut off?"
            " get the file again, or write the separators of its empty cells"
        )
    return header


def separator(path: Path, otherwise: str = "") -> str:
    """Comma or tab, by the file's ending, else `otherwise`.

    Raises:
      InputError: the ending is none of a text table, and `otherwise` is empty.
    """
    match = _TEXT_FILE.search(path.name)
    if match is None and otherwise:
        return otherwise
    if match is None:
        raise InputError(
            f"{path}: is no table by its ending; give .csv, .tsv or .txt (tabs), also with .gz or .zip, or"
            " .xlsx"
        )
    return "," if match.group(1).lower() == "csv" else "\t"


def column_list(table: pd.DataFrame) -> str:
    """The columns of a table for an error message, the first 30 of them."""
    names = [column for column in table.columns if column and not column.startswith(_UNNAMED)]
    more = f" and {len(names) - 30} more" if len(names) > 30 else ""
    nameless = len(table.columns) - len(names)
    # Row numbers are often written under no name; two such columns are rather a title above the header.
    hint = f" ({nameless} have no name: is the header in the first row?)" if nameless > 1 else ""
    return (", ".join(names[:30]) or "none") + more + hint


def number(text: str) -> float:
    """The finite number that a cell is, with a decimal point; NaN where it is none.

    >>> number("4.5"), number("4,5"), number("1_000"), number("inf")
    (4.5, nan, nan, nan)
    """
    value = float(text) if _NUMBER.fullmatch(text) else math.nan
    return value if math.isfinite(value) else math.nan


def clean(value: str) -> str:
    """A cell without spaces around it, `""` if it is missing."""
    return "" if is_missing(value) else value.strip()


def _last_line(path: Path) -> str:
    """The last line with content; `""` of a compressed file, where a cut shows by itself."""
    if path.suffix.lower() in (".gz", ".zip"):
        return ""
    with path.open("rb") as file:
        size = file.seek(0, os.SEEK_END)
        length, lines = 0, [b""]
        while length < size and len(lines) < 2:
            length = min(max(2 * length, 1 << 16), size)
            file.seek(-length, os.SEEK_END)
            lines = file.read().strip(b"\r\n").split(b"\n")
    return lines[-1].decode(errors="replace").rstrip("\r") if len(lines) > 1 else ""


def _in_one_line(name: object) -> str:
    return " ".join(str(name).split())


def _check_separator(path: Path, first: str, sep: str) -> None:
    """Refuses a file whose first line has one cell only by separating it otherwise."""
    if len(next(csv.reader([first], delimiter=sep), [])) > 1:
        return
    for other, called in _SEPARATORS.items():
        if other in first and other != sep:
            raise InputError(
                f"{path}: its columns are separated by {called}; save it with {_SEPARATORS[sep]}"
                + (", and numbers with decimal points" if other == ";" else "")
                + ("" if other != "\t" else ", or let its name end with .tsv")
            )


def _named(header: list[str]) -> list[str]:
    """The header with one name a column; of a name that is there twice, every one says its place."""
    # The GDC writes residual_disease twice, so this is no error before the column is wanted.
    times = collections.Counter(header)
    return [
        (name if times[name] == 1 else f"{name} (column {place})") if name else f"{_UNNAMED}{place}"
        for place, name in enumerate(header, start=1)
    ]


def _read_sheet(path: Path, sheet: str) -> pd.DataFrame:
    try:
        with pd.ExcelFile(path) as book:
            sheets = [str(name) for name in book.sheet_names]
            if not sheet and len(sheets) > 1:
                raise InputError(
                    f"{path}: has the sheets {', '.join(sheets)}; choose one with {path.name}#SHEET"
                )
            if sheet and sheet not in sheets:
                raise InputError(f"{path}: has no sheet {sheet!r}, only {', '.join(sheets)}")
            cells = book.parse(sheet or sheets[0], header=None, dtype=str, keep_default_na=False)
    except READ_ERRORS as error:
        raise (error if isinstance(error, InputError) else unreadable(path, error)) from None
    if cells.empty:
        raise InputError(
            f"{path}: sheet {sheet or sheets[0]} is empty; choose another with {path.name}#SHEET"
        )
    # pandas would rename the second of two columns of one name.
    header = _named([_in_one_line(name) for name in cells.iloc[0].fillna("")])
    return cells.iloc[1:].set_axis(header, axis=1)

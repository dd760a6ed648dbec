"""Text files of users: UTF-8, with a byte-order mark or not; one clear sentence for everything else."""

from __future__ import annotations

import gzip
import io
import re
import tomllib
import zipfile
import zlib
from pathlib import Path
from typing import Any

import pandas as pd

from modaltune_jax.types import InputError

READ_ERRORS = (ValueError, OSError, EOFError, KeyError, zipfile.BadZipFile, zlib.error)
"""What is raised where a file is damaged."""

_UTF16 = (b"\xff\xfe", b"\xfe\xff")
_RAGGED = re.compile(r"Expected (\d+) fields in line (\d+), saw (\d+)")


def existing(path: Path, remedy: str = "check the path of the table") -> Path:
    """The path, if a file is there.

    Raises:
      InputError: it is not.
    """
    if not path.is_file():
        raise InputError(f"{path}: no such file; {remedy}")
    return path


def read_text(path: Path, remedy: str = "check the path") -> str:
    """The whole text, without a byte-order mark.

    Raises:
      InputError: no such file, no right to read it, or it is not UTF-8.
    """
    try:
        return existing(path, remedy).read_text(encoding="utf-8-sig")
    except READ_ERRORS as error:
        raise (error if isinstance(error, InputError) else unreadable(path, error)) from None


def read_toml(path: Path, remedy: str) -> dict[str, Any]:
    """The fields of a TOML file.

    Args:
      path: of the file.
      remedy: what to do where there is none.

    Raises:
      InputError: no such file, or it is not TOML in UTF-8.
    """
    try:
        return tomllib.loads(read_text(path, remedy))
    except tomllib.TOMLDecodeError as error:
        raise InputError(f"{path}: is not TOML: {error}") from None


def open_text(path: Path) -> io.TextIOWrapper:
    """The text of a file, unpacked if its name ends with .gz or .zip (then of its first member)."""
    file: Any
    if path.suffix.lower() == ".zip":
        with zipfile.ZipFile(path) as archive:
            file = archive.open(archive.namelist()[0])
    else:
        opened = gzip.open if path.suffix.lower() == ".gz" else open
        file = opened(path, "rb")
    return io.TextIOWrapper(file, encoding="utf-8-sig", newline="")


def unreadable(path: Path, error: Exception) -> InputError:
    """The sentence for a file that cannot be read."""
    ragged = _RAGGED.search(str(error))
    if ragged:
        expected, line, found = ragged.groups()
        return InputError(
            f"{path}: line {line} has {found} cells, but those before it {expected}; drop what is too many,"
            " or put quotes around cells with separators (is the header in the first line?)"
        )
    if isinstance(error, UnicodeError):
        is_utf16 = path.read_bytes()[:2] in _UTF16
        excel = "" if path.suffix == ".toml" else ", in Excel as 'CSV UTF-8'"
        return InputError(f"{path}: is {'UTF-16' if is_utf16 else 'not UTF-8'} text; save it as UTF-8{excel}")
    if isinstance(error, PermissionError):
        return InputError(f"{path}: may not be read; give yourself the right to read it")
    if isinstance(error, pd.errors.EmptyDataError):
        return InputError(f"{path}: is empty; save it again, with a header in the first line")
    reason = " ".join(str(error).split())
    return InputError(f"{path}: cannot be read as a table ({reason}); download or save it again")

"""Which case is trained on, selected on, tested on: files of several layouts, and recipes for new splits."""

from __future__ import annotations

import csv
import dataclasses
import hashlib
import json
import os
import uuid
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path

import pandas as pd

from modaltune_jax.inputs.cohort import SPLITS, split_of_word
from modaltune_jax.inputs.split_recipes import draw
from modaltune_jax.inputs.table_file import column_list, read_table, split_sheet
from modaltune_jax.inputs.text_file import READ_ERRORS, existing, open_text
from modaltune_jax.types import InputError

_HEADER = "# modaltune_jax splits; "
"""Begins the first line of files of `write_splits`, which goes on with the sha256 and the recipe."""

_JSON_ID = "case_submitter_id"


@dataclasses.dataclass(frozen=True)
class Splits:
    """The split of every case.

    Attributes:
      of: case id -> "train", "val" or "test".
      recipe: how they were made, see `make_splits`; "file NAME" if they were read from a file of others.
    """

    of: Mapping[str, str]
    recipe: str

    @property
    def sha256(self) -> str:
        """Of the lines `id,split` in order of the ids: the same cases in the same splits, the same hash."""
        lines = "".join(f"{case_id},{self.of[case_id]}\n" for case_id in sorted(self.of))
        return hashlib.sha256(lines.encode()).hexdigest()


def make_splits(recipe: str, frame: pd.DataFrame) -> Splits:
    """Splits by a recipe; the same recipe and cases give the same splits, whatever the order of the rows.

    Args:
      recipe: "stratified:TRAIN,VAL,TEST:SEED" with fractions, "kfold:K:FOLD:SEED" or
        "site-preserved:K:FOLD:SEED", see `split_recipes.draw`. Another seed repeats the experiment.
      frame: indexed by case id; columns site, subtype (-1 none), event (-1 unknown), and for "site-preserved"
        tissue_source_site; without that column it is read from the ids, which then must be TCGA barcodes.

    Raises:
      InputError: the recipe is wrong, or the cases do not allow it.
    """
    return Splits(draw(recipe, frame), recipe)


def read_splits(path: Path, *, case_of: Callable[[str], str] | None = None) -> Splits:
    """Reads a split file of one of these layouts:

    - columns `case_id` (or `slide_id`) and `split`, and any others: ours, and tables with a row a case, as
      CSV, TSV or Excel;
    - columns `train`, `val`, `test` that list ids, one experiment a file: CLAM, MCAT, SurvPath. The last two
      have no `test`; their `val` stays `val`;
    - a folder of ModalTune's `train_*.json`, `val_*.json`, `test_*.json`.

    Args:
      path: of the file or folder.
      case_of: case of a slide id; applied to the column `slide_id` and to the lists of the second layout,
        where it must leave case ids as they are. None takes ids as they stand.

    Raises:
      InputError: no such file, no such layout, a case in two splits, or a file of `write_splits` that was
        edited.
    """
    if path.is_dir():
        return Splits(_collect(_json_rows(path), str(path)), f"file {path.name}")
    file, sheet = split_sheet(str(path))
    existing(file, "give a CSV with the columns case_id and split")
    head = _first_line(file)
    if not head.startswith(_HEADER):
        rows = _table_rows(read_table(file, sheet, verbatim=True), path, case_of)
        return Splits(_collect(rows, str(path)), f"file {path.name}")
    sha256, _, recipe = head.removeprefix(_HEADER).strip().partition(" ")
    rows = _table_rows(read_table(file, verbatim=True, skip=1), path, case_of)
    splits = Splits(_collect(rows, str(path)), recipe)
    if splits.sha256 != sha256:
        raise InputError(
            f"{path}: was edited after it was written by the recipe {recipe!r};"
            " draw the splits again, or delete the first line to use the file as your own"
        )
    return splits


def write_splits(path: Path, splits: Splits) -> None:
    """Writes a CSV `case_id,split` whose first line keeps the recipe and the hash; whole or not at all."""
    rows = [("case_id", "split"), *((case_id, splits.of[case_id]) for case_id in sorted(splits.of))]
    temporary = path.with_name(f".{path.name}-{uuid.uuid4().hex[:8]}.partial")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with temporary.open("w", encoding="utf-8", newline="") as file:
            file.write(f"{_HEADER}{splits.sha256} {splits.recipe}\n")
            csv.writer(file, lineterminator="\n").writerows(rows)
        os.replace(temporary, path)
    except OSError as error:
        raise InputError(f"{path}: cannot be written ({error.strerror}); choose another place") from None
    finally:
        if path.parent.is_dir():
            temporary.unlink(missing_ok=True)


def _collect(rows: Iterable[tuple[str, str]], source: str) -> dict[str, str]:
    """The split of every case from (case, split) pairs; a case may come again with the same split."""
    of: dict[str, str] = {}
    for case_id, split in rows:
        if split not in SPLITS:
            raise InputError(
                f"{source}: case {case_id}: split {split!r} is none of {', '.join(SPLITS)};"
                " rename it, or leave the row out"
            )
        if of.setdefault(case_id, split) != split:
            raise InputError(
                f"{source}: case {case_id} is in both {of[case_id]} and {split}; a case must be in one split"
            )
    if not of:
        raise InputError(f"{source}: lists no cases; give a CSV with the columns case_id and split")
    return of


def _first_line(path: Path) -> str:
    """The line that may hold our recipe; `""` of a file that is no text."""
    try:
        with open_text(path) as file:
            return file.readline()
    except READ_ERRORS:
        return ""


def _table_rows(
    table: pd.DataFrame, path: Path, case_of: Callable[[str], str] | None
) -> Iterator[tuple[str, str]]:
    def to_case(id: str) -> str:
        try:
            return case_of(id) if case_of else id
        except InputError as error:
            raise InputError(f"{path}: {error}") from None

    key = next((name for name in ("case_id", "slide_id") if name in table), "")
    if "split" in table and key:
        for row, (id, split) in enumerate(zip(table[key], table["split"], strict=True), start=1):
            if not id:
                raise InputError(f"{path}: row {row} has no {key}; fill the cell or drop the row")
            yield id if key == "case_id" else to_case(id), split_of_word(split) or split
        return
    lists = table.rename(columns=lambda name: split_of_word(name) or name)
    if "train" in lists and not key:
        yield from _listed(lists, path, to_case)
    else:
        raise InputError(
            f"{path}: its columns are {column_list(table)}; splits need case_id and split,"
            " or train, val and test"
        )


def _listed(table: pd.DataFrame, path: Path, to_case: Callable[[str], str]) -> Iterator[tuple[str, str]]:
    """Columns train, val, test that list ids, shorter ones filled up with empty cells."""
    for split in SPLITS:
        for id in table.get(split, ()):
            if id.lower() in ("true", "false"):
                raise InputError(
                    f"{path}: marks ids by {id}; give the file beside it that lists them (CLAM: splits_0.csv"
                    " instead of splits_0_bool.csv)"
                )
            if id:
                yield to_case(id), split


def _json_rows(folder: Path) -> Iterator[tuple[str, str]]:
    for split in SPLITS:
        paths = sorted(folder.glob(f"{split}_*.json"))
        if not paths:
            raise InputError(
                f"{folder}: has no {split}_*.json; give a split file, or a folder with all three"
            )
        for path in paths:
            try:
                rows = json.loads(path.read_text(encoding="utf-8"))["data"]
                case_ids = [str(row[_JSON_ID]) for row in rows]
            except (ValueError, KeyError, TypeError):
                raise InputError(
                    f'{path}: is not a split of ModalTune, {{"data": [{{"{_JSON_ID}": ...}}, ...]}};'
                    " give a CSV with the columns case_id and split"
                ) from None
            yield from ((case_id, split) for case_id in case_ids)

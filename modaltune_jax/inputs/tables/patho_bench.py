"""Tasks of Patho-Bench: `k=all.tsv`, one row a slide, beside a `config.yaml` that says what its columns are.

A classification task has one column of class numbers, named by `task_col` and spelt out by `label_dict`; a
survival task OS has the columns OS_event (1 seen) and OS_days too. The columns fold_0, fold_1... say train or
test; which of them is the split, the user says.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pandas as pd
import yaml

from modaltune_jax.inputs.counts import Count
from modaltune_jax.inputs.table_file import column_list, read_table, split_sheet
from modaltune_jax.inputs.tables.columns import Columns
from modaltune_jax.inputs.tables.endpoints import Endpoint
from modaltune_jax.inputs.tables.labels import LabelSource
from modaltune_jax.inputs.text_file import existing
from modaltune_jax.types import InputError


def read(path: str) -> LabelSource:
    """A task as labels: survival, or a variable named as the task.

    Args:
      path: `k=all.tsv`, or the folder of the task; with #N the split is that of fold N.

    Raises:
      InputError: a file or column is absent, a label is not in `label_dict`, or there is no such fold.
    """
    file, fold = split_sheet(path)
    file = file / "k=all.tsv" if file.is_dir() else file
    table = read_table(file)
    config_path = file.with_name("config.yaml")
    config = _read_config(config_path)
    task = config["task_col"]
    absent = [column for column in ("case_id", "slide_id", task) if column not in table]
    if absent:
        raise InputError(
            f"{file}: lacks the columns {absent} of a task; its columns are {column_list(table)}"
        )
    held = {"case_id": "case_id", "slide_id": "slide_id"}
    fold_column, counts = _fold(table, fold, file)
    if fold_column:
        held["split"] = fold_column
    if config["task_type"] == "survival":
        return LabelSource(
            table, Columns(held), str(file), {task: _endpoint(table, task, file)}, counts=counts
        )
    words = {str(number): str(word) for number, word in config["label_dict"].items()}
    unknown = sorted(set(table[task]) - set(words) - {""})
    if unknown:
        raise InputError(
            f"{file}: {task} is {unknown[0]!r}, which is not in label_dict of {config_path}: {words}"
        )
    table[task] = [words.get(number, "") for number in table[task]]
    return LabelSource(table, Columns(held, variables={task: task}), str(file), counts=counts)


def _read_config(path: Path) -> dict[str, Any]:
    try:
        config = yaml.safe_load(existing(path).read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: is not YAML: {error}") from None
    absent = sorted({"task_col", "task_type", "label_dict"} - set(config if isinstance(config, dict) else ()))
    if absent:
        raise InputError(
            f"{path}: lacks {', '.join(absent)}; take the file as it is downloaded with the task"
        )
    return config


def _endpoint(table: pd.DataFrame, name: str, file: Path) -> Endpoint:
    if f"{name}_days" not in table or f"{name}_event" not in table:
        raise InputError(
            f"{file}: has no columns {name}_days and {name}_event; its columns are {column_list(table)}"
        )
    return Endpoint(f"{name}_days", "days", event=f"{name}_event")


def _fold(table: pd.DataFrame, fold: str, file: Path) -> tuple[str, tuple[Count, ...]]:
    """The column of the chosen fold; `""` where there are several and none was chosen."""
    folds = [column for column in table if re.fullmatch(r"fold_\d+", column)]
    if fold:
        if f"fold_{fold}" not in folds:
            raise InputError(f"{file}: has no fold {fold!r}, only {', '.join(folds) or 'no folds'}")
        return f"fold_{fold}", ()
    if len(folds) == 1:
        return folds[0], ()
    if not folds:
        return "", ()
    text = f"there are {len(folds)} folds and none was chosen; write {file.name}#0 to split by fold_0"
    return "", (Count("folds to splits", len(folds), 0, text),)

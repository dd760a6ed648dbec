"""What a run says of every case, one file for all methods: metrics, intervals and curves start from here.

A row a (case, target, method, scope), of all splits, with these columns:

- case_id, split, site;
- target ("subtype", "survival", "site"), task (the embedding that predicts), method ("probe" or a head);
- scope: on whose cases the method was fitted, a site or "pooled";
- label: class within the scope, -1 for none; time in months; event 1, 0, -1 unknown;
- predicted: class within the scope, or risk (higher is worse); empty where there is none;
- p_0, p_1, ...: probabilities of the scope's classes, empty beyond them;
- reason: why there is no prediction.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import pandas as pd
from jaxtyping import Float, Integer

from modaltune_jax.scores import OVERALL, POOLED, Classes, Predicted
from modaltune_jax.types import InputError

NAME = "case_scores.csv"
"""Of the file, in the folder of every finished run."""

COLUMNS = (
    *("case_id", "split", "site", "target", "task", "method", "scope"),
    *("label", "time", "event", "predicted", "reason"),
)
"""Without those of the probabilities, which stand before the reason."""

_TEXT = ("case_id", "split", "site", "target", "task", "method", "scope", "reason")


def of_predicted(predicted: Iterable[Predicted], table: pd.DataFrame) -> pd.DataFrame:
    """Rows of what methods predict; those fitted on one site are asked about its own cases only.

    Args:
      predicted: of every target and method.
      table: one row a case, with columns case_id, split, site, time and event.
    """
    blocks = [
        _block(one, scope, table) for one in predicted for scope in one.predictions if scope in one.cases
    ]
    frame = pd.concat(blocks, ignore_index=True) if blocks else pd.DataFrame(columns=list(COLUMNS))
    return frame[[*COLUMNS[:-1], *probability_columns(frame), "reason"]]


def probability_columns(frame: pd.DataFrame) -> list[str]:
    """p_0, p_1, ... as far as there are any."""
    num_classes = sum(name.startswith("p_") for name in frame.columns)
    return [f"p_{c}" for c in range(num_classes)]


def probabilities(rows: pd.DataFrame) -> Float[np.ndarray, "n k"]:
    """Of rows of one scope, without the columns that only other scopes have."""
    values = rows[probability_columns(rows)].to_numpy(np.float64)
    return values[:, ~np.isnan(values).all(axis=0)]


def write(path: Path, frame: pd.DataFrame) -> None:
    """Writes the rows as CSV, whole or not at all."""
    temporary = path.with_name(f".{path.name}.tmp")
    frame.to_csv(temporary, index=False)
    os.replace(temporary, path)


def read(path: Path) -> pd.DataFrame:
    """The rows that `write` wrote, to the last bit.

    Raises:
      InputError: no such file, or one without the columns.
    """
    if not path.is_file():
        raise InputError(
            f"{path} does not exist: either the run is not finished, and the command that trains it goes on, "
            "or an older version of this package trained it, and that command with --mode=evaluate writes it"
        )
    # A case may be called "NA".
    text = dict.fromkeys(_TEXT, str)
    frame = pd.read_csv(
        path, dtype=text, keep_default_na=False, na_values=_numbers(path), float_precision="round_trip"
    )
    missing = sorted(set(COLUMNS) - set(frame.columns))
    if missing:
        raise InputError(f"{path} lacks column(s) {', '.join(missing)}: it holds no case scores")
    return frame


def _numbers(path: Path) -> dict[str, list[str]]:
    header = pd.read_csv(path, nrows=0).columns
    return {name: [""] for name in header if name not in _TEXT}


def _block(one: Predicted, scope: str, table: pd.DataFrame) -> pd.DataFrame:
    rows = np.arange(len(table))
    if scope not in (POOLED, OVERALL):
        rows = np.flatnonzero(table["site"].to_numpy() == scope)
    cases, said, given = table.iloc[rows], one.predictions[scope], one.probabilities.get(scope)
    predicted = np.full(len(rows), np.nan) if isinstance(said, str) else said[rows].astype(np.float64)
    label = np.full(len(rows), -1)
    if isinstance(one.truth, Classes):
        known = one.truth.labels[one.cases[scope]]
        classes = np.unique(known) if given is None else given.classes
        label, predicted = _position(one.truth.labels[rows], classes), _position_or_nan(predicted, classes)
    reason = np.where(np.isnan(predicted), "prediction is not finite", "")
    columns = {
        **{name: cases[name].to_numpy() for name in ("case_id", "split", "site")},
        **{"target": one.target, "task": one.task, "method": one.method},
        "scope": POOLED if scope == OVERALL else scope,
        "label": label,
        **{name: cases[name].to_numpy() for name in ("time", "event")},
        "predicted": predicted,
        "reason": said if isinstance(said, str) else reason,
    }
    if given is not None:
        columns |= {f"p_{c}": values for c, values in enumerate(given.values[rows].T)}
    return pd.DataFrame(columns)


def _position(
    labels: Integer[np.ndarray, "n"], classes: Integer[np.ndarray, "k"]
) -> Integer[np.ndarray, "n"]:
    return pd.Index(classes).get_indexer(labels)


def _position_or_nan(
    predicted: Float[np.ndarray, "n"], classes: Integer[np.ndarray, "k"]
) -> Float[np.ndarray, "n"]:
    position = np.full(len(predicted), np.nan)
    known = np.isfinite(predicted)
    position[known] = _position(predicted[known].astype(np.int64), classes)
    return position

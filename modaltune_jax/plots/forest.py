"""Forest plot: a metric of many models with intervals, cohort below cohort."""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from modaltune_jax.plots.style import GREY, marker_style, open_frame, save, subplots
from modaltune_jax.types import InputError

COLUMNS = ("cohort", "model", "value", "low", "high", "num", "num_events", "reason")
"""Of the table to draw; num_events is 0 for metrics that know no deaths."""
_ROW = 0.24
"""Inches."""


def draw_forest(table: pd.DataFrame, path: Path, *, metric: str, chance: float | None = None) -> None:
    """Writes a line a row of the table: a marker, its interval, and both in numbers.

    Cohorts and models come in the order of the table. A model has the same colour and marker in all cohorts.
    A row without a value shows its reason.

    Args:
      table: `COLUMNS`; value, low and high are NaN where not estimable.
      path: of the PNG, PDF or SVG.
      metric: its name, below the axis.
      chance: where a line is drawn.

    Raises:
      InputError: a missing column, or a table without rows.
    """
    missing = [name for name in COLUMNS if name not in table]
    if missing:
        raise InputError(f"the table of the forest plot lacks column(s) {', '.join(missing)}")
    if table.empty:
        raise InputError("the table of the forest plot has no row: give one a model and cohort")
    lines = _lines(table)
    models = list(table["model"].unique())
    figure, axis = subplots(1, 1, width=8.6, height=0.8 + _ROW * len(lines))
    axis.set_xlim(*_limits(table, chance))
    if chance is not None:
        axis.axvline(chance, color=GREY, linewidth=0.9, linestyle=":", zorder=0)
    for i, line in enumerate(lines):
        if line.row is not None:
            _draw_row(axis, i, line.row, models.index(line.label))
        axis.text(1.02, i, line.beside, color=GREY, **_beside(axis))
    axis.set_yticks(range(len(lines)), [line.label for line in lines])
    for label, line in zip(axis.get_yticklabels(), lines, strict=True):
        label.set_weight("normal" if line.row is not None else "bold")
    axis.set(ylim=(len(lines) - 0.4, -0.6), xlabel=metric)
    axis.tick_params(axis="y", length=0)
    open_frame(axis)
    axis.spines["left"].set_visible(False)
    save(figure, path)


class _Line(NamedTuple):
    """A line of the plot: of a model if there is a row, the head of a cohort, or empty."""

    label: str
    beside: str = ""
    row: dict[str, Any] | None = None


def _lines(table: pd.DataFrame) -> list[_Line]:
    lines: list[_Line] = []
    for cohort, rows in table.groupby("cohort", sort=False):
        lines += [_Line("")] if lines else []
        lines.append(_Line(str(cohort), _size(rows)))
        for row in rows.to_dict("records"):
            lines.append(_Line(str(row["model"]), "", {str(name): row[name] for name in row}))
    return lines


def _size(rows: pd.DataFrame) -> str:
    """Cases and deaths of a cohort; of some rows fewer may have entered."""
    words = f"{rows['num'].max()} cases"
    return words + (f", {rows['num_events'].max()} deaths" if rows["num_events"].any() else "")


def _limits(table: pd.DataFrame, chance: float | None) -> tuple[float, float]:
    seen = table[["value", "low", "high"]].to_numpy(float).ravel()
    seen = np.append(seen[np.isfinite(seen)], [] if chance is None else chance)
    if len(seen) == 0:
        return 0.0, 1.0
    margin = max(0.04 * (seen.max() - seen.min()), 0.01)
    return float(seen.min() - margin), float(seen.max() + margin)


def _beside(axis: Any) -> dict[str, Any]:
    return {"transform": axis.get_yaxis_transform(), "va": "center", "fontsize": 9}


def _draw_row(axis: Any, i: int, row: dict[str, Any], model: int) -> None:
    if pd.isna(row["value"]):
        # In the row that has no marker there is room for a sentence.
        words = axis.text(0.01, i, f"not estimable: {row['reason']}", color=GREY, **_beside(axis))
        words.set_bbox({"facecolor": "white", "edgecolor": "none", "pad": 1.0})
        words.set_in_layout(False)
        return
    words = f"{row['value']:.3f}"
    if not pd.isna(row["low"]):
        axis.plot([row["low"], row["high"]], [i, i], color="black", linewidth=1.1)
        words += f"  ({row['low']:.3f} to {row['high']:.3f})"
    axis.plot([row["value"]], [i], markersize=6.5, **marker_style(model))
    axis.text(1.02, i, words, **_beside(axis))

"""The comparison as a picture: every method with its interval, cohort below cohort."""

from __future__ import annotations

from pathlib import Path

import pandas as pd

from modaltune_jax.plots.forest import draw_forest
from modaltune_jax.reporting.tables import METRICS, Comparison
from modaltune_jax.results import METRIC_NAMES


def comparison_forest(table: Comparison, path: Path) -> None:
    """Draws the means over seeds with their intervals by cases."""
    lines = []
    for column in table.columns:
        for row, cells in table.cells.items():
            if column not in cells:
                continue
            cell = cells[column]
            low, high = cell.interval
            sizes = {
                "num": len(cell.cases),
                "num_events": cell.num_events if table.target == "survival" else 0,
            }
            values = {"value": cell.mean, "low": low, "high": high, **sizes, "reason": cell.reason}
            lines.append({"cohort": column, "model": row.label, **values})
    chance = 0.5 if table.target == "survival" else None
    draw_forest(pd.DataFrame(lines), path, metric=METRIC_NAMES[METRICS[table.target]], chance=chance)

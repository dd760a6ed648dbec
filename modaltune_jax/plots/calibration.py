"""Predicted against observed survival at a month."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from textwrap import fill

import numpy as np

from modaltune_jax.metrics.survival_probability import Calibration
from modaltune_jax.plots.style import marker_style, save, unit_square


def draw_calibration(results: Mapping[str, Calibration], path: Path, *, title: str = "") -> None:
    """Writes a series of groups a model, with the 95 % interval of what was observed.

    On the diagonal, as many live as was said. The legend tells the mean distance from it.

    Args:
      results: by name of the model, from `metrics.survival_probability.calibration`.
      path: of the PNG, PDF or SVG.
      title: above the panel.
    """
    months = sorted({result.month for result in results.values()})
    at = f"survival at {' and '.join(f'{month:g}' for month in months)} months"
    figure, axis = unit_square(f"predicted {at}", f"observed {at}", title)
    for i, (name, result) in enumerate(results.items()):
        reach = np.stack([result.observed - result.low, result.high - result.observed])
        style = {**marker_style(i), "linestyle": "", "elinewidth": 1.0, "capsize": 2.0}
        axis.errorbar(result.predicted, result.observed, reach, label=_label(name, result), **style)
    if results:
        axis.legend(frameon=False, loc="upper left", bbox_to_anchor=(1.02, 1.0))
    save(figure, path, is_trimmed=True)


def _label(name: str, result: Calibration) -> str:
    if not result.error.is_estimable:
        return fill(name, 36) + "\n" + fill(result.error.reason, 36)
    return f"{fill(name, 36)}\nmean error {result.error.value:.2f}"

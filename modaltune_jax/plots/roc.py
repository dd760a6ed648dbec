"""ROC curves of several models or classes in one panel."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from textwrap import fill

from modaltune_jax.metrics.curves import RocCurve
from modaltune_jax.metrics.intervals import Interval
from modaltune_jax.plots.style import line_style, save, unit_square


def draw_roc(
    curves: Mapping[str, RocCurve],
    path: Path,
    *,
    intervals: Mapping[str, Interval] | None = None,
    title: str = "",
) -> None:
    """Writes the curves; the legend tells the areas, or why there is no curve.

    Args:
      curves: by name, from `metrics.curves.roc`.
      path: of the PNG, PDF or SVG.
      intervals: of the areas, by the same names, shown beside them.
      title: above the panel.
    """
    figure, axis = unit_square("false positive rate", "true positive rate", title)
    for i, (name, curve) in enumerate(curves.items()):
        label = _label(name, curve, (intervals or {}).get(name))
        axis.plot(curve.false_positive, curve.true_positive, label=label, **line_style(i))
    if curves:
        axis.legend(frameon=False, loc="upper left", bbox_to_anchor=(1.02, 1.0), handlelength=2.6)
    save(figure, path, is_trimmed=True)


def _label(name: str, curve: RocCurve, interval: Interval | None) -> str:
    if not curve.area.is_estimable:
        return fill(name, 36) + "\n" + fill(curve.area.reason, 36)
    beside = f" ({interval.low:.2f} to {interval.high:.2f})" if interval else ""
    return f"{fill(name, 36)}\n{curve.area.value:.2f}{beside}"

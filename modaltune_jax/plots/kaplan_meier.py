"""Survival by risk group: curves with their intervals, the number at risk, the log-rank test."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float, Integer, Shaped

from modaltune_jax.metrics.curves import KaplanMeier, LogRank, kaplan_meier, log_rank
from modaltune_jax.plots.style import line_style, open_frame, save, subplots

_STEPS = (1, 3, 6, 12, 24, 36, 60, 120)
"""Months between ticks: readers think in years and their parts."""
_MAX_TICKS = 9


def draw_kaplan_meier(
    time: Float[np.ndarray, "n"],
    event: Shaped[np.ndarray, "n"],
    group: Integer[np.ndarray, "n"],
    labels: Sequence[str],
    path: Path,
    *,
    title: str = "",
) -> None:
    """Writes survival by group, with 95 % intervals and a tick where a case is censored.

    Args:
      time: months to death or last follow-up.
      event: 1 death seen, 0 censored (or bool).
      group: of each case, a position in `labels`, as from `metrics.curves.risk_groups`.
      labels: name of each group; one without cases has no curve.
      path: of the PNG, PDF or SVG.
      title: above the curves.

    Raises:
      InputError: a time that is negative or not finite, an event that is neither 0 nor 1.
    """
    members = [group == i for i in range(len(labels))]
    curves = [kaplan_meier(time[rows], event[rows]) for rows in members]
    below = 0.35 + 0.22 * len(labels)
    figure, (axis, table) = subplots(
        2, 1, width=6.6, height=4.2 + below, sharex=True, gridspec_kw={"height_ratios": [3.6, below]}
    )
    longest = float(time.max(initial=1.0))
    ticks = _ticks(longest)
    handles = [_draw_curve(axis, curve, i) for i, curve in enumerate(curves)]
    axis.set(ylabel="survival", ylim=(-0.02, 1.02), xticks=ticks, xlim=(-0.01 * longest, 1.02 * longest))
    axis.set_title(title, loc="left")
    axis.set_title(_words(log_rank(time, event, group)), loc="right", fontsize=9)
    open_frame(axis)
    axis.tick_params(labelbottom=True)
    axis.set_xlabel("months")
    _draw_table(table, curves, ticks)
    names = [
        f"{label}: {int(np.sum(event[rows] != 0))} of {int(rows.sum())} died"
        for label, rows in zip(labels, members, strict=True)
    ]
    figure.legend(handles, names, loc="outside lower center", ncols=2, frameon=False, fontsize=9)
    save(figure, path)


def _draw_curve(axis: Any, curve: KaplanMeier, i: int) -> Any:
    """Returns the line, empty for a group without cases."""
    style = line_style(i)
    shown = slice(None) if len(curve.time) else slice(0)
    (line,) = axis.step(curve.months[shown], curve.survival[shown], where="post", **style)
    band = (curve.months[shown], curve.low[shown], curve.high[shown])
    axis.fill_between(*band, step="post", color=style["color"], alpha=0.13, linewidth=0)
    rows = curve.num_censored > 0
    ticks = {"linestyle": "", "marker": "|", "markersize": 6, "color": style["color"]}
    axis.plot(curve.months[rows], curve.survival[rows], **ticks)
    return line


def _draw_table(axis: Any, curves: Sequence[KaplanMeier], ticks: Float[np.ndarray, "k"]) -> None:
    """Number at risk below each tick; a piece of its line tells each row's curve."""
    axis.set_title("number at risk", loc="left", fontsize=9)
    axis.set(ylim=(len(curves) - 0.5, -0.5), yticks=[])
    axis.spines[:].set_visible(False)
    axis.tick_params(bottom=False, labelbottom=False)
    for i, curve in enumerate(curves):
        for tick, num in zip(ticks, curve.num_at_risk(ticks), strict=True):
            axis.text(tick, i, f"{num}", ha="center", va="center", fontsize=9)
        place = {"transform": axis.get_yaxis_transform(), "clip_on": False}
        axis.plot([-0.11, -0.04], [i, i], **line_style(i), **place)


def _ticks(longest: float) -> Float[np.ndarray, "k"]:
    step = next((step for step in _STEPS if longest / step < _MAX_TICKS), _STEPS[-1])
    return np.arange(0, math.floor(longest / step) + 1, dtype=np.float64) * step


def _words(test: LogRank) -> str:
    if math.isnan(test.p):
        return f"log-rank: {test.reason}"
    p = "p < 0.001" if test.p < 0.001 else f"p = {test.p:.3f}"
    return f"log-rank {p}" + (f", {test.reason}" if test.reason else "")

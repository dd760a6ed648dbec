"""Figures beside the numbers: a run's progress, variants compared. Colours are safe for the colour-blind."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from jaxtyping import Float

from modaltune_jax.monitor import read_metrics
from modaltune_jax.plots.style import COLOURS, HATCHES, legend_beside, save, subplots
from modaltune_jax.results import METRIC_NAMES, over_seeds

LEGEND_COLUMNS = 4
LOSS_POINTS = 200


def training_figure(folder: Path) -> None:
    """`training.png`: losses and validation scores of a run by step, from its metrics.jsonl."""
    rows = read_metrics(folder / "metrics.jsonl")
    figure, (left, right) = subplots(1, 2, width=10.0, height=3.2)
    losses = pd.DataFrame([row for row in rows if "train/loss" in row] or {"step": [], "train/loss": []})
    # A line a step: means of as many neighbours as leave few enough points to tell them apart.
    losses = losses.groupby(losses.index // max(-(-len(losses) // LOSS_POINTS), 1)).mean()
    terms = [name for name in losses.columns if name.startswith("train/loss_")]
    shown = terms if len(terms) > 1 else ["train/loss"]
    for colour, name in zip(COLOURS, shown, strict=False):
        left.plot(losses["step"], losses[name], color=colour, label=name.removeprefix("train/loss_"))
    is_positive = not (losses[shown] <= 0).any(axis=None)
    left.set(xlabel="step", ylabel="loss", title="training", yscale="log" if is_positive else "linear")
    if len(shown) > 1:
        legend_beside(left)
    probes = pd.DataFrame([row for row in rows if "val/score" in row])
    names = [name for name in probes.columns if name not in ("step", "val/score")]
    for colour, name in zip(COLOURS, names, strict=False):
        right.plot(probes["step"], probes[name], marker="o", color=colour, label=name.removeprefix("val/"))
    limits = _limits(probes[names].to_numpy(float), 0.4)
    right.set(xlabel="step", ylabel="mean over sites", title="validation", ylim=limits)
    if names:
        legend_beside(right)
    save(figure, folder / "training.png")


def comparison_figure(table: pd.DataFrame, path: Path, split: str = "test") -> None:
    """Bars by site, a panel a target: a colour a variant, a hatch a method. Whiskers are the sd over seeds.

    Args:
      table: rows of `probe_table` and `heads_table` with columns variant and seed.
      path: of the PNG.
      split: which split to show.
    """
    summary = over_seeds(table[table["split"] == split])
    panels = [target for target in ("subtype", "survival") if (summary["target"] == target).any()]
    shown = summary[summary["target"].isin(panels)]
    styles = _styles(shown)
    num_variants = shown["variant"].nunique()
    # A column a variant, where there are several and they fit.
    columns = num_variants if 1 < num_variants <= LEGEND_COLUMNS else min(len(styles), LEGEND_COLUMNS)
    figure, axes = subplots(1, len(panels), width=11.0, height=3.35 + 0.25 * math.ceil(len(styles) / columns))
    bars: dict[str, Any] = {}
    for axis, target in zip(np.atleast_1d(axes), panels, strict=True):
        block = shown[shown["target"] == target]
        bars |= _draw_bars(axis, block, styles)
        limits = _limits(block["mean"].to_numpy(), 0.3)
        axis.set(title=f"{target} ({split})", ylabel=METRIC_NAMES[block["metric"].iloc[0]], ylim=limits)
    # Below the panels, where it hides no bar. Not every head is in every panel.
    handles = [bars[label] for label in styles]
    figure.legend(handles, list(styles), loc="outside lower center", ncols=columns, frameon=False)
    save(figure, path)


def _styles(summary: pd.DataFrame) -> dict[str, dict[str, str]]:
    """Colour and hatch of each label, the same in all panels."""
    variants, methods = list(summary["variant"].unique()), list(summary["method"].unique())
    return {
        row.label: {
            "color": COLOURS[variants.index(row.variant) % len(COLOURS)],
            "hatch": HATCHES[methods.index(row.method) % len(HATCHES)],
        }
        for row in summary.itertuples()
    }


def _draw_bars(axis, block: pd.DataFrame, styles: dict[str, dict[str, str]]) -> dict[str, Any]:
    """A group of bars a site; returns the bars of each label."""
    sites, labels = list(block["site"].unique()), list(block["label"].unique())
    width = 0.8 / len(labels)
    bars = {}
    for i, label in enumerate(labels):
        values = block[block["label"] == label].set_index("site").loc[sites]
        places = np.arange(len(sites)) + (i - (len(labels) - 1) / 2) * width
        spread = {"yerr": values["sd"].fillna(0.0), "error_kw": {"elinewidth": 1.0}}
        bars[label] = axis.bar(places, values["mean"], width, **spread, **styles[label], edgecolor="white")
    axis.axhline(0.5, color="black", linewidth=0.8, linestyle=":")
    axis.set_xticks(np.arange(len(sites)), sites, rotation=20, ha="right")
    return bars


def _limits(scores: Float[np.ndarray, "*n"], bottom: float) -> tuple[float, float]:
    """From `bottom`, or from below the lowest score: one that is off the axis looks as if there were none."""
    lowest = np.min(scores, where=np.isfinite(scores), initial=1.0)
    return max(min(bottom, lowest - 0.05), 0.0), 1.02

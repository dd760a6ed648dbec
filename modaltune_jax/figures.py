"""Figures beside the numbers: a run's progress, variants compared. Colours are safe for the colour-blind."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd

from modaltune_jax.monitor import read_metrics
from modaltune_jax.results import METRIC_NAMES, over_seeds

# Okabe and Ito 2008.
COLOURS = ("#0072B2", "#E69F00", "#009E73", "#CC79A7", "#56B4E9", "#D55E00", "#F0E442", "#000000")


def training_figure(folder: Path) -> None:
    """`training.png`: loss and validation probes of a run by step, from its metrics.jsonl."""
    rows = read_metrics(folder / "metrics.jsonl")
    figure, (left, right) = _subplots(2, width=9.0, height=3.2)
    loss = [(row["step"], row["train/loss"]) for row in rows if "train/loss" in row]
    left.plot(*zip(*loss, strict=True), color=COLOURS[0])
    left.set(xlabel="step", ylabel="training loss", title="KL to text", yscale="log")
    probes = pd.DataFrame([row for row in rows if "val/score" in row])
    names = [name for name in probes.columns if name not in ("step", "val/score")]
    for colour, name in zip(COLOURS, names, strict=False):
        right.plot(probes["step"], probes[name], marker="o", color=colour, label=name.removeprefix("val/"))
    right.set(xlabel="step", ylabel="mean over sites", title="validation probes", ylim=(0.4, 1.02))
    if names:
        right.legend(frameon=False)
    _save(figure, folder / "training.png")


def comparison_figure(table: pd.DataFrame, path: Path, split: str = "test") -> None:
    """Bars of every variant by site, a panel a target; whiskers are the sd over seeds.

    Args:
      table: rows of `probe_table` with columns variant and seed.
      path: of the PNG.
      split: which split to show.
    """
    summary = over_seeds(table[table["split"] == split])
    panels = [target for target in ("subtype", "survival") if (summary["target"] == target).any()]
    figure, axes = _subplots(len(panels), width=11.0, height=3.6)
    for axis, target in zip(np.atleast_1d(axes), panels, strict=True):
        block = summary[summary["target"] == target]
        sites, variants = list(block["site"].unique()), list(block["variant"].unique())
        width = 0.8 / len(variants)
        for i, variant in enumerate(variants):
            values = block[block["variant"] == variant].set_index("site").loc[sites]
            places = np.arange(len(sites)) + (i - (len(variants) - 1) / 2) * width
            axis.bar(
                places,
                values["mean"],
                width,
                yerr=values["sd"].fillna(0.0),
                color=COLOURS[i % len(COLOURS)],
                label=variant,
            )
        axis.axhline(0.5, color="black", linewidth=0.8, linestyle=":")
        axis.set_xticks(np.arange(len(sites)), sites, rotation=20, ha="right")
        axis.set(title=f"{target} ({split})", ylabel=METRIC_NAMES[block["metric"].iloc[0]], ylim=(0.3, 1.02))
    # Below the panels, where it hides no bar.
    handles, labels = np.atleast_1d(axes)[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=len(labels), frameon=False)
    _save(figure, path)


def _subplots(columns: int, *, width: float, height: float):
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    return plt.subplots(1, columns, figsize=(width, height), layout="constrained")


def _save(figure, path: Path) -> None:
    from matplotlib import pyplot as plt

    temporary = path.with_suffix(".tmp.png")
    figure.savefig(temporary, dpi=130)
    plt.close(figure)
    temporary.replace(path)

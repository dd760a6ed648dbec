"""Tables of results: written as CSV and JSON, printed as text with the spread over seeds."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from jaxtyping import Float

from modaltune_jax.scores import PROBE
from modaltune_jax.types import InputError

METRIC_NAMES = {"balanced_accuracy": "balanced accuracy", "harrell_c": "Harrell's c"}


def write(table: pd.DataFrame, stem: Path) -> None:
    """Writes `stem.json` (one record a row) and `stem.csv`, each whole or not at all; the CSV last."""
    stem.parent.mkdir(parents=True, exist_ok=True)
    for suffix, text in (
        (".json", table.to_json(orient="records", indent=1)),
        (".csv", table.to_csv(index=False)),
    ):
        temporary = stem.with_suffix(".tmp")
        temporary.write_text(text, encoding="utf-8")
        os.replace(temporary, stem.with_suffix(suffix))


def read(stem: Path) -> pd.DataFrame:
    """The table that `write` wrote to `stem.csv`, to the last bit.

    Raises:
      InputError: a table of before there were heads.
    """
    path = stem.with_suffix(".csv")
    table = pd.read_csv(
        path,
        keep_default_na=False,
        na_values={"value": [""]},
        float_precision="round_trip",
    )
    if "method" not in table:
        raise InputError(
            f"{path} has no column method, so an older version wrote it: choose another --workdir, or "
            f"remove {path.parent}"
        )
    return table


def save_embeddings(
    path: Path, embeddings: Float[np.ndarray, "n t e"], table: pd.DataFrame, **heads: np.ndarray
) -> None:
    """Embeddings, and outputs of heads by name, with the case ids of their rows, for probes of one's own."""
    temporary = path.with_suffix(".tmp.npz")
    arrays: dict[str, Any] = {"embeddings": embeddings, **heads}
    arrays |= {name: table[name].to_numpy(str) for name in ("case_id", "split", "site")}
    np.savez(temporary, **arrays)
    os.replace(temporary, path)


def over_seeds(table: pd.DataFrame) -> pd.DataFrame:
    """Mean and standard deviation of every value over the seeds of its variant.

    Args:
      table: rows of `probe_table` and `heads_table` with columns variant and seed.

    Returns:
      One row a (variant, method, split, target, metric, site) with mean, sd (NaN for one seed), num_seeds
      and label, which names variant and method in a table or figure.
    """
    keys = ["variant", "method", "split", "target", "metric", "site"]
    grouped = table.groupby(keys, sort=False)["value"]
    summary = grouped.agg(mean="mean", sd="std", num_seeds="count").reset_index()
    heads = (" [" + summary["method"] + "]").where(summary["method"] != PROBE, "")
    return summary.assign(label=summary["variant"] + heads)


def to_text(table: pd.DataFrame, split: str = "test") -> str:
    """The results of a split: a block a target, a line a site, mean ± sd over seeds.

    A column is the probes of a variant, or one of its heads: "full", "full [risk]".
    """
    summary = over_seeds(table[table["split"] == split])
    summary["cell"] = [_cell(row.mean, row.sd) for row in summary.itertuples(index=False)]
    num_seeds = table["seed"].nunique()
    blocks = []
    for (target, metric), block in summary.groupby(["target", "metric"], sort=False):
        wide = block.pivot(index="site", columns="label", values="cell")
        wide = wide.loc[block["site"].unique(), block["label"].unique()]
        rows = [["", *wide.columns], *wide.reset_index().to_numpy().tolist()]
        widths = [max(len(str(row[i])) for row in rows) for i in range(len(rows[0]))]
        lines = ["  " + "  ".join(str(c).ljust(w) for c, w in zip(row, widths, strict=True)) for row in rows]
        title = f"{target}: {METRIC_NAMES[metric]} on {split}" + (
            f", {num_seeds} seeds" if num_seeds > 1 else ""
        )
        blocks.append("\n".join([title, *lines]))
    return "\n\n".join(blocks)


def _cell(mean: float, sd: float) -> str:
    if np.isnan(mean):
        return "-"
    return f"{mean:.3f}" if np.isnan(sd) else f"{mean:.3f} ± {sd:.3f}"

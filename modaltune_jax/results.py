"""Tables of results: written as CSV and JSON, printed as text with the spread over seeds."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pandas as pd
from jaxtyping import Float

METRIC_NAMES = {"balanced_accuracy": "balanced accuracy", "harrell_c": "Harrell's c"}


def write(table: pd.DataFrame, stem: Path) -> None:
    """Writes `stem.csv` and `stem.json` (one record a row), each whole or not at all."""
    stem.parent.mkdir(parents=True, exist_ok=True)
    for suffix, text in (
        (".csv", table.to_csv(index=False)),
        (".json", table.to_json(orient="records", indent=1)),
    ):
        temporary = stem.with_suffix(".tmp")
        temporary.write_text(text, encoding="utf-8")
        os.replace(temporary, stem.with_suffix(suffix))


def read(stem: Path) -> pd.DataFrame:
    """The table that `write` wrote to `stem.csv`, to the last bit."""
    return pd.read_csv(
        stem.with_suffix(".csv"),
        keep_default_na=False,
        na_values={"value": [""]},
        float_precision="round_trip",
    )


def save_embeddings(path: Path, embeddings: Float[np.ndarray, "n t e"], table: pd.DataFrame) -> None:
    """Embeddings with the case ids of their rows, for probes of one's own."""
    temporary = path.with_suffix(".tmp.npz")
    np.savez(
        temporary,
        embeddings=embeddings,
        case_id=table["case_id"].to_numpy(str),
        split=table["split"].to_numpy(str),
        site=table["site"].to_numpy(str),
    )
    os.replace(temporary, path)


def over_seeds(table: pd.DataFrame) -> pd.DataFrame:
    """Mean and standard deviation of every value over the seeds of its variant.

    Args:
      table: rows of `probe_table` with columns variant and seed.

    Returns:
      One row a (variant, split, target, metric, site) with mean, sd (NaN for one seed) and num_seeds.
    """
    keys = ["variant", "split", "target", "metric", "site"]
    grouped = table.groupby(keys, sort=False)["value"]
    return grouped.agg(mean="mean", sd="std", num_seeds="count").reset_index()


def to_text(table: pd.DataFrame, split: str = "test") -> str:
    """The results of a split: a block a target, a line a site, a column a variant, mean ± sd over seeds."""
    summary = over_seeds(table[table["split"] == split])
    summary["cell"] = [_cell(row.mean, row.sd) for row in summary.itertuples(index=False)]
    num_seeds = table["seed"].nunique()
    blocks = []
    for (target, metric), block in summary.groupby(["target", "metric"], sort=False):
        wide = block.pivot(index="site", columns="variant", values="cell")
        wide = wide.loc[block["site"].unique(), block["variant"].unique()]
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

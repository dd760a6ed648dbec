"""What padding costs: shapes that are compiled, and rows of batches that hold no tile.

    python benchmarks/padding.py records/pancancer
    python benchmarks/padding.py records/hipt_pancancer --config configs/hipt.py --scale 256 --limit 0.15

The cases are those of a records folder, or of a CSV file with the columns `split` and `num_tiles`. `--config`
says how batches are made; its pipeline settings can be changed as in training (`--config.pipeline.multiple=64`).
"padding" is what the buckets waste by themselves, "waste" holds filler cases too: one minus tiles over rows,
over an epoch. Only the training rows decide about the exit code.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import workload

from modaltune_jax import command, config_file
from modaltune_jax.config import unpack
from modaltune_jax.inputs.bags import buckets, padding_waste
from modaltune_jax.inputs.collate import PipelineConfig
from modaltune_jax.inputs.plan import BatchPlan
from modaltune_jax.inputs.records import Records

COLUMNS = (
    "epoch of", "cases", "tiles a case", "batches", "padding", "filler cases", "waste", "compilations"
)  # fmt: skip
EPOCHS = {
    "training": ("train",),
    "validation": ("train", "val"),
    "final scores": ("train", "val", "test"),
}


def cases(source: Path) -> pd.DataFrame:
    """Split and number of tiles of every case."""
    table = Records(source).table if source.is_dir() else pd.read_csv(source)
    return table[["split", "num_tiles"]]


def measure(table: pd.DataFrame, config: PipelineConfig, scale: float) -> list[dict]:
    """A row for each kind of epoch there are cases for."""
    lengths = (table["num_tiles"].to_numpy() * scale).astype(int)
    if config.max_tiles:
        lengths = np.minimum(lengths, config.max_tiles)
    chosen = buckets(lengths, num_buckets=config.num_buckets, multiple=config.multiple)
    rows = []
    for name, splits in EPOCHS.items():
        indices = np.flatnonzero(table["split"].isin(splits))
        plan = BatchPlan(
            lengths,
            indices,
            buckets=chosen,
            batch_size=config.batch_size,
            tokens_per_batch=config.tokens_per_batch,
            seed=0 if name == "training" else None,
        )
        rows.append(
            {
                "epoch of": name,
                "cases": len(indices),
                "tiles a case": float(lengths[indices].mean()),
                "batches": plan.steps_per_epoch,
                "padding": padding_waste(lengths[indices], chosen),
                "filler cases": plan.filler,
                "waste": plan.waste,
                "compilations": len(plan.shapes),
                "shapes": plan.shapes,
            }
        )
    return rows


def shown(row: dict) -> list[str]:
    shares = [f"{row[name]:.1%}" for name in ("padding", "filler cases", "waste")]
    numbers = [str(row["cases"]), f"{row['tiles a case']:.0f}", str(row["batches"])]
    return [row["epoch of"], *numbers, *shares, str(row["compilations"])]


def main() -> None:
    words, overrides = command.split_overrides(sys.argv[1:])
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("source", type=Path, help="records folder, or a CSV file with split and num_tiles")
    parser.add_argument("--config", default="configs/pancancer.py", help="whose pipeline settings to take")
    parser.add_argument("--scale", type=float, default=1.0, help="tiles in one of these, as regions hold 256")
    parser.add_argument("--limit", type=float, help="exit code 1 where training wastes more")
    parser.add_argument("--json", type=Path, help="write the table here too")
    options = parser.parse_args(words)
    config = unpack(config_file.load(options.config, overrides)).pipeline
    rows = measure(cases(options.source), config, options.scale)
    print(workload.table(COLUMNS, [shown(row) for row in rows]))
    print("shapes in training (cases x tiles):", ", ".join(f"{b} x {n}" for b, n in rows[0]["shapes"]))
    if options.json:
        options.json.write_text(json.dumps(rows, indent=1), encoding="utf-8")
    if options.limit is not None and rows[0]["waste"] > options.limit:
        sys.exit(1)


if __name__ == "__main__":
    main()

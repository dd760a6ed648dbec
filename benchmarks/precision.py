"""The same training in float32 and in bfloat16: how far apart are losses, weights and what they are good for?

    python benchmarks/precision.py

The demo's first steps, from the same weights and on the same batches, with `model.encoder.dtype` of both
kinds. Fails where losses are further apart than the budget, or the probes' scores on test than seeds are.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import sys
import tempfile
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pandas as pd
import workload
from tqdm import tqdm

from configs import pancancer
from modaltune_jax import partitioning
from modaltune_jax.config import Config, unpack
from modaltune_jax.inputs.prepare import prepare
from modaltune_jax.inputs.records import Records
from modaltune_jax.targets import Targets, targets_of_config
from modaltune_jax.train import build, probe

DTYPES = ("float32", "bfloat16")
MEAN_BUDGET, MAX_BUDGET = 0.003, 0.05
"""Relative differences of the loss, over all steps: their mean, and the largest."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--steps", type=int, default=200, help="default 200")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2], help="default 0 1 2")
    parser.add_argument("--json", type=Path, help="file to write the numbers to")
    arguments = parser.parse_args()
    if arguments.steps < 1:
        parser.error("--steps must be positive")
    with tempfile.TemporaryDirectory() as folder:
        config, records, targets = demo(Path(folder))
        rows = [compare(config, seed, records, targets, arguments.steps) for seed in arguments.seeds]
    print(to_text(rows))
    facts = {**workload.machine(), "jax": jax.__version__, "steps": arguments.steps, "rows": rows}
    if arguments.json:
        arguments.json.write_text(json.dumps(facts, indent=1) + "\n", encoding="utf-8")
    said = beyond(rows)
    print("\n".join(said) or "within the budget")
    sys.exit(1 if said else 0)


def demo(folder: Path) -> tuple[Config, Records, Targets]:
    """The demo, its records below `folder`."""
    as_written = pancancer.get_config("demo")
    as_written.data.directory = str(folder / "records")
    config = unpack(as_written)
    records = prepare(config.data)
    return config, records, targets_of_config(config, records)


def compare(config: Config, seed: int, records: Records, targets: Targets, num_steps: int) -> dict[str, Any]:
    """Both runs of a seed: distances and scores."""
    runs = {dtype: train(config, dtype, seed, records, targets, num_steps) for dtype in DTYPES}
    (losses, weights, scores), (other_losses, other_weights, other_scores) = runs.values()
    apart = np.abs(np.subtract(other_losses, losses)) / np.abs(losses)
    start, end, other_end = weights["start"], weights["end"], other_weights["end"]
    return {
        "seed": seed,
        "first loss": losses[0],
        "last losses": [float(np.mean(values[-10:])) for values in (losses, other_losses)],
        "mean difference": float(apart.mean()),
        "largest difference": float(apart.max()),
        # Of the way that the weights have gone.
        "weights": float(np.linalg.norm(other_end - end) / np.linalg.norm(end - start)),
        "scores": {name: [scores[name], other_scores[name]] for name in scores},
    }


def train(config: Config, dtype: str, seed: int, records: Records, targets: Targets, num_steps: int):
    """Losses, weights at start and end, and scores on test of a run in one dtype."""
    encoder = dataclasses.replace(config.model.encoder, dtype=dtype)
    config = dataclasses.replace(config, model=dataclasses.replace(config.model, encoder=encoder))
    run, state = build(config, seed, config.model.modalities, records, targets)
    weights, losses = {"start": flat(state.trainable)}, []
    batches = iter(run.batches)
    for _ in tqdm(range(num_steps), desc=f"seed {seed}, {dtype}", mininterval=5.0):
        state, metrics = run.train_step(state, run.frozen, partitioning.shard_batch(next(batches), run.mesh))
        losses.append(metrics["loss"])
    weights["end"] = flat(state.trainable)
    return [float(loss) for loss in losses], weights, overall(probe(run, state.trainable, ("test",)))


def flat(params: Any) -> np.ndarray:
    return np.concatenate([np.ravel(leaf) for leaf in jax.tree.leaves(params)])


def overall(table: pd.DataFrame) -> dict[str, float]:
    """Scores over all sites by target."""
    rows = table[(table["site"] == "overall") & (table["split"] == "test")]
    return {str(target): float(value) for target, value in zip(rows["target"], rows["value"], strict=True)}


def beyond(rows: list[dict[str, Any]]) -> list[str]:
    """A line for everything that is beyond the budget."""
    said = [
        f"seed {row['seed']}: {name} of the loss is {row[name]:.2%}, the budget {budget:.1%}"
        for row in rows
        for name, budget in (("mean difference", MEAN_BUDGET), ("largest difference", MAX_BUDGET))
        if not row[name] <= budget
    ]
    if len(rows) < 3:
        return said  # no noise to compare with
    for name in rows[0]["scores"]:
        ours, theirs = np.transpose([row["scores"][name] for row in rows])
        noise = float(np.std(ours, ddof=1))
        if not abs(theirs.mean() - ours.mean()) <= 2 * noise:
            said.append(f"{name}: {ours.mean():.3f} and {theirs.mean():.3f}; seeds differ by {noise:.3f}")
    return said


def to_text(rows: list[dict[str, Any]]) -> str:
    names = list(rows[0]["scores"])
    columns = ["seed", "last loss", "mean difference", "largest", "weights apart", *names]
    lines = [
        [
            str(row["seed"]),
            " / ".join(f"{loss:.4f}" for loss in row["last losses"]),
            *(f"{row[name]:.2%}" for name in ("mean difference", "largest difference", "weights")),
            *(" / ".join(f"{value:.3f}" for value in row["scores"][name]) for name in names),
        ]
        for row in rows
    ]
    return workload.table(columns, lines)


if __name__ == "__main__":
    main()

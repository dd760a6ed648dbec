"""What the losses on labels add to a training step, beside the text loss alone.

    python benchmarks/loss_cost.py --devices 8

A small LongNet on made-up bags, batch 64, spread over virtual CPU devices. Steps of the two programs take
turns, so that whatever else the machine does falls on both; the table shows medians, and the floating point
operations that the compiler counts.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from pathlib import Path

import numpy as np

BATCH, TILES, SITES, BINS, CLASSES, TEXT = 64, 127, 4, 4, 8, 384


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--devices", type=int, default=8, help="virtual CPU devices")
    parser.add_argument("--steps", type=int, default=30, help="timed steps of each program")
    parser.add_argument("--memory", type=int, default=256, help="cases in the Cox memory")
    parser.add_argument("--json", type=Path, help="write the numbers here too")
    options = parser.parse_args()
    if "jax" in sys.modules:
        sys.exit("run this as a script: the devices are made before jax is imported")
    os.environ["XLA_FLAGS"] = f"--xla_force_host_platform_device_count={options.devices}"
    rows = measure(options.steps, options.memory)
    print(f"{'losses':<16}{'ms a step':>12}{'over text':>12}{'GFLOP':>10}{'over text':>12}")
    base = rows[0]
    for row in rows:
        seconds, flops = row["seconds"] / base["seconds"] - 1, row["flops"] / base["flops"] - 1
        numbers = f"{1e3 * row['seconds']:>12.1f}{seconds:>+12.1%}{row['flops'] / 1e9:>10.3f}{flops:>+12.2%}"
        print(f"{row['name']:<16}{numbers}")
    if options.json:
        options.json.write_text(json.dumps({"devices": options.devices, "rows": rows}, indent=1))


def measure(num_steps: int, memory: int) -> list[dict]:
    """Median seconds and operations of a step for each set of losses."""
    from configs import common

    every = ("distillation", "cox", "discrete_hazard", "ranking", "text_similarity")
    programs = {
        "text": prepare(common.loss(distillation=1.0), 0),
        "text, cox": prepare(common.loss(distillation=1.0, cox=0.1), memory),
        "all five": prepare(common.loss(**dict.fromkeys(every, 1.0)), memory),
    }
    seconds: dict[str, list[float]] = {name: [] for name in programs}
    for i in range(num_steps + 2):
        for name, program in programs.items():
            start = time.perf_counter()
            program["run"]()
            if i >= 2:
                seconds[name].append(time.perf_counter() - start)
    return [
        {"name": name, "seconds": float(np.median(seconds[name])), "flops": program["flops"]}
        for name, program in programs.items()
    ]


def prepare(loss, memory: int) -> dict:
    """A compiled step on its own state, and its operations."""
    import jax
    from flax import nnx

    from configs import hipt
    from modaltune_jax import partitioning
    from modaltune_jax.config import unpack
    from modaltune_jax.losses.combine import LabelSpace, make_objective
    from modaltune_jax.losses.risk_memory import RiskMemory
    from modaltune_jax.models.heads import HeadsConfig
    from modaltune_jax.models.modalities import ModalInputs
    from modaltune_jax.models.modaltune import ModalTune
    from modaltune_jax.optim import make_optimizer, split_params
    from modaltune_jax.train_step import TrainState, make_train_step

    config_dict = hipt.get_config("pancancer,longnet")
    config_dict.loss = loss
    config = unpack(config_dict)
    names = config.loss.terms
    heads = HeadsConfig(True, BINS, TEXT) if len(names) > 2 else HeadsConfig("cox" in names)
    groups = tuple(np.arange(i, i + 6, dtype=np.int32) for i in range(20))
    model = ModalTune(config.model, ModalInputs(groups, 10), heads, rngs=nnx.Rngs(0))
    graphdef, state = nnx.split(model)
    trainable, frozen = split_params(nnx.to_pure_dict(state), config.optim.rules)
    rng = np.random.default_rng(0)
    bank = rng.normal(size=(CLASSES, TEXT)).astype(np.float32)
    edges = np.tile(np.float32([6, 20, 50]), (SITES, 1))
    space = LabelSpace(edges, bank, np.arange(CLASSES, dtype=np.int32) % SITES, np.ones(CLASSES, np.float32))
    optimizer = make_optimizer(config.optim, 100)
    mesh = partitioning.make_mesh(config.mesh)
    current = partitioning.replicate(
        TrainState(
            np.int32(0),
            np.uint32(0),
            trainable,
            optimizer.init(trainable),
            RiskMemory.empty(memory) if memory else None,
        ),
        mesh,
    )
    frozen = partitioning.replicate(frozen, mesh)
    batch = partitioning.shard_batch(make_batch(rng, config.model), mesh)
    step = make_train_step(graphdef, optimizer, make_objective(config.loss, space, 100), mesh, current)
    compiled = step.lower(current, frozen, batch).compile()

    def run() -> None:
        nonlocal current
        current, metrics = compiled(current, frozen, batch)
        jax.block_until_ready((current, metrics))

    # The compiler counts the operations of one device.
    return {"run": run, "flops": compiled.cost_analysis()["flops"] * mesh.size}


def make_batch(rng: np.random.Generator, model):
    from modaltune_jax.types import Batch

    normal = lambda *shape: rng.normal(size=shape).astype(np.float32)  # noqa: E731
    return Batch(
        features=normal(BATCH, TILES, model.encoder.in_dim),
        cells=rng.integers(0, 100, (BATCH, TILES, 2)).astype(np.int32),
        length=np.full(BATCH, TILES, np.int32),
        expression=normal(BATCH, 26),
        clinical=normal(BATCH, 10),
        present=np.ones((BATCH, 3), bool),
        targets=normal(BATCH, 3, model.embedding_dim),
        subtype=rng.integers(0, 2, BATCH).astype(np.int32),
        site=rng.integers(0, SITES, BATCH).astype(np.int32),
        time=rng.exponential(30, BATCH).astype(np.float32),
        event=rng.integers(0, 2, BATCH).astype(np.int32),
        weight=np.ones(BATCH, np.float32),
        index=np.arange(BATCH, dtype=np.int32),
    )


if __name__ == "__main__":
    main()

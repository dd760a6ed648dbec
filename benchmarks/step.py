"""Our training step on made-up bags: cases and tokens a second, share of the peak, memory.

    python benchmarks/step.py --encoders gigapath titan --tiles 2048 8192 --dtypes float32 --remat off on

The step is the real one, `train.make_train_step`: dropout, text loss, gradients, AdamW, donated state. Sizes
are published ones, weights random. Every combination is a process of its own, so that memory is its own and
one that does not fit ends no others.

Utilisation is the operations that the model needs (see `model_flops.py`) over time and peak. The peak of a
known accelerator is its maker's, in bfloat16; elsewhere it is the fastest of some large float32 products,
measured in the same process just after the steps. "estimate" is what `memory_plan` says before a step is
compiled, "plan" what the compiler sets aside for it, "peak" what the device or, on a CPU, the process has had
at most. --compile-only runs nothing: estimate and plan alone.
"""

from __future__ import annotations

import argparse
import dataclasses
import datetime
import itertools
import json
import os
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import workload

COLUMNS = (
    "encoder", "tiles", "batch", "dtype", "remat", "layers", "s a step", "cases/s", "tokens/s", "TFLOP/s",
    "of peak", "GB estimate", "GB plan", "GB peak",
)  # fmt: skip


@dataclasses.dataclass(frozen=True)
class Setting:
    """One row of the table."""

    encoder: str
    tiles: int
    batch: int
    dtype: str
    remat: bool
    is_scanned: bool
    steps: int
    is_small: bool
    is_run: bool


def measure(setting: Setting) -> dict:
    """Runs a setting in this process."""
    import jax
    from model_flops import known_peak, measured_peak, train_flops

    from modaltune_jax.host_memory import keep_memory

    keep_memory()
    config, compiled, estimate, state, frozen, batch = prepare(setting)
    plan = compiled.memory_analysis()
    memory_facts = {
        **dataclasses.asdict(setting),
        "estimate_bytes": estimate,
        "plan_bytes": plan.temp_size_in_bytes + plan.argument_size_in_bytes,
        "jax": jax.__version__,
    }
    if not setting.is_run:
        return memory_facts
    seconds = []
    for _ in range(1 + setting.steps):
        start = time.perf_counter()
        state, metrics = jax.block_until_ready(compiled(state, frozen, batch))
        seconds.append(time.perf_counter() - start)
    if not np.isfinite(metrics["loss"]):
        sys.exit(f"{setting}: the loss is {metrics['loss']}")
    device = jax.devices()[0]
    is_frozen = any(rule == "freeze" for _, rule in config.optim.rules)
    flops = setting.batch * train_flops(config.model, setting.tiles, is_frozen=is_frozen)
    best = min(seconds[1:])
    peak = known_peak(device.device_kind) or measured_peak()
    memory = device.memory_stats() or {"peak_bytes_in_use": workload.peak_resident()}
    return {
        **memory_facts,
        "seconds": seconds[1:],
        "cases/s": setting.batch / best,
        "tokens/s": setting.batch * len(config.model.tasks) * (setting.tiles + 1) / best,
        "flops": flops,
        "peak": peak,
        "utilisation": flops / best / peak,
        "peak_bytes": memory["peak_bytes_in_use"],
        "device": device.device_kind,
        "load": os.getloadavg()[0],
    }


def prepare(setting: Setting):
    """Config, compiled step, estimated bytes, and what it takes: state, frozen weights, batch."""
    from modaltune_jax.memory_plan import activations, device_bytes

    config, step, state, frozen, batch = make(setting)
    # Gradients are as large as their weights.
    estimate = device_bytes((state, state.trainable, frozen, batch))
    estimate += sum(activations(step, state, frozen, batch))
    compiled = step.lower(state, frozen, batch).compile()
    return config, compiled, estimate, state, frozen, batch


def make(setting: Setting):
    """Config, step, and what it takes: state, frozen weights, batch."""
    import jax
    from flax import nnx

    from modaltune_jax import partitioning
    from modaltune_jax.losses.combine import LabelSpace, make_objective
    from modaltune_jax.models.modalities import ModalInputs
    from modaltune_jax.models.modaltune import ModalTune
    from modaltune_jax.optim import make_optimizer, split_params
    from modaltune_jax.train_step import TrainState, make_train_step

    config = workload.published(
        setting.encoder,
        dtype=setting.dtype,
        remat=setting.remat,
        scan_layers=setting.is_scanned,
        is_small=setting.is_small,
    )
    groups = workload.gene_groups(setting.is_small)
    model = ModalTune(config.model, ModalInputs(groups, 5), rngs=nnx.Rngs(0))
    graphdef, weights = nnx.split(model)
    trainable, frozen = split_params(nnx.to_pure_dict(weights), config.optim.rules)
    optimizer = make_optimizer(config.optim, 100)
    space = LabelSpace(
        np.zeros((1, 3), np.float32),
        np.zeros((0, 1), np.float32),
        np.zeros(0, np.int32),
        np.zeros(0, np.float32),
    )
    mesh = partitioning.make_mesh(partitioning.MeshConfig(data=1))
    trainable, frozen = (partitioning.shard_params(params, mesh) for params in (trainable, frozen))
    state = TrainState(
        partitioning.replicate(jax.numpy.int32(0), mesh),
        partitioning.replicate(jax.numpy.uint32(0), mesh),
        trainable,
        partitioning.shard_opt_state(optimizer, trainable, mesh),
        None,
    )
    num_genes = 1 + max(int(group.max()) for group in groups)
    batch = workload.make_batch(
        setting.batch,
        setting.tiles,
        config.model.encoder.in_dim,
        num_genes,
        len(config.model.tasks),
        config.model.embedding_dim,
    )
    batch = partitioning.shard_batch(batch, mesh)
    step = make_train_step(graphdef, optimizer, make_objective(config.loss, space, 100), mesh, state)
    return config, step, state, frozen, batch


def in_own_process(setting: Setting) -> dict | None:
    """The row of a setting, None if its process failed; what it said is on stderr then."""
    command = [sys.executable, __file__, "--one", json.dumps(dataclasses.asdict(setting))]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True)
    return json.loads(done.stdout.splitlines()[-1]) if done.returncode == 0 else None


def shown(setting: Setting, row: dict | None) -> list[str]:
    words = [setting.encoder, str(setting.tiles), str(setting.batch), setting.dtype]
    words += ["on" if setting.remat else "off", "scanned" if setting.is_scanned else "one by one"]
    if row is None:
        return [*words, "failed", *[""] * 7]
    memory = [f"{row[key] / 1e9:.2f}" for key in ("estimate_bytes", "plan_bytes")]
    if not setting.is_run:
        return [*words, *[""] * 5, *memory, ""]
    best = min(row["seconds"])
    return [
        *words,
        f"{best:.3g}",
        f"{row['cases/s']:.3g}",
        f"{row['tokens/s']:.0f}",
        f"{row['flops'] / best / 1e12:.3g}",
        f"{row['utilisation']:.0%}",
        *memory,
        f"{row['peak_bytes'] / 1e9:.2f}",
    ]


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--encoders", nargs="+", choices=workload.ENCODERS, default=["gigapath"])
    parser.add_argument("--tiles", type=int, nargs="+", default=[2048, 8192])
    parser.add_argument("--batch", type=int, nargs="+", default=[1], help="cases a step")
    parser.add_argument("--dtypes", nargs="+", choices=("float32", "bfloat16"), default=["float32"])
    parser.add_argument("--remat", nargs="+", choices=("off", "on"), default=["off"])
    parser.add_argument(
        "--scan", nargs="+", choices=("off", "on"), default=["off"], help="model.encoder.scan_layers"
    )
    parser.add_argument("--steps", type=int, default=3, help="timed steps, after one to warm up")
    parser.add_argument("--compile-only", action="store_true", help="estimate and plan; runs nothing")
    parser.add_argument("--quick", action="store_true", help="toy sizes: tries the script, no result")
    parser.add_argument("--json", type=Path, help="write the numbers here too")
    parser.add_argument("--one", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.one is not None:
        print(json.dumps(measure(Setting(**json.loads(options.one)))))
        return
    if min(*options.tiles, *options.batch, options.steps) < 1:
        parser.error("--tiles, --batch and --steps must be positive")
    if options.quick:
        options.tiles, options.steps = [50], 1
    print(f"| {' | '.join(COLUMNS)} |\n|{'---|' * len(COLUMNS)}")
    rows = []
    choices = (options.encoders, options.tiles, options.batch, options.dtypes, options.remat, options.scan)
    for encoder, tiles, batch, dtype, remat, scan in itertools.product(*choices):
        flags = (remat == "on", scan == "on", options.steps, options.quick, not options.compile_only)
        setting = Setting(encoder, tiles, batch, dtype, *flags)
        row = in_own_process(setting)
        rows.append(row or {**dataclasses.asdict(setting), "failed": True})
        print(f"| {' | '.join(shown(setting, row))} |", flush=True)
    facts = {**workload.machine(), "date": str(datetime.date.today())}
    print(f"\n{json.dumps(facts)}")
    if options.json:
        options.json.write_text(json.dumps({**facts, "rows": rows}, indent=1), encoding="utf-8")
    if any("failed" in row for row in rows):
        sys.exit(1)


if __name__ == "__main__":
    main()

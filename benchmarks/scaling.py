"""What more devices cost: collectives of the compiled train step on 1, 2, 4, 8 virtual devices, and a model.

    python benchmarks/scaling.py [--quick] [--axes data fsdp sequence] [--json FILE]

The step is compiled, not run: collectives and memory are the compiler's, the efficiency is arithmetic from
link speed, peak and share of it that are flags. Along `data` and `fsdp` every device gets a case of its own
(weak scaling), along `sequence` one case is split (strong scaling). Nothing hides communication in the model.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
from pathlib import Path

DEVICES = (1, 2, 4, 8)


def main() -> None:
    options = _flags()
    os.environ["JAX_PLATFORMS"] = "cpu"
    os.environ["XLA_FLAGS"] = (
        f"--xla_force_host_platform_device_count={max(DEVICES)} --xla_backend_optimization_level=0 "
        + os.environ.get("XLA_FLAGS", "")
    )
    rows = [measure(axis, num, options) for axis in options.axes for num in DEVICES]
    for row in rows:
        alone = next(other for other in rows if other["axis"] == row["axis"] and other["devices"] == 1)
        work = row["devices"] if row["axis"] != "sequence" else 1
        row["efficiency"] = work * alone["seconds"] / (row["devices"] * row["seconds"])
    print(_table(rows))
    if options.json:
        options.json.write_text(
            json.dumps({"options": vars(options) | {"json": None}, "rows": rows}, indent=1)
        )


def measure(axis: str, num_devices: int, options: argparse.Namespace) -> dict:
    """One compiled step: collectives, memory and the model of its time."""
    from benchmarks.collectives import collectives

    compiled, encoder = compile_step(axis, num_devices, options)
    found = collectives(compiled.as_text())
    sent = sum(one.bytes_sent for one in found)
    memory = compiled.memory_analysis()
    split = num_devices if axis == "sequence" else 1
    compute = flops_of_a_device(encoder, options.tiles + 1, split) / (
        options.tflops * 1e12 * options.utilisation
    )
    return {
        "axis": axis,
        "devices": num_devices,
        "collectives": [dataclasses.asdict(one) for one in found],
        "bytes sent": sent,
        "MiB a device": (memory.temp_size_in_bytes + memory.argument_size_in_bytes) / 2**20,
        "compute": compute,
        "seconds": compute + sent / (options.link * 1e9),
    }


def compile_step(axis: str, num_devices: int, options: argparse.Namespace):
    """The train step for cases of `tiles` tiles, one a device of `data` or `fsdp`, and its encoder."""
    import numpy as np
    import optax

    from benchmarks.abstract_step import train_step
    from configs import common
    from modaltune_jax import partitioning
    from modaltune_jax.config import unpack

    config = common.get_config()
    width, depth = options.width, options.depth
    sizes = {"width": width, "depth": depth, "ffn_dim": 4 * width, "num_heads": 16, "remat": True}
    config.model.encoder.update({**sizes, "in_dim": 2 * width})
    config.model.adapter.update({"stages": ((0, depth),), "num_heads": 4})
    config = unpack(config)
    mesh = partitioning.make_mesh(dataclasses.replace(config.mesh, **{"data": 1, axis: num_devices}))
    cases, genes = partitioning.num_case_shards(mesh), (np.arange(5), np.arange(7))
    optimizer = optax.sgd(1e-3)  # no state, which would hide the sizes of interest
    step, shapes = train_step(config, genes, cases, options.tiles, mesh, optimizer)
    return step.lower(*shapes).compile(), config.model.encoder


def flops_of_a_device(encoder, tokens: int, split: int) -> float:
    """Operations of the encoder in a step of a case and three tasks, on one of `split` devices that share it.

    Forward and backward of linear layers 2 x (frozen weights), of attention 3.5 x. A device whose rows lie in
    two segments computes its queries against both, which is counted.
    """
    from modaltune_jax.models.encoders.split_rows import SplitRows

    width, rows = encoder.width, tokens // split
    linear = 2.0 * rows * (4 * width**2 + 2 * width * encoder.ffn_dim)
    attention = 0.0
    for segment, ratio in zip(encoder.segment_lengths, encoder.dilated_ratios, strict=True):
        rows_of = SplitRows(rows, min(segment, tokens), split)
        queries = min(rows_of.segment, rows) / ratio
        attention += 4.0 * width * rows_of.num_windows * queries * rows_of.segment / ratio
    return 3 * encoder.depth * (2 * linear + 3.5 * attention)


def _table(rows: list[dict]) -> str:
    lines = [
        "| axis | devices | collectives | MB sent by a device | MiB a device | efficiency (model) |",
        "|---|---|---|---|---|---|",
    ]
    for row in rows:
        kinds = ", ".join(f"{one['count']} {one['kind']}" for one in row["collectives"]) or "none"
        lines.append(
            f"| {row['axis']} | {row['devices']} | {kinds} | {row['bytes sent'] / 1e6:.1f} "
            f"| {row['MiB a device']:.0f} | {row['efficiency']:.2f} |"
        )
    return "\n".join(lines)


def _flags() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--axes", nargs="+", choices=("data", "fsdp", "sequence"), default=None)
    parser.add_argument("--tiles", type=int, default=25_599, help="a case; one more must divide by 128")
    parser.add_argument("--width", type=int, default=768, help="of the encoder, a multiple of 64")
    parser.add_argument("--depth", type=int, default=12, help="of the encoder")
    parser.add_argument(
        "--link", type=float, default=90.0, help="GB/s that a device sends at (v5p: 90 a link)"
    )
    parser.add_argument("--tflops", type=float, default=459.0, help="peak of a device (v5p: 459, bfloat16)")
    parser.add_argument("--utilisation", type=float, default=0.4, help="share of the peak that is reached")
    parser.add_argument("--quick", action="store_true", help="a small model, to see that this runs")
    parser.add_argument("--json", type=Path, help="where to write all of it")
    options = parser.parse_args()
    options.axes = options.axes or ["data", "fsdp", "sequence"]
    if options.quick:
        options.tiles, options.width, options.depth = 127, 64, 1
    if (options.tiles + 1) % 128:
        parser.error(
            f"--tiles={options.tiles}: one more must divide by 128, as {options.tiles // 128 * 128 + 127}"
        )
    return options


if __name__ == "__main__":
    main()

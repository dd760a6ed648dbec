"""The real train step compiled for TPUs on a machine that has none: does it compile, and does it fit?

    pip install "modaltune_jax[tpu-compiler]"
    python benchmarks/compile_tpu.py --chips v5e --tiles 10240 --meshes 1,1,1 4,2,2 --json compile_tpu.json

Prov-GigaPath, adapter, three tasks and AdamW as the default config has them, bfloat16, the attention
kernels of TPUs; shapes alone, no weights. Memory and collectives are the compiler's own, of one chip; nothing
is executed. Of a loop the compiler tells FLOPs and bytes of one round, so with layers scanned they are left
out, and collectives are those of one round; "model" is what a chip has to do by the formula of
`model_flops.py`, which counts nothing twice. Fails if a plan needs more memory than a chip has.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import math
import os
import re
import sys
import time
from collections import Counter
from pathlib import Path
from typing import Any

GIB = 2**30
MEMORY = {"v5e": 15.75 * GIB, "v5p": 95.74 * GIB, "v6e": 31.25 * GIB}
"""Bytes that a program may use of a chip."""

TOPOLOGIES = {
    "v5e": {4: "2x2", 8: "2x4", 16: "4x4", 32: "4x8", 64: "8x8", 128: "8x16", 256: "16x16"},
    "v5p": {4: "2x2x1", 8: "2x2x2", 16: "2x2x4", 32: "2x4x4", 64: "4x4x4", 128: "4x4x8", 256: "4x8x8"},
}
TOPOLOGIES["v6e"] = TOPOLOGIES["v5e"]
"""Slices by number of chips; a mesh takes the smallest that holds it."""


_COLLECTIVE = re.compile(
    r" = (.*?) (all-reduce|all-gather|reduce-scatter|collective-permute|all-to-all)(-start)?\("
)
_ARRAY = re.compile(r"\b(pred|[suf]\d+|bf16)\[([\d,]*)\]")


@dataclasses.dataclass(frozen=True)
class Plan:
    """What is compiled: `cases` a group of devices that hold a case, on a mesh (data, fsdp, sequence)."""

    chip: str
    mesh: tuple[int, int, int]
    tiles: int
    cases: int

    @property
    def topology(self) -> str:
        """The slice, as libtpu names it."""
        sizes = TOPOLOGIES[self.chip]
        return f"{self.chip}:{sizes[min(size for size in sizes if size >= math.prod(self.mesh))]}"


def main() -> None:
    arguments = parse_arguments()
    os.environ.setdefault("JAX_PLATFORMS", "cpu")
    # libtpu would look for the machine with TPUs around it.
    os.environ.setdefault("TPU_SKIP_MDS_QUERY", "1")
    os.environ.setdefault("TPU_WORKER_HOSTNAMES", "localhost")
    rows = []
    print(to_markdown([]), flush=True)
    for plan in arguments.plans:
        rows.append(compile_plan(plan, arguments))
        print(to_markdown_row(rows[-1]), flush=True)
        if arguments.json:
            arguments.json.write_text(json.dumps({"rows": rows}, indent=2) + "\n")
    too_large = [row for row in rows if not row["fits"]]
    for row in too_large:
        print(
            f"{row['chip']}, mesh {row['mesh']}, {row['tiles']:,} tiles: {row['peak_bytes'] / GIB:.1f} GiB "
            f"do not fit in {MEMORY[row['chip']] / GIB:.2f} GiB; use more of sequence, fewer cases, or remat",
            file=sys.stderr,
        )
    sys.exit(1 if too_large else 0)


def parse_arguments(words: list[str] | None = None) -> argparse.Namespace:
    """The flags, with `plans`: every chip with every mesh and every length."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--chips", nargs="+", default=list(MEMORY), choices=list(MEMORY))
    parser.add_argument("--tiles", type=int, nargs="+", default=[2_048, 10_240, 25_600])
    parser.add_argument(
        "--meshes", nargs="+", type=_mesh, default=[(1, 1, 1), (4, 2, 2)], help="data,fsdp,sequence"
    )
    parser.add_argument("--cases", type=int, default=1, help="for each device along data and fsdp")
    parser.add_argument("--attention", default="auto", help="model.encoder.attention")
    parser.add_argument("--dtype", default="bfloat16", help="model.encoder.dtype")
    parser.add_argument("--no-remat", dest="remat", action="store_false")
    parser.add_argument("--unrolled", dest="scan_layers", action="store_false", help="layers one by one")
    parser.add_argument("--tiny", action="store_true", help="a small model: to see that it compiles")
    parser.add_argument("--json", type=Path, help="file to write the numbers to")
    arguments = parser.parse_args(words)
    if min(*arguments.tiles, arguments.cases) < 1:
        parser.error("--tiles and --cases must be 1 or more")
    arguments.plans = [
        Plan(chip, mesh, tiles, arguments.cases)
        for chip in arguments.chips
        for mesh in arguments.meshes
        for tiles in arguments.tiles
    ]
    return arguments


def _mesh(word: str) -> tuple[int, int, int]:
    sizes = tuple(int(size) for size in word.split(","))
    if len(sizes) != 3 or min(sizes) < 1 or math.prod(sizes) > 256:
        raise argparse.ArgumentTypeError(f"{word!r} must be data,fsdp,sequence, as 4,2,2; 256 chips at most")
    return sizes


def compile_plan(plan: Plan, arguments: argparse.Namespace) -> dict[str, Any]:
    """Compiles the step of a plan and asks the compiler about it."""
    import jax
    import numpy as np
    from jax.experimental import topologies
    from jax.sharding import AxisType, Mesh

    from benchmarks.abstract_step import train_step
    from benchmarks.model_flops import train_flops
    from benchmarks.workload import gene_groups
    from modaltune_jax.partitioning import AXES

    chips = topologies.get_topology_desc(topology_name=plan.topology, platform="tpu").devices
    devices: np.ndarray = np.array(chips[: math.prod(plan.mesh)]).reshape(plan.mesh)
    mesh = Mesh(devices, AXES, axis_types=(AxisType.Auto,) * 3)
    cases = plan.cases * plan.mesh[0] * plan.mesh[1]
    config = make_config(arguments)
    step, shapes = train_step(config, gene_groups(arguments.tiny), cases, plan.tiles, mesh)
    start = time.perf_counter()
    # The kernels' compiler asks the mesh in use for the kind of chip.
    with jax.set_mesh(mesh):
        compiled = step.lower(*shapes).compile()
    flops = train_flops(config.model, plan.tiles, is_frozen=True) * cases / math.prod(plan.mesh)
    return {
        **{"chip": plan.chip, "topology": plan.topology, "mesh": list(plan.mesh)},
        **{"tiles": plan.tiles, "cases": cases, "scanned": arguments.scan_layers, "model_flops": flops},
        "seconds": time.perf_counter() - start,
        **facts(compiled, MEMORY[plan.chip], has_loops=arguments.scan_layers),
    }


def make_config(arguments: argparse.Namespace) -> Any:
    """The defaults in the precision and with the attention that are asked for."""
    from configs import common
    from modaltune_jax.config import unpack

    config = common.get_config()
    if arguments.tiny:
        config.model.encoder.update({"in_dim": 32, "width": 64, "depth": 2, "num_heads": 4, "ffn_dim": 64})
        config.model.encoder.update({"segment_lengths": (128, 512), "dilated_ratios": (1, 2)})
        config.model.adapter.update({"stages": ((0, 1), (1, 2)), "num_heads": 2})
        config.model.pathways.update({"latent_dim": 8, "depth": 1, "num_tokens": 3})
    for name in ("dtype", "attention", "remat", "scan_layers"):
        config.model.encoder[name] = getattr(arguments, name)
    return unpack(config)


def facts(compiled: Any, memory: float, *, has_loops: bool) -> dict[str, Any]:
    """What the compiler says of a program, of each chip."""
    cost, text = compiled.cost_analysis(), compiled.as_text()
    peak = compiled.memory_analysis().peak_memory_in_bytes
    return {
        "flops": None if has_loops else cost["flops"],
        "bytes": None if has_loops else cost["bytes accessed"],
        "peak_bytes": peak,
        "fits": peak <= memory,
        "kernels": text.count('custom_call_target="tpu_custom_call"'),
        "collectives": collectives(text),
    }


def collectives(text: str) -> dict[str, dict[str, int]]:
    """By name, how often a program has a collective, and the bytes they give; loops count one round."""
    counts: Counter[str] = Counter()
    sizes: Counter[str] = Counter()
    for shapes, name, is_start in _COLLECTIVE.findall(text):
        arrays = [_num_bytes(*array) for array in _ARRAY.findall(shapes)]
        counts[name] += 1
        # What starts and is waited for later gives its operands back beside its results.
        sizes[name] += max(arrays) if is_start else sum(arrays)
    return {name: {"count": counts[name], "bytes": sizes[name]} for name in sorted(counts)}


def _num_bytes(dtype: str, shape: str) -> int:
    bits = 8 if dtype == "pred" else int(re.sub(r"\D", "", dtype))
    return math.prod(int(size) for size in shape.split(",") if size) * bits // 8


_HEAD = (
    "| chip | slice | data, fsdp, sequence | tiles | cases | layers | TFLOP, model | compiler | GB moved "
    "| peak GiB | of | kernels | collectives (MB) | compiled in s |"
)


def to_markdown(rows: list[dict[str, Any]]) -> str:
    return "\n".join([_HEAD, "|" + "---|" * (_HEAD.count("|") - 1), *map(to_markdown_row, rows)])


def to_markdown_row(row: dict[str, Any]) -> str:
    talk = [f"{x['count']} {name} ({x['bytes'] / 1e6:.1f})" for name, x in row["collectives"].items()]
    counted = ("", "") if row["scanned"] else (f"{row['flops'] / 1e12:.1f}", f"{row['bytes'] / 1e9:.0f}")
    cells = (
        *(row["chip"], row["topology"].split(":")[1], ", ".join(map(str, row["mesh"]))),
        *(f"{row['tiles']:,}", row["cases"], "scanned" if row["scanned"] else "unrolled"),
        *(f"{row['model_flops'] / 1e12:.1f}", *counted),
        *(f"{row['peak_bytes'] / GIB:.2f}", f"{MEMORY[row['chip']] / GIB:.2f}", row["kernels"]),
        *(", ".join(talk) or "none", f"{row['seconds']:.0f}"),
    )
    return f"| {' | '.join(map(str, cells))} |"


if __name__ == "__main__":
    main()

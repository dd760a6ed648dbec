"""Time and memory of the full-size TITAN encoder: linear in the number of cells, without a matrix of biases.

    python benchmarks/titan_memory.py --json titan_memory.json

One forward pass of random weights (slide embedding, float32) for each number of foreground cells, in a
process of its own. Memory is the process's peak of resident pages above that of a process which has
imported the same and computed nothing. Stored for all pairs of 20 000 cells and 12 heads, the biases alone
would be 19 GB.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import time
from pathlib import Path

GIGABYTE = 1e9


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--cells", type=int, nargs="+", default=[1_000, 5_000, 20_000])
    parser.add_argument("--json", type=Path, help="file to write the numbers to")
    parser.add_argument("--one", type=int, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.one is not None:
        print(json.dumps(measure(arguments.one)))
        return
    idle = in_own_process(0)["peak_bytes"]
    rows = [in_own_process(num_cells) for num_cells in arguments.cells]
    rows = [row | {"peak_bytes": row["peak_bytes"] - idle} for row in rows]
    print(to_markdown(rows))
    if arguments.json:
        arguments.json.write_text(json.dumps({"idle_bytes": idle, "rows": rows}, indent=2) + "\n")


def in_own_process(num_cells: int) -> dict[str, float]:
    """`measure` in a fresh interpreter: a peak never falls."""
    command = [sys.executable, __file__, "--one", str(num_cells)]
    return json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout)


def measure(num_cells: int) -> dict[str, float]:
    """Seconds of one compiled forward pass, and the process's peak of resident memory; 0 cells is idle."""
    import jax
    import numpy as np
    from flax import nnx

    from modaltune_jax.models.encoders.titan import Titan, TitanConfig

    seconds = 0.0
    jax.devices()
    if num_cells:
        graphdef, params = nnx.split(Titan(TitanConfig.published(), rngs=nnx.Rngs(0)))
        rng = np.random.default_rng(0)
        side = int(np.ceil((2 * num_cells) ** 0.5))  # half of the grid is tissue
        flat = np.sort(rng.choice(side * side, num_cells, replace=False))
        cells = np.stack([flat % side, flat // side], axis=-1).astype(np.int32)[None]
        features = rng.normal(size=(1, num_cells, 768)).astype(np.float32)
        length = np.array([num_cells], np.int32)
        embed = jax.jit(lambda params, *bag: nnx.merge(graphdef, params)(*bag))
        compiled = embed.lower(params, features, cells, length).compile()
        start = time.perf_counter()
        embedding = compiled(params, features, cells, length).block_until_ready()
        seconds = time.perf_counter() - start
        assert np.isfinite(embedding).all()
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    # Linux counts kibibytes, macOS bytes.
    return {
        "cells": num_cells,
        "seconds": seconds,
        "peak_bytes": peak * (1 if sys.platform == "darwin" else 1024),
    }


def to_markdown(rows: list[dict[str, float]]) -> str:
    lines = ["| cells | seconds | peak GB | MB per 1 000 cells more |", "|---|---|---|---|"]
    for before, row in zip([None, *rows[:-1]], rows, strict=True):
        slope = ""
        if before is not None:
            growth = (row["peak_bytes"] - before["peak_bytes"]) / (row["cells"] - before["cells"])
            slope = f"{growth / 1e3:.0f}"
        lines.append(
            f"| {row['cells']:,} | {row['seconds']:.1f} | {row['peak_bytes'] / GIGABYTE:.2f} | {slope} |"
        )
    return "\n".join(lines)


if __name__ == "__main__":
    main()

"""Whether input limits training: steps fed by the pipeline beside the same steps on a batch that is there.

    python benchmarks/input_limits.py --folder /fast/disk

The accelerator is simulated: a step takes 40 ms a case and does nothing but pass the time, as a device does
while the host is free. All else is real: bags of 10 240 tiles of width 1536 in records on disk, read and
verified by Grain's threads, batched by `train_batches`, placed by `partitioning.shard_batch`, which is the
transfer. As in training, the host makes the next batch ready while a step runs, and no step begins before
the last has ended and its own batch has arrived. The first batches are not timed: they wait for the first
files.

Fails, with exit code 1, where a fed step takes over 5 % longer than one on the same batch again and again.
"""

from __future__ import annotations

import argparse
import datetime
import json
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import jax
import numpy as np
import pipeline
import workload

from modaltune_jax import partitioning
from modaltune_jax.inputs import records
from modaltune_jax.inputs.cohort import CohortSpec
from modaltune_jax.inputs.collate import PipelineConfig
from modaltune_jax.inputs.genesets import GeneSets
from modaltune_jax.inputs.pipeline import Batches, train_batches
from modaltune_jax.inputs.transforms import fit_transforms
from modaltune_jax.types import Batch

TILES, SECONDS_A_CASE, LIMIT = 10_240, 0.040, 1.05
WARM_UP = 3
COLUMNS = ("features", "cases a step", "threads", "resident ms", "fed ms", "ratio", "GB/s")


class Device:
    """Runs one step after another, each for a fixed time."""

    def __init__(self, seconds_a_case: float):
        self._seconds_a_case = seconds_a_case
        self._end = time.perf_counter()

    def step(self, batch: Batch) -> None:
        """Returns when the step has begun: the one before has ended, and the batch is on the device."""
        jax.block_until_ready(batch)
        time.sleep(max(self._end - time.perf_counter(), 0.0))
        self._end = time.perf_counter() + self._seconds_a_case * len(batch.length)

    def finish(self) -> None:
        time.sleep(max(self._end - time.perf_counter(), 0.0))


def seconds_a_step(next_batch: Callable[[], Batch], seconds_a_case: float, num_steps: int) -> float:
    """Of `num_steps` steps, after some that warm up."""
    device = Device(seconds_a_case)
    for i in range(WARM_UP + num_steps):
        if i == WARM_UP:
            device.finish()
            start = time.perf_counter()
        device.step(next_batch())
    device.finish()
    return (time.perf_counter() - start) / num_steps


def write_records(folder: Path, dtype: str, num_cases: int, tiles: int) -> None:
    records.write(
        folder,
        pipeline.cases([[tiles]] * num_cases, dtype),
        genes=(),
        gene_sets=GeneSets((), ()),
        specs=(CohortSpec("made", "Made up", "tissue"),),
        source="benchmark",
        encoder="none",
    )


def make_batches(folder: Path, batch_size: int, threads: int, tiles: int) -> Batches:
    """Training batches without end, of the default pipeline but for its sizes."""
    read = records.Records(folder)
    config = PipelineConfig(
        batch_size=batch_size,
        tokens_per_batch=batch_size * tiles,
        max_tiles=tiles,
        modalities=("slides",),
        num_threads=threads,
    )
    transforms = fit_transforms([read.without_slides(i) for i in range(read.num_cases)])
    targets = np.zeros((read.num_cases, 1, 1), np.float32)
    return train_batches(read, read.rows("train"), targets, transforms, config, seed=0)


def measure(folder: Path, dtype: str, batch_size: int, threads: int, options: argparse.Namespace) -> dict:
    """The median of some rounds, resident and fed taking turns."""
    mesh = partitioning.make_mesh(partitioning.MeshConfig(data=1))
    batches = iter(make_batches(folder, batch_size, threads, options.tiles))
    resident = jax.block_until_ready(partitioning.shard_batch(next(batches), mesh))
    sources = {
        "resident": lambda: resident,
        "fed": lambda: partitioning.shard_batch(next(batches), mesh),
    }
    seconds: dict[str, list[float]] = {name: [] for name in sources}
    for _ in range(options.rounds):
        for name, source in sources.items():
            seconds[name].append(seconds_a_step(source, options.milliseconds / 1000, options.steps))
    median = {name: float(np.median(times)) for name, times in seconds.items()}
    return {
        "features": dtype,
        "cases a step": len(resident.length),
        "threads": threads,
        "resident ms": 1000 * median["resident"],
        "fed ms": 1000 * median["fed"],
        "ratio": median["fed"] / median["resident"],
        "GB/s": resident.features.nbytes / median["fed"] / 1e9,
    }


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("--cases", type=int, default=24)
    add("--tiles", type=int, default=TILES)
    add("--milliseconds", type=float, default=1000 * SECONDS_A_CASE, help="of the device, a case")
    add("--batch", type=int, nargs="+", default=[1, 4])
    add("--threads", type=int, nargs="+", default=[2])
    add("--dtypes", nargs="+", default=["float32", "float16"], choices=("float32", "float16"))
    add("--steps", type=int, default=24, help="timed, in a round")
    add("--rounds", type=int, default=3, help="resident and fed take turns; the median counts")
    add("--folder", type=Path, help="where to make the temporary records")
    add("--quick", action="store_true", help="a few small bags: tries the script, no result")
    add("--json", type=Path, help="write the table here too")
    options = parser.parse_args()
    if options.quick:
        options.cases, options.tiles, options.batch, options.steps, options.rounds = 4, 64, [2], 3, 1
    rows = []
    print(f"| {' | '.join(COLUMNS)} |\n|{'---|' * len(COLUMNS)}")
    with tempfile.TemporaryDirectory(dir=options.folder) as folder:
        for dtype in options.dtypes:
            write_records(Path(folder) / dtype, dtype, options.cases, options.tiles)
            for batch_size in options.batch:
                for threads in options.threads:
                    row = measure(Path(folder) / dtype, dtype, batch_size, threads, options)
                    rows.append(row)
                    numbers = (
                        f"{row[name]:.{digits}f}"
                        for name, digits in zip(COLUMNS[3:], (1, 1, 3, 2), strict=True)
                    )
                    print(
                        f"| {dtype} | {row['cases a step']} | {threads} | {' | '.join(numbers)} |", flush=True
                    )
    facts = {**workload.machine(), "date": str(datetime.date.today())}
    print(f"\n{json.dumps(facts)}")
    if options.json:
        options.json.write_text(json.dumps({**facts, "rows": rows}, indent=1), encoding="utf-8")
    if not options.quick and max(row["ratio"] for row in rows) > LIMIT:
        sys.exit(f"input limits training: over {LIMIT} times the step on a resident batch")


if __name__ == "__main__":
    main()

"""How fast bags arrive: our records through Grain beside one torch file a slide through torch's DataLoader.

    python benchmarks/pipeline.py --folder /fast/disk

Both read the same made-up cases: random float32 features of GigaPath's width, bag lengths log-normal, every
fourth case of two slides. Theirs is the published way: `torch.load` of `{"features", "coords"}` slide by
slide, coordinates shifted, concatenated, at most 25 000 random tiles, and a shuffled `DataLoader` of batch
size 1 with worker processes that persist. Ours is `eval_batches` of the same cases, one a batch, with as many
threads: what `train_batches` does, but it ends with the epoch and reads nothing of the next, as torch's does.
What arrives is touched, one number a page, so that nobody wins by not reading.

Every pipeline lives in a process of its own; epochs take turns, so that whatever else the machine does falls
on all. The table shows the fastest epoch of each; files are in the page cache. The resident memory of the
main process is noted after every epoch. Ours keeps buffers for what is read ahead; it levels off when each
has held the largest bag.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import multiprocessing
import multiprocessing.connection
import os
import sys
import tempfile
import time
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import numpy as np

WIDTH, MAX_TILES, SPREAD = 1536, 25_000, 0.5
FLOATS_A_PAGE = 1024
PIPELINES = {"torch": "torch .pt", "float32": "records", "float16": "records, stored as float16"}
COLUMNS = (
    "pipeline",
    "workers",
    "bags/s",
    "GB/s",
    "times torch",
    "MiB after epoch 1",
    "halfway",
    "at the end",
)


def slide_lengths(num_cases: int, median_tiles: int) -> list[list[int]]:
    """Tiles of every slide of every case."""
    tiles = np.random.default_rng(0).lognormal(np.log(median_tiles), SPREAD, num_cases).astype(int)
    return [[int(n)] if i % 4 else [int(n) // 3, int(n) - int(n) // 3] for i, n in enumerate(tiles)]


def write_files(folder: Path, lengths: Sequence[Sequence[int]]) -> None:
    """The cases as torch files, one a slide, and as records of two precisions."""
    from modaltune_jax.inputs import records
    from modaltune_jax.inputs.cohort import CohortSpec
    from modaltune_jax.inputs.genesets import GeneSets

    for dtype in ("float32", "float16"):
        records.write(
            folder / dtype,
            cases(lengths, dtype),
            genes=(),
            gene_sets=GeneSets((), ()),
            specs=(CohortSpec("made", "Made up", "tissue"),),
            source="benchmark",
            encoder="none",
        )
    if importlib.util.find_spec("torch") is not None:
        import torch

        for case in cases(lengths, "float32"):
            (folder / "torch" / case.id).mkdir(parents=True)
            for slide in case.slides:
                tensors = {"features": slide.features, "coords": slide.coords.astype(np.int64)}
                tensors = {name: torch.from_numpy(array) for name, array in tensors.items()}
                torch.save(tensors, folder / "torch" / case.id / f"{slide.id}.pt")


def cases(lengths: Sequence[Sequence[int]], dtype: str) -> Iterator:
    """The same cases every time."""
    from modaltune_jax.types import Case, Labels, Slide

    for i, slides in enumerate(lengths):
        rng = np.random.default_rng(i)
        made = []
        for j, num_tiles in enumerate(slides):
            features = rng.standard_normal((num_tiles, WIDTH), np.float32).astype(dtype)
            side = int(np.sqrt(num_tiles)) + 1
            coords = np.stack([np.arange(num_tiles) % side, np.arange(num_tiles) // side], axis=1) * 256
            made.append(Slide(f"{i}-{j}", features, coords.astype(np.int32), 256))
        yield Case(f"{i:04d}", "made", "train", tuple(made), None, Labels())


def torch_epochs(folder: Path, workers: int) -> Iterator[Iterable[tuple[np.ndarray, np.ndarray]]]:
    """Epoch after epoch of (features, coordinates) of the published way."""
    import torch
    from torch.utils.data import DataLoader, Dataset

    class Bags(Dataset):
        folders = sorted((folder / "torch").iterdir())

        def __len__(self) -> int:
            return len(self.folders)

        def __getitem__(self, i: int) -> tuple[torch.Tensor, torch.Tensor]:
            features, coords = [], []
            offset = 0
            for path in sorted(self.folders[i].iterdir()):
                slide = torch.load(path)
                features.append(slide["features"])
                coords.append(slide["coords"] + torch.tensor([0, offset]))
                offset += int(slide["coords"][:, 1].max())
            features, coords = torch.cat(features), torch.cat(coords)
            if len(features) > MAX_TILES:
                rows = torch.randperm(len(features))[:MAX_TILES].sort().values
                features, coords = features[rows], coords[rows]
            return features, coords

    loader = DataLoader(
        Bags(),
        batch_size=1,
        shuffle=True,
        num_workers=workers,
        persistent_workers=True,
        multiprocessing_context="fork",  # what a script gets; a spawned process would spawn
    )
    while True:
        yield ((features[0].numpy(), coords[0].numpy()) for features, coords in loader)


def record_epochs(folder: Path, workers: int) -> Iterator[Iterable[tuple[np.ndarray, np.ndarray]]]:
    """Epoch after epoch of (features, cells) of ours."""
    from modaltune_jax.inputs.collate import PipelineConfig
    from modaltune_jax.inputs.pipeline import eval_batches
    from modaltune_jax.inputs.records import Records
    from modaltune_jax.inputs.transforms import fit_transforms

    records = Records(folder)
    config = PipelineConfig(
        batch_size=1,
        max_tiles=MAX_TILES,
        modalities=("slides",),
        num_threads=workers,
        prefetch=2 * workers,  # as many as torch's
    )
    transforms = fit_transforms([records.without_slides(i) for i in range(records.num_cases)])
    targets = np.zeros((records.num_cases, 1, 1), np.float32)
    batches = eval_batches(records, records.rows("train"), targets, transforms, config)
    while True:
        yield ((b.features[0, : b.length[0]], b.cells[0, : b.length[0]]) for b in batches)


def serve(
    name: str, folder: Path, workers: int, num_bags: int, connection: multiprocessing.connection.Connection
) -> None:
    """Runs an epoch and answers (seconds, bytes, resident bytes) whenever asked, until told to stop."""
    epochs = torch_epochs(folder, workers) if name == "torch" else record_epochs(folder / name, workers)
    while connection.recv():
        start = time.perf_counter()
        num_bytes = arrived = 0
        for features, coords in next(epochs):
            features.reshape(-1)[::FLOATS_A_PAGE].sum()
            coords.reshape(-1)[::FLOATS_A_PAGE].sum()
            num_bytes += features.nbytes
            arrived += 1
        if arrived != num_bags:
            sys.exit(f"{PIPELINES[name]}: {arrived} bags in an epoch of {num_bags}")
        connection.send((time.perf_counter() - start, num_bytes, resident()))


def resident() -> int:
    """Resident memory of this process in bytes."""
    with open("/proc/self/statm", encoding="ascii") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def measure(folder: Path, workers: int, num_bags: int, epochs: int) -> list[dict]:
    """One row a pipeline; the first epoch of each warms the cache and is not timed."""
    context = multiprocessing.get_context("spawn")
    names = [name for name in PIPELINES if (folder / name).is_dir()]
    served = {}
    answers: dict[str, list[tuple[float, int, int]]] = {name: [] for name in names}
    for name in names:
        served[name], theirs = context.Pipe()
        context.Process(target=serve, args=(name, folder, workers, num_bags, theirs)).start()
        theirs.close()
    try:
        for _ in range(epochs):
            for name, connection in served.items():
                connection.send(True)
                answers[name].append(connection.recv())
    finally:
        for connection in served.values():
            connection.send(False)
    best = {name: min(answer[0] for answer in answers[name][1:]) for name in names}
    return [
        {
            "pipeline": PIPELINES[name],
            "workers": workers,
            "bags/s": num_bags / best[name],
            "GB/s": answers[name][0][1] / best[name] / 1e9,
            "times torch": best["torch"] / best[name] if "torch" in best else None,
            "MiB by epoch": [answer[2] / 2**20 for answer in answers[name]],
        }
        for name in names
    ]


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--cases", type=int, default=24)
    parser.add_argument("--tiles", type=int, default=8000, help="median number of tiles of a case")
    parser.add_argument("--workers", type=int, nargs="+", default=[2, 4])
    parser.add_argument("--epochs", type=int, default=10, help="of each pipeline; the first is not timed")
    parser.add_argument("--folder", type=Path, help="where to make the temporary files, 2.5 times a data set")
    parser.add_argument("--quick", action="store_true", help="a few small bags: tries the script, no result")
    parser.add_argument("--json", type=Path, help="write the table here too")
    options = parser.parse_args()
    if options.epochs < 2:
        parser.error("--epochs must be at least 2: the first is not timed")
    if options.quick:
        options.cases, options.tiles, options.workers, options.epochs = 4, 50, [2], 2
    if importlib.util.find_spec("torch") is None:
        print("torch is not installed: there is nothing to compare with", file=sys.stderr)
    with tempfile.TemporaryDirectory(dir=options.folder) as folder:
        lengths = slide_lengths(options.cases, options.tiles)
        write_files(Path(folder), lengths)
        rows = []
        print(f"| {' | '.join(COLUMNS)} |\n|{'---|' * len(COLUMNS)}")
        for workers in options.workers:
            for row in measure(Path(folder), workers, options.cases, options.epochs):
                rows.append(row)
                ratio = "" if row["times torch"] is None else f"{row['times torch']:.1f}"
                numbers = f"{workers} | {row['bags/s']:.0f} | {row['GB/s']:.2f} | {ratio}"
                memory = row["MiB by epoch"]
                memory = " | ".join(f"{memory[i]:.0f}" for i in (0, len(memory) // 2, -1))
                print(f"| {row['pipeline']} | {numbers} | {memory} |", flush=True)
    if options.json:
        tiles = [sum(case) for case in lengths]
        facts = {"tiles": tiles, "cores": os.cpu_count(), "epochs": options.epochs, "rows": rows}
        options.json.write_text(json.dumps(facts, indent=1), encoding="utf-8")


if __name__ == "__main__":
    main()

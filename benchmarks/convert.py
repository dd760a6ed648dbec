"""Conversion of full-size checkpoints: seconds, memory, and the way back bit for bit.

    python benchmarks/convert.py

Every checkpoint of tests/data/checkpoint_keys.json is written with random tensors, converted, converted back
to torch and compared, in a process of its own. Memory is the peak over what the process had before, with all
modules imported.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import sys
import tempfile
import threading
import time
from pathlib import Path

import numpy as np

KEYS = Path(__file__).parents[1] / "tests" / "data" / "checkpoint_keys.json"
# Name in the list: kind, suffix, key that wraps the tensors.
CHECKPOINTS = {
    "prov_gigapath_slide_encoder.pth [under 'model']": ("gigapath", ".pth", "model"),
    "modaltune_gigapath best_model_weights.pt": ("modaltune-gigapath", ".pt", None),
    "modaltune_gigapath_clinical best_model_weights.pt": ("modaltune-gigapath", ".pt", None),
    "modaltune_titan best_model_weights.pt": ("modaltune-titan", ".pt", None),
    "TITAN model.safetensors [the slide encoder's part]": ("titan", ".safetensors", None),
    "CONCH pytorch_model.bin [the text tower's part]": ("conch", ".bin", None),
}
COLUMNS = ("checkpoint", "MiB", "convert s", "memory / file", "back s", "back memory / file", "identical")


class Peak:
    """Highest resident memory of this process while it is entered, above where it was, in bytes."""

    def __enter__(self) -> Peak:
        self._start = self.most = _resident()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._watch)
        self._thread.start()
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._stop.set()
        self._thread.join()

    @property
    def value(self) -> int:
        return self.most - self._start

    def _watch(self) -> None:
        while not self._stop.wait(0.002):
            self.most = max(self.most, _resident())


def _resident() -> int:
    with open("/proc/self/statm", encoding="ascii") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def write(name: str, shapes: dict[str, list[int]], folder: Path) -> None:
    """Writes a checkpoint of random tensors."""
    from safetensors.numpy import save_file

    from modaltune_jax.convert.torch_writer import write_torch

    _, suffix, under = CHECKPOINTS[name]
    rng = np.random.default_rng(0)
    tensors = {key: rng.standard_normal(shape, np.float32) for key, shape in shapes.items()}
    if suffix == ".safetensors":
        save_file(tensors, folder / f"source{suffix}")
    else:
        write_torch(folder / f"source{suffix}", tensors, under=under)
    _write_tokenizer(folder / "tokenizer.json")


def measure(name: str, folder: Path, queue: multiprocessing.Queue) -> None:
    """Converts one checkpoint, converts it back, compares."""
    from modaltune_jax.convert import conch, from_public, to_public
    from modaltune_jax.convert.tensor_file import open_tensors

    kind, suffix, _ = CHECKPOINTS[name]
    source, target, back = folder / f"source{suffix}", folder / "target", folder / f"back{suffix}"
    size = source.stat().st_size
    start = time.perf_counter()
    encoder = None
    with Peak() as there:
        if kind == "conch":
            conch.convert(source, target, tokenizer=folder / "tokenizer.json")
        elif kind.startswith(from_public.WHOLE_MODEL):
            encoder = folder / "encoder"
            from_public.convert_modaltune(source, target, kind, encoder)
        else:
            from_public.convert_encoder(source, target, kind)
    seconds = time.perf_counter() - start
    start = time.perf_counter()
    with Peak() as again:
        to_public.to_public(target, back, encoder)
    seconds_back = time.perf_counter() - start
    with open_tensors(source) as first, open_tensors(back) as second:
        same = first.keys() == second.keys() and all(
            np.array_equal(first[key].view(np.uint8), second[key].view(np.uint8)) for key in first
        )
    queue.put((name, size / 2**20, seconds, there.value / size, seconds_back, again.value / size, same))


def _write_tokenizer(path: Path) -> None:
    """The smallest tokenizer with the special tokens of CONCH's."""
    from tokenizers import Tokenizer, models, processors

    pad, start, end = special = ("<pad>", "<start_of_text>", "<end_of_text>")
    tokenizer = Tokenizer(models.WordLevel({token: i for i, token in enumerate(special)}, pad))
    tokenizer.add_special_tokens(list(special))
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"{start} $A {end}", special_tokens=[(start, 1), (end, 2)]
    )
    tokenizer.save(str(path))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--json", type=Path, help="write the table here too")
    options = parser.parse_args()
    entries = json.loads(KEYS.read_text(encoding="utf-8"))
    context = multiprocessing.get_context("spawn")
    rows = []
    print(f"| {' | '.join(COLUMNS)} |\n|{'---|' * len(COLUMNS)}")
    for name in CHECKPOINTS:
        with tempfile.TemporaryDirectory() as folder:
            queue = context.Queue()
            tasks = ((write, (name, entries[name], Path(folder))), (measure, (name, Path(folder), queue)))
            for task, arguments in tasks:
                process = context.Process(target=task, args=arguments)
                process.start()
                process.join()
                if process.exitcode:
                    sys.exit(f"{name}: failed")
            rows.append(dict(zip(COLUMNS, row := queue.get(), strict=False)))
        numbers = f"{row[1]:.0f} | {row[2]:.1f} | {row[3]:.2f} | {row[4]:.1f} | {row[5]:.2f}"
        print(f"| {row[0]} | {numbers} | {'yes' if row[6] else 'NO'} |", flush=True)
    if options.json:
        options.json.write_text(json.dumps(rows, indent=1), encoding="utf-8")


if __name__ == "__main__":
    main()

"""One case through the public PyTorch reference and through this package: seconds, and whether they agree.

    git clone https://github.com/martellab-sri/ModalTune reference
    python benchmarks/vs_torch.py --reference reference --lengths 2048 8192

Both have the published sizes (Prov-GigaPath's LongNet of 12 layers, 768 wide, the Modal Adapter, the pathway
encoder, three tasks), the same random weights, converted by `modaltune_jax.convert`, and the same bags. Timed
is forward and backward pass of the text loss, without the optimizer. Each lives in a process of its own; they
take turns, so that whatever else the machine does falls on both, and the fastest round of each counts.

The reference runs as published, one task after the other, with torch's own flash attention where flash-attn
is missing. In its favour it goes back after every task (the trainer holds three graphs and goes back once,
which takes three times the memory), and both processes get memory in large pages, keep it until their round
is over and wait for others without spinning. Dropout is off, so that outputs can be compared; --dropout
switches it on in both.
"""

from __future__ import annotations

import argparse
import datetime
import functools
import json
import multiprocessing
import multiprocessing.connection
import os
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import workload

from modaltune_jax.host_memory import give_memory_back, keep_memory
from modaltune_jax.types import InputError

NUM_GRIDS = 128  # the published 1000 is a table of 3 GB
SIDES = ("torch", "jax")
COLUMNS = (
    "tiles", "torch s", "ours s", "times torch", "ours TFLOP/s", "of the matmul peak", "embeddings differ by",
    "gradient by", "GB torch", "GB ours",
)  # fmt: skip
GRADIENT = ("gene_pe", "modal_tokens.positions")
"""The same parameter, there and here: its gradient has passed through every block."""


def serve_torch(options: argparse.Namespace, folder: Path, connection: Any) -> None:
    """Builds the reference, stores its weights, then answers every length with a timed round."""
    import torch
    from reference import Reference

    keep_memory()
    torch.set_num_threads(options.threads)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    model = Reference(options.reference, NUM_GRIDS, seed=0, device=device)
    model.save(folder / "weights.npz")
    np.savez(folder / "groups.npz", *model.gene_groups())
    connection.send({"attention": model.attention, "device": device, "version": torch.__version__})
    num_genes = 1 + max(int(group.max()) for group in model.gene_groups())
    while (tiles := connection.recv()) is not None:
        batch = workload.make_batch(1, tiles, 1536, num_genes)
        coords = batch.cells[0].astype(np.int64) * 256
        case = (batch.features[0], coords, batch.expression[0], batch.targets[0])
        start = time.perf_counter()
        embedding, loss = model.gradients(*case, is_training=options.dropout, dtype=options.dtype)
        seconds = time.perf_counter() - start
        reply = answer(seconds, embedding, loss, model.gradient(GRADIENT[0]))
        give_memory_back()
        connection.send(reply)


def serve_jax(options: argparse.Namespace, folder: Path, connection: Any) -> None:
    """Reads the weights, then answers every length with a timed round."""
    import jax
    from model_flops import measured_peak, train_flops

    keep_memory()
    config, run = prepare_jax(options, folder)
    groups = read_groups(folder)
    num_genes = 1 + max(int(group.max()) for group in groups)
    connection.send({"device": jax.devices()[0].device_kind, "version": jax.__version__})
    while (tiles := connection.recv()) is not None:
        batch = jax.device_put(workload.make_batch(1, tiles, 1536, num_genes))
        start = time.perf_counter()
        loss, embedding, gradient = run(batch)
        seconds = time.perf_counter() - start
        facts = answer(seconds, embedding, loss, gradient)
        flops = train_flops(config.model, tiles, is_frozen=True)
        facts |= {"flops": flops, "peak": measured_peak()}
        give_memory_back()
        connection.send(facts)


def prepare_jax(options: argparse.Namespace, folder: Path) -> tuple[Any, Any]:
    """The experiment, and a function from a batch to loss, embedding and gradient."""
    import jax
    from flax import nnx

    from modaltune_jax.compilation import compiler_options
    from modaltune_jax.convert.modaltune import rules, to_params
    from modaltune_jax.losses.distillation import kl_to_text
    from modaltune_jax.models.modalities import ModalInputs
    from modaltune_jax.models.modaltune import ModalTune
    from modaltune_jax.optim import merge_params, split_params

    sizes = {"remat": options.remat, "scan_layers": options.scan, "num_grids": NUM_GRIDS}
    config = workload.published("gigapath", dtype=options.dtype, **sizes)
    groups = read_groups(folder)
    model = nnx.eval_shape(lambda: ModalTune(config.model, ModalInputs(groups, 5), rngs=nnx.Rngs(0)))
    graphdef, state = nnx.split(model)
    table = rules([len(group) for group in groups], config.model.pathways.depth, 3)
    with np.load(folder / "weights.npz") as weights:
        tensors = {name: value for name, value in weights.items() if not name.endswith("pos_embed")}
    params = to_params(tensors, nnx.to_pure_dict(state), table)
    trainable, frozen = jax.device_put(split_params(params, config.optim.rules))
    key = jax.random.key(0) if options.dropout else None

    def loss(trainable, frozen, batch):
        out = nnx.merge(graphdef, merge_params(trainable, frozen))(batch, key)
        return kl_to_text(out.embedding, batch.targets).sum(), out.embedding

    @functools.partial(jax.jit, compiler_options=compiler_options(jax.default_backend()))
    def step(trainable, frozen, batch):
        (value, embedding), gradient = jax.value_and_grad(loss, has_aux=True)(trainable, frozen, batch)
        return value, embedding, gradient

    def run(batch):
        value, embedding, gradient = jax.block_until_ready(step(trainable, frozen, batch))
        for name in GRADIENT[1].split("."):
            gradient = gradient[name]
        return float(value), np.asarray(embedding[0]), np.asarray(gradient)

    return config, run


def read_groups(folder: Path) -> tuple[np.ndarray, ...]:
    with np.load(folder / "groups.npz") as file:
        return tuple(file[f"arr_{i}"] for i in range(len(file.files)))


def answer(seconds: float, embedding: np.ndarray, loss: float, gradient: np.ndarray) -> dict[str, Any]:
    return {
        "seconds": seconds,
        "embedding": embedding,
        "loss": loss,
        "gradient": gradient,
        "memory": workload.peak_resident(),
        "load": os.getloadavg()[0],
    }


def measure(options: argparse.Namespace, folder: Path) -> tuple[dict, list[dict]]:
    """Facts about both sides, and a row a length; the first round warms up and is not timed."""
    context = multiprocessing.get_context("spawn")
    serve = {"torch": serve_torch, "jax": serve_jax}
    ends, facts, rows = {}, {}, []
    try:
        for side in SIDES:  # in this order: the second reads the weights of the first
            ends[side], theirs = context.Pipe()
            context.Process(target=serve[side], args=(options, folder, theirs), daemon=True).start()
            theirs.close()
            facts[side] = ends[side].recv()
        for tiles in options.lengths:
            answers: dict[str, list[dict]] = {side: [] for side in SIDES}
            for _ in range(1 + options.rounds):
                for side in SIDES:
                    ends[side].send(tiles)
                    answers[side].append(ends[side].recv())
            rows.append(row(tiles, answers))
            print(workload.table(COLUMNS, [shown(rows[-1])]).splitlines()[-1], flush=True)
        for side in SIDES:
            ends[side].send(None)
    except EOFError:
        sys.exit("one of the two processes ended early; what it said is above")
    return facts, rows


def row(tiles: int, answers: dict[str, list[dict]]) -> dict[str, Any]:
    timed = {side: [one["seconds"] for one in answers[side][1:]] for side in SIDES}
    last = {side: answers[side][-1] for side in SIDES}
    best = {side: min(timed[side]) for side in SIDES}
    peak = max(one["peak"] for one in answers["jax"])
    return {
        "tiles": tiles,
        "seconds": timed,
        "best": best,
        "load": [one["load"] for one in answers["torch"][1:]],
        "flops": last["jax"]["flops"],
        "peak": peak,
        "utilisation": last["jax"]["flops"] / best["jax"] / peak,
        "utilisation_torch": last["jax"]["flops"] / best["torch"] / peak,
        "embedding_difference": difference(last, "embedding"),
        "gradient_difference": difference(last, "gradient"),
        "loss": {side: last[side]["loss"] for side in SIDES},
        "memory": {side: last[side]["memory"] for side in SIDES},
    }


def difference(last: dict[str, dict], name: str) -> float:
    """Largest difference over the largest value of the reference."""
    theirs, ours = last["torch"][name], last["jax"][name]
    return float(np.abs(ours - theirs).max() / np.abs(theirs).max())


def shown(row: dict[str, Any]) -> list[str]:
    best = row["best"]
    return [
        str(row["tiles"]),
        f"{best['torch']:.2f}",
        f"{best['jax']:.2f}",
        f"{best['torch'] / best['jax']:.2f}",
        f"{row['flops'] / best['jax'] / 1e12:.3f}",
        f"{row['utilisation']:.0%}",
        f"{row['embedding_difference']:.1e}",
        f"{row['gradient_difference']:.1e}",
        *(f"{row['memory'][side] / 1e9:.1f}" for side in SIDES),
    ]


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--reference", type=Path, required=True, help="checkout of the public repository")
    parser.add_argument("--lengths", type=int, nargs="+", default=[2048, 8192], help="tiles of a bag")
    parser.add_argument("--rounds", type=int, default=3, help="timed rounds of each, after one to warm up")
    parser.add_argument("--dtype", choices=("float32", "bfloat16"), default="float32", help="torch: autocast")
    parser.add_argument("--remat", action="store_true", help="ours: form activations again, for less memory")
    parser.add_argument("--scan", action="store_true", help="ours: the layers of a stage as one loop")
    parser.add_argument("--dropout", action="store_true", help="as in training; outputs then differ")
    parser.add_argument("--threads", type=int, default=os.cpu_count(), help="of torch on a CPU")
    parser.add_argument("--json", type=Path, help="write the numbers here too")
    options = parser.parse_args()
    if max(options.lengths) > NUM_GRIDS**2 or min(options.lengths) < 1 or options.rounds < 1:
        parser.error(f"lengths must be 1 to {NUM_GRIDS**2} and rounds at least 1")
    # For the processes to come: waiting threads that spin take the cores from those who work.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    # XLA gives its memory back after every step; page by page, millions of faults would bring it again.
    os.environ.setdefault("GLIBC_TUNABLES", "glibc.malloc.hugetlb=1")
    os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")
    os.environ["OMP_NUM_THREADS"] = str(options.threads)
    print(f"| {' | '.join(COLUMNS)} |\n|{'---|' * len(COLUMNS)}")
    try:
        with tempfile.TemporaryDirectory() as folder:
            facts, rows = measure(options, Path(folder))
    except InputError as error:
        sys.exit(f"error: {error}")
    told = {**workload.machine(), "date": str(datetime.date.today()), "dtype": options.dtype, **facts}
    print(f"\nThe reference's attention: {facts['torch']['attention']}. {json.dumps(told)}")
    if options.json:
        options.json.write_text(json.dumps({**told, "rows": rows}, indent=1), encoding="utf-8")


if __name__ == "__main__":
    main()

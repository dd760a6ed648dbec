"""What the benchmarks of a training step share: models of published size, made-up cases, memory."""

from __future__ import annotations

import os
import resource
from collections.abc import Sequence

import numpy as np

from configs import common, pancancer, titan
from modaltune_jax.config import Config, unpack
from modaltune_jax.types import MODALITIES, Batch

ENCODERS = ("gigapath", "titan", "mean_pool")
NUM_GENES, NUM_PATHWAYS, MEMBERS = 4987, 331, 29
"""The published pathways have 9 731 members in all, 29.4 on average."""


def published(encoder: str, *, dtype: str, remat: bool, is_small: bool = False, **sizes: int) -> Config:
    """The experiment of an encoder, of published size or, to try a script, a small one.

    Args:
      encoder: one of `ENCODERS`.
      dtype: of its matrix products.
      remat: form its activations again in the backward pass.
      is_small: sizes of a toy.
      sizes: of the encoder, other than published.
    """
    config = titan.get_config() if encoder == "titan" else pancancer.get_config()
    if encoder == "mean_pool":
        config.model.encoder = common.mean_pool(in_dim=1536, width=768)
        config.model.adapter.stages = ((0, 1), (1, 2), (2, 3))
    elif is_small:
        small = {"width": 48, "in_dim": 32, "num_heads": 4}
        small |= {"mlp_dim": 96, "pooler_heads": 4} if encoder == "titan" else {"ffn_dim": 96}
        config.model.encoder.update(small)
        config.model.pathways.update({"latent_dim": 16, "num_tokens": 4})
    if encoder != "mean_pool":
        config.model.encoder.update({"dtype": dtype, "remat": remat, **sizes})
    return unpack(config)


def gene_groups(is_small: bool = False) -> tuple[np.ndarray, ...]:
    """Random pathways, about as many and as large as the published ones."""
    num_genes, num_pathways, members = (40, 5, 8) if is_small else (NUM_GENES, NUM_PATHWAYS, MEMBERS)
    rng = np.random.default_rng(0)
    return tuple(rng.choice(num_genes, members, replace=False).astype(np.int32) for _ in range(num_pathways))


def make_batch(
    num_cases: int, tiles: int, in_dim: int, num_genes: int, num_tasks: int = 3, embedding_dim: int = 256
) -> Batch:
    """Cases of the same length with slides and expression, on square grids."""
    rng = np.random.default_rng(tiles)
    normal = lambda *shape: rng.standard_normal(shape, np.float32)  # noqa: E731
    side = int(np.ceil(np.sqrt(tiles)))
    cells = np.stack([np.arange(tiles) % side, np.arange(tiles) // side], axis=1).astype(np.int32)
    present = np.array([name != "clinical" for name in MODALITIES])
    return Batch(
        features=normal(num_cases, tiles, in_dim),
        cells=np.tile(cells, (num_cases, 1, 1)),
        length=np.full(num_cases, tiles, np.int32),
        expression=normal(num_cases, num_genes),
        clinical=np.zeros((num_cases, 5), np.float32),
        present=np.tile(present, (num_cases, 1)),
        targets=normal(num_cases, num_tasks, embedding_dim),
        subtype=np.zeros(num_cases, np.int32),
        site=np.zeros(num_cases, np.int32),
        time=np.full(num_cases, 12.0, np.float32),
        event=np.ones(num_cases, np.int32),
        weight=np.ones(num_cases, np.float32),
        index=np.arange(num_cases, dtype=np.int32),
    )


def peak_resident() -> int:
    """Largest resident memory that this process has had, in bytes."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def machine() -> dict[str, str | int | float]:
    """What a table of numbers has to name."""
    model = "unknown processor"
    if os.path.exists("/proc/cpuinfo"):
        with open("/proc/cpuinfo", encoding="utf-8") as file:
            names = [line.split(":", 1)[1].strip() for line in file if line.startswith("model name")]
        model = names[0] if names else model
    return {"processor": model, "cores": os.cpu_count() or 0, "load": round(os.getloadavg()[0], 1)}


def table(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A Markdown table."""
    lines = [columns, ["---"] * len(columns), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)

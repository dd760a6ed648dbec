"""What a jitted step says of whole splits, a row a case."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import jax
import numpy as np
from jax.experimental import multihost_utils
from jax.sharding import Mesh

from modaltune_jax.partitioning import shard_batch
from modaltune_jax.types import Batch


def predict_cases(
    step: Callable[[Batch], dict[str, jax.Array]], batches: Iterable[Batch], mesh: Mesh, num_cases: int
) -> dict[str, np.ndarray]:
    """Runs every batch once and puts what is said of each case in its row.

    Args:
      step: batch on the mesh to named arrays `[b, ...]`.
      batches: each case once; filler cases have index -1.
      mesh: the devices.
      num_cases: rows n of the result; rows of cases that no batch holds are NaN.

    Returns:
      The same names, `[n, ...]` float32 each.
    """
    rows, values = [], []
    for batch in batches:
        placed = shard_batch(batch, mesh)
        # Left on the devices until all are under way: the host prepares the next batch meanwhile.
        rows.append(placed.index)
        values.append(step(placed))
    index = np.concatenate([_to_host(row) for row in rows])
    results = {}
    for name in values[0]:
        found = np.concatenate([_to_host(value[name]) for value in values])
        results[name] = np.full((num_cases, *found.shape[1:]), np.nan, np.float32)
        results[name][index[index >= 0]] = found[index >= 0]
    return results


def _to_host(array: jax.Array) -> np.ndarray:
    if jax.process_count() == 1:
        return np.asarray(array)
    return np.asarray(multihost_utils.process_allgather(array, tiled=True))

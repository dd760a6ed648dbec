"""Embeddings of whole splits, and the one number that picks a checkpoint."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

import jax
import numpy as np
import pandas as pd
from absl import logging
from jax.experimental import multihost_utils
from jax.sharding import Mesh
from jaxtyping import Float

from modaltune_jax.partitioning import shard_batch
from modaltune_jax.probes import probe_table
from modaltune_jax.types import Batch, InputError


def embed_cases(
    embed_step: Callable[[Batch], jax.Array], batches: Iterable[Batch], mesh: Mesh, num_cases: int
) -> Float[np.ndarray, "n t e"]:
    """Runs every batch once and puts each case's embeddings in its row.

    Args:
      embed_step: batch on the mesh to `[b, t, e]`.
      batches: each case once; filler cases have index -1.
      mesh: the devices.
      num_cases: rows n of the result; rows of cases that no batch holds are NaN.
    """
    rows, values = [], []
    for batch in batches:
        placed = shard_batch(batch, mesh)
        # Left on the devices until all are under way: the host prepares the next batch meanwhile.
        rows.append(placed.index)
        values.append(embed_step(placed))
    index = np.concatenate([_to_host(row) for row in rows])
    embeddings = np.concatenate([_to_host(value) for value in values])
    result = np.full((num_cases, *embeddings.shape[1:]), np.nan, np.float32)
    result[index[index >= 0]] = embeddings[index >= 0]
    return result


def _to_host(array: jax.Array) -> np.ndarray:
    if jax.process_count() == 1:
        return np.asarray(array)
    return np.asarray(multihost_utils.process_allgather(array, tiled=True))


def selection_score(table: pd.DataFrame, targets: tuple[str, ...], step: int) -> float:
    """Mean over `targets` of the validation probes' "overall" value; the step itself for `("last",)`.

    A target that cannot be estimated on the validation split is left out; if none can, the score is
    -inf and no checkpoint becomes the best.
    """
    if targets == ("last",):
        return float(step)
    rows = table[(table["split"] == "val") & (table["site"] == "overall") & table["target"].isin(targets)]
    values = rows["value"].dropna()
    if values.empty:
        logging.warning("no probe of %s can be estimated on the validation split", ", ".join(targets))
        return -np.inf
    return float(values.mean())


def check_selection(cases: pd.DataFrame, sites: Sequence[str], targets: tuple[str, ...]) -> None:
    """Finds out before training whether the validation labels can pick a checkpoint.

    Raises:
      InputError: there is no training or no validation case, or no probe of `targets` can be estimated.
    """
    if not (cases["split"] == "train").any():
        raise InputError(
            f"none of the {len(cases)} cases is in the split train: there is nothing to train on"
        )
    if targets == ("last",):
        return
    # What can be estimated depends on the labels alone, so noise serves as well as embeddings.
    noise = np.random.default_rng(0).normal(size=(len(cases), 1, 2)).astype(np.float32)
    table = probe_table(noise, cases, sites, ("val",))
    chosen = table[(table["site"] == "overall") & table["target"].isin(targets)]
    if chosen["value"].isna().all():
        raise InputError(
            f"the {sum(cases['split'] == 'val')} validation cases cannot pick a checkpoint by "
            f"{', '.join(targets)}: add validation cases with labels, or set config.checkpoint.best=last to "
            "take the last step"
        )

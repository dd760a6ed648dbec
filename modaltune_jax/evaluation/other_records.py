"""Cases of another cohort as a run sees them: its transforms, its genes, its model."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import SupportsIndex

import numpy as np
from jaxtyping import Integer, Shaped

from modaltune_jax.embed_cases import predict_cases
from modaltune_jax.inputs.pipeline import eval_batches
from modaltune_jax.inputs.records import Records
from modaltune_jax.partitioning import num_case_shards, process_shard
from modaltune_jax.train import Run, restore_best
from modaltune_jax.train_step import TrainState
from modaltune_jax.types import Case, InputError


class RecordsOnGenes(Records):
    """Records whose expression is told in the genes of others, by name; genes that they lack are NaN.

    Args:
      directory: of the records.
      like: the records whose genes and gene sets the model knows.

    Attributes:
      num_shared: genes that both have.

    Raises:
      InputError: expression, and not one gene of that name.
    """

    def __init__(self, directory: str | Path, like: Records):
        super().__init__(directory)
        own = {gene: i for i, gene in enumerate(self.genes)}
        self._from: Integer[np.ndarray, "g"] = np.array([own.get(gene, -1) for gene in like.genes], int)
        self.num_shared = int(np.sum(self._from >= 0))
        if self.genes and like.genes and not self.num_shared:
            raise InputError(
                f"{directory} has none of the {len(like.genes)} genes that the run was trained on (such as "
                f"{like.genes[0]}; there: {self.genes[0]}): write these records with the expression table "
                "of the same kind"
            )
        self.genes, self.gene_sets = like.genes, like.gene_sets

    def without_slides(self, i: SupportsIndex) -> Case:
        return self._on_genes(super().without_slides(i))

    def read(self, i: SupportsIndex, out: Shaped[np.ndarray, "l d"]) -> Case:
        return self._on_genes(super().read(i, out))

    def _on_genes(self, case: Case) -> Case:
        if case.expression is None:
            return case
        # The last place, for -1, is of genes that are not there.
        values = np.append(case.expression, np.float32(np.nan))[self._from].astype(np.float32)
        return dataclasses.replace(case, expression=values)


def open_other(directory: Path, like: Records) -> RecordsOnGenes:
    """Another cohort, checked to be one that the run can embed and did not learn from.

    Raises:
      InputError: no records, tile features of another width, no gene in common, or training cases of the run
        among its cases.
    """
    other = RecordsOnGenes(directory, like)
    if other.feature_dim != like.feature_dim:
        raise InputError(
            f"tile features in {directory} are {other.feature_dim} wide, those that the run was trained on "
            f"{like.feature_dim}: give records of the same tile encoder"
        )
    train = set(like.table.loc[like.table["split"] == "train", "case_id"])
    seen = [case for case in other.table["case_id"] if case in train]
    if seen:
        raise InputError(
            f"{len(seen)} of the {other.num_cases} cases in {directory} are training cases of the run (such "
            f"as {seen[0]}): leave them out, or they are predicted by what was fitted on them"
        )
    return other


def embed_other(run: Run, state: TrainState, folder: Path, other: Records) -> dict[str, np.ndarray]:
    """What the best checkpoint of a run says of every case of another cohort, with the run's own transforms.

    Args:
      run: built as for training, which the checkpoint must fit.
      state: its first state.
      folder: of the run.
      other: from `open_other`.

    Returns:
      As of `train.predict`: "embedding" `[n, t, e]` and what heads say.
    """
    from tqdm import tqdm

    best, _ = restore_best(run, state, folder)
    targets = np.zeros((other.num_cases, *run.targets.values.shape[1:]), np.float32)
    pipeline = dataclasses.replace(run.pipeline, spread=())
    batches = eval_batches(
        other,
        np.arange(other.num_cases),
        targets,
        run.targets.transforms,
        pipeline,
        shard=process_shard(run.mesh),
        num_shards=num_case_shards(run.mesh),
    )
    bar = tqdm(batches, desc="embedding", unit="batch", total=batches.steps_per_epoch)
    step = lambda batch: run.predict_step(best, run.frozen, batch)  # noqa: E731
    return predict_cases(step, bar, run.mesh, other.num_cases)

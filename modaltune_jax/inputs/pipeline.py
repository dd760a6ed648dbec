"""Records to batches: a plan of cases, read and collated by Grain's threads.

Threads, not worker processes: reading and copying release the interpreter's lock, and a batch of features
need not travel between processes. Tile features go from the file into the rows of the batch and nowhere else,
and the memory of a batch is used again when nothing refers to it any more.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any, Protocol, runtime_checkable

import numpy as np
from jaxtyping import Float, Integer, Shaped

from modaltune_jax.inputs.bags import buckets
from modaltune_jax.inputs.buffers import BufferPool
from modaltune_jax.inputs.collate import FEATURE_DTYPES, PipelineConfig, collate
from modaltune_jax.inputs.plan import BatchPlan, Step, stream
from modaltune_jax.inputs.records import Records
from modaltune_jax.inputs.transforms import Transforms
from modaltune_jax.types import Batch, Case


@runtime_checkable
class BatchIterator(Protocol):
    """A Grain `DatasetIterator` of batches; `grain.checkpoint` handlers save and restore it."""

    def __iter__(self) -> BatchIterator: ...

    def __next__(self) -> Batch: ...

    def get_state(self) -> dict[str, Any]:
        """The position, as JSON can hold it."""
        ...

    def set_state(self, state: dict[str, Any]) -> None:
        """Goes to a position, also one that another process has saved."""
        ...


@dataclasses.dataclass(frozen=True)
class Batches:
    """Batches of a plan; every iterator begins at the first.

    Attributes:
      plan: shapes and order. Batch i belongs to epoch `i // steps_per_epoch`.
      load: makes a batch of a step of the plan.
      config: threads and prefetching.
    """

    plan: BatchPlan
    load: _Load
    config: PipelineConfig

    @property
    def steps_per_epoch(self) -> int:
        """Global batches in an epoch, the same in every epoch and process."""
        return self.plan.steps_per_epoch

    def __iter__(self) -> BatchIterator:
        import grain

        # Grain's own defaults, 16 threads and 500 elements, are meant for kilobytes.
        options = grain.ReadOptions(
            num_threads=self.config.num_threads, prefetch_buffer_size=self.config.prefetch
        )
        return iter(grain.MapDataset.source(self.plan).map(self.load).to_iter_dataset(options))


def train_batches(
    records: Records,
    indices: Sequence[int] | Integer[np.ndarray, "c"],
    targets: Float[np.ndarray, "n t e"],
    transforms: Transforms,
    config: PipelineConfig,
    *,
    seed: int,
    shard: tuple[int, int] = (0, 1),
    num_shards: int | None = None,
) -> Batches:
    """Shuffled batches without end; every case comes once an epoch, with tiles of its own for each epoch.

    Args:
      records: the data set.
      indices: rows of the cases to train on.
      targets: text targets of all rows.
      transforms: fitted on the training cases.
      config: sizes, threads, modalities.
      seed: not negative; (seed, epoch) decides order and tiles.
      shard: (index, count) of this process, which loads its equal share of every batch.
      num_shards: devices that a batch is split over, a multiple of the process count; that count if None.

    Raises:
      InputError: no cases, a case twice, or shards that the processes cannot share.
    """
    return _batches(records, indices, targets, transforms, config, seed, shard, num_shards)


def eval_batches(
    records: Records,
    indices: Sequence[int] | Integer[np.ndarray, "c"],
    targets: Float[np.ndarray, "n t e"],
    transforms: Transforms,
    config: PipelineConfig,
    shard: tuple[int, int] = (0, 1),
    num_shards: int | None = None,
) -> Batches:
    """Batches that go once through the cases, shortest first, with evenly spaced tiles.

    Arguments and errors are those of `train_batches`; shapes are those of training on the same records.
    """
    return _batches(records, indices, targets, transforms, config, None, shard, num_shards)


def _batches(
    records: Records,
    indices: Sequence[int] | Integer[np.ndarray, "c"],
    targets: Float[np.ndarray, "n t e"],
    transforms: Transforms,
    config: PipelineConfig,
    seed: int | None,
    shard: tuple[int, int],
    num_shards: int | None,
) -> Batches:
    if len(targets) != records.num_cases:
        raise ValueError(f"targets of {len(targets)} cases for records of {records.num_cases}")
    lengths = records.lengths if "slides" in config.modalities else np.zeros_like(records.lengths)
    if config.max_tiles:
        lengths = np.minimum(lengths, config.max_tiles)
    plan = BatchPlan(
        lengths,
        indices,
        # Of the whole data set, so that training, every split and every fold compile the same shapes.
        buckets=buckets(lengths, num_buckets=config.num_buckets, multiple=config.multiple),
        batch_size=config.batch_size,
        tokens_per_batch=config.tokens_per_batch,
        num_shards=shard[1] if num_shards is None else num_shards,
        seed=seed,
        process=shard,
        strata=_strata(records, config.spread),
    )
    return Batches(plan, _Load(records, targets, transforms, config, seed, BufferPool()), config)


def _strata(records: Records, spread: Sequence[str]) -> Integer[np.ndarray, "n"] | None:
    """A number for every combination of the labels to spread."""
    return records.table.groupby(list(spread)).ngroup().to_numpy() if spread else None


@dataclasses.dataclass(frozen=True)
class _Load:
    """Reads the cases of a step and collates them."""

    records: Records
    targets: np.ndarray
    transforms: Transforms
    config: PipelineConfig
    seed: int | None
    buffers: BufferPool

    def __call__(self, step: Step) -> Batch:
        rngs = None
        if self.seed is not None:
            # A case's tiles must not depend on the batch it is in; those of filler (-1) are never drawn.
            rngs = [stream("tiles", self.seed, step.epoch, max(int(i), 0)) for i in step.rows]
        shape = (len(step.rows), step.bucket, self.records.feature_dim)
        features = self.buffers.take(shape, FEATURE_DTYPES[self.config.feature_dtype])
        cases = [
            None if i < 0 else self._read(int(i), rows) for i, rows in zip(step.rows, features, strict=True)
        ]
        return collate(
            cases,
            step.bucket,
            self.transforms,
            self.config,
            sites=self.records.sites,
            num_genes=len(self.records.genes),
            feature_dim=self.records.feature_dim,
            rngs=rngs,
            index=step.rows,
            targets=self.targets,
            features=features,
        )

    def _read(self, i: int, rows: Shaped[np.ndarray, "l d"]) -> Case:
        """Case i, its tiles in the first of the rows if all of them will be there as they are."""
        if "slides" not in self.config.modalities:
            return self.records.without_slides(i)
        num_tiles = int(self.records.lengths[i])
        if num_tiles <= len(rows) and not self.config.merge_cells:
            return self.records.read(i, rows[:num_tiles])
        shape = (num_tiles, self.records.feature_dim)
        return self.records.read(i, self.buffers.take(shape, self.records.feature_dtype))

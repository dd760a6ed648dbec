"""Which cases share a batch, of which shape, in which order: everything about an epoch but the data."""

from __future__ import annotations

import sys
import zlib
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Int, Integer

from modaltune_jax.inputs.bags import bucket_of
from modaltune_jax.types import InputError


class Step(NamedTuple):
    """One global batch, as one process loads it.

    Attributes:
      epoch: counted from 0.
      bucket: rows that every bag is padded to.
      rows: `[b]` int32 rows of this process in the data set, -1 for filler.
    """

    epoch: int
    bucket: int
    rows: Int[np.ndarray, "b"]


def stream(purpose: str, *numbers: int) -> np.random.Generator:
    """A random generator of its own for every purpose and tuple of numbers."""
    return np.random.default_rng((zlib.crc32(purpose.encode()), *numbers))


class BatchPlan:
    """Element i is global batch i of training: a random-access source without state, for Grain.

    Cases are grouped by bucket and every bucket has one batch size, so there are as many shapes as
    buckets and no more. Cases that do not fill a bucket's last batch go to a longer bucket where that takes
    fewer rows in all; otherwise the batch is completed with filler. What an element holds follows
    from (seed, epoch) alone, and the number of batches in an epoch never changes, so element i belongs
    to epoch `i // steps_per_epoch`, a position in training is one integer, and all processes agree on
    every shape without talking.

    Args:
      lengths: `[n]` tiles of every case of the data set, none above the last bucket.
      indices: the cases to go through, each once an epoch.
      buckets: ascending padded lengths.
      batch_size: cases in a batch at most, over all processes.
      tokens_per_batch: padded tiles in a batch at most, over all processes; long bags come in smaller
        batches, at least one case for each shard.
      num_shards: devices a batch is split over; every batch is a multiple of it.
      seed: order of the cases and batches; None keeps them sorted by length and ends after one epoch.
      process: (index, count) of this process; it gets its equal share of the rows of every batch.
      strata: `[n]` a label of every case of the data set, to be spread evenly over the batches of a bucket
        instead of falling as chance has it; None for chance.

    Raises:
      InputError: no cases, a case twice, or shards that the processes cannot share.
    """

    def __init__(
        self,
        lengths: Integer[np.ndarray, "n"],
        indices: Sequence[int] | Integer[np.ndarray, "c"],
        *,
        buckets: Sequence[int],
        batch_size: int,
        tokens_per_batch: int,
        num_shards: int = 1,
        seed: int | None = None,
        process: tuple[int, int] = (0, 1),
        strata: Integer[np.ndarray, "n"] | None = None,
    ):
        indices = np.asarray(indices, np.int32)
        if len(indices) == 0:
            raise InputError("no cases to make batches of; check the sites, the split and the filters")
        if len(np.unique(indices)) < len(indices):
            raise InputError("a case is listed twice among those to make batches of; list every case once")
        if num_shards % process[1]:
            raise InputError(f"{num_shards} shards cannot be divided among {process[1]} processes")
        self.buckets = tuple(buckets)
        self._seed = seed
        self._strata = strata
        self._process = process
        bucket = np.array([bucket_of(int(lengths[i]), buckets) for i in indices])
        self._num_tiles = int(np.asarray(lengths)[indices].sum())
        self._members = [indices[bucket == length] for length in self.buckets]
        self._batch_sizes = [
            max(min(batch_size, tokens_per_batch // length) // num_shards, 1) * num_shards
            for length in self.buckets
        ]
        self._num_batches = fewest_rows([len(m) for m in self._members], self._batch_sizes, self.buckets)
        # Row s: batch `s` of an unshuffled epoch is the `_slots[s, 1]`-th of bucket number `_slots[s, 0]`.
        self._slots = np.array([(k, j) for k, count in enumerate(self._num_batches) for j in range(count)])

    @property
    def steps_per_epoch(self) -> int:
        """Global batches in an epoch, the same in every epoch."""
        return len(self._slots)

    @property
    def shapes(self) -> tuple[tuple[int, int], ...]:
        """The distinct global (cases, rows) that occur: what will be compiled."""
        used = np.unique(self._slots[:, 0])
        return tuple((self._batch_sizes[k], self.buckets[k]) for k in used)

    @property
    def filler(self) -> float:
        """Share of the batches' cases that is filler."""
        rows = sum(self._batch_sizes[k] for k in self._slots[:, 0])
        return 1.0 - sum(map(len, self._members)) / rows

    @property
    def waste(self) -> float:
        """Share of the batches' rows that holds no tile: padding of bags, and filler whole."""
        rows = sum(self._batch_sizes[k] * self.buckets[k] for k in self._slots[:, 0])
        return 1.0 - self._num_tiles / rows

    def describe(self) -> str:
        """A line for people: batches, shapes and what padding costs."""
        shapes = ", ".join(f"{cases} x {rows}" for cases, rows in self.shapes)
        return (
            f"{self.steps_per_epoch} batches an epoch in {len(self.shapes)} shapes (cases x tiles: {shapes}); "
            f"{self.waste:.1%} of them is padding"
        )

    def __len__(self) -> int:
        return self.steps_per_epoch if self._seed is None else sys.maxsize

    def __getitem__(self, i: int) -> Step:
        epoch, position = divmod(int(i), self.steps_per_epoch)
        if self._seed is not None:
            position = stream("batches", self._seed, epoch).permutation(self.steps_per_epoch)[position]
        k, j = map(int, self._slots[position])
        size = self._batch_sizes[k]
        rows = np.full(size, -1, np.int32)
        chosen = self._order(epoch, k)[j * size : (j + 1) * size]
        rows[: len(chosen)] = chosen
        share = size // self._process[1]
        start = self._process[0] * share
        return Step(epoch, self.buckets[k], rows[start : start + share])

    def _order(self, epoch: int, k: int) -> Int[np.ndarray, "m"]:
        """The cases of bucket number k, in order, with those left over by shorter buckets."""
        members = self._members[k]
        if k > 0:
            left = self._order(epoch, k - 1)[self._num_batches[k - 1] * self._batch_sizes[k - 1] :]
            members = np.concatenate([left, members])
        if self._seed is None:
            return members
        rng = stream("cases", self._seed, epoch, k)
        members = rng.permutation(members)
        return members if self._strata is None else members[_spread(self._strata[members], rng)]


def fewest_rows(
    num_cases: Sequence[int], batch_sizes: Sequence[int], buckets: Sequence[int]
) -> tuple[int, ...]:
    """How many batches of every bucket hold all cases in the fewest rows; exact, by a dynamic programme.

    What is left over behind a bucket's last full batch has a batch of its own, or goes to the next bucket,
    where it may take the place of filler.
    """
    # By cases left over so far: rows, steps, batches of each bucket.
    plans: dict[int, tuple[int, int, tuple[int, ...]]] = {0: (0, 0, ())}
    for count, size, length in zip(num_cases, batch_sizes, buckets, strict=True):
        following: dict[int, tuple[int, int, tuple[int, ...]]] = {}
        for left, (rows, steps, batches) in plans.items():
            full, rest = divmod(count + left, size)
            for added, carried in {(full + (rest > 0), 0), (full, rest)}:
                plan = (rows + added * size * length, steps + added, (*batches, added))
                following[carried] = min(plan, following.get(carried, plan))
        plans = following
    return plans[0][2]


def _spread(labels: Integer[np.ndarray, "m"], rng: np.random.Generator) -> Int[np.ndarray, "m"]:
    """An order in which every stretch holds its share of every label, as near as whole cases allow.

    The j-th of the n cases with a label comes at place (j + u) / n of the way, with a random u for the label:
    systematic sampling.
    """
    _, label, count = np.unique(labels, return_inverse=True, return_counts=True)
    by_label = np.argsort(label, kind="stable")
    rank = np.empty(len(labels), np.int64)
    rank[by_label] = np.arange(len(labels)) - np.repeat(np.cumsum(count) - count, count)
    place = (rank + rng.random(len(count))[label]) / count[label]
    return np.argsort(place, kind="stable")

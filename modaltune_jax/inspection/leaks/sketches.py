"""A slide in 2 kB: enough to find it again under another name, in another float type, or in part."""

from __future__ import annotations

import dataclasses
import functools
import itertools
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
import xxhash
from jaxtyping import Float, Int, UInt64

from modaltune_jax.types import Slide

_NUM_KEYS = 256
_NUM_DIRECTIONS = 8
_CELL = 0.05
"""Width of a cell of the rounded directions, in which a random vector has standard deviation 1. Rounding to
bfloat16 moves a vector by 0.001, so that one key in eight changes; tiles at cosine 0.99 lie 0.14 apart."""
_ROWS = 8192
"""Rows looked at in one go, so that a sketch needs little memory beside the features."""
_ALIKE = 0.5
_FEWEST_SHARED = 8
_COMMON = 50
"""Keys of more slides than this, such as those of blank tiles, say nothing."""


@dataclasses.dataclass(frozen=True, eq=False)
class SlideSketch:
    """What is kept of a slide to compare it with others.

    Attributes:
      slide_id: of the slide.
      num_tiles: of the slide.
      digest: hash of the features, bit by bit.
      keys: `[k]` uint64 ascending, the smallest up to 256 keys of its tiles, all different. The key of a tile
        is a hash of the direction of its feature vector, coarsely rounded.
    """

    slide_id: str
    num_tiles: int
    digest: str
    keys: UInt64[np.ndarray, "k"]


class Alike(NamedTuple):
    """Two slides of which one seems to be made of the other's tiles.

    Attributes:
      first, second: rows of the sketches, in order.
      share: of the tiles of the smaller slide that the larger one has, estimated.
      is_same: the features are the same bit by bit.
    """

    first: int
    second: int
    share: float
    is_same: bool


def sketch(slide: Slide) -> SlideSketch:
    """The sketch of a slide; tiles that are zero or not finite have no key."""
    features = np.ascontiguousarray(slide.features)
    keys = np.zeros(0, np.uint64)
    for start in range(0, len(features), _ROWS):
        part = _tile_keys(features[start : start + _ROWS].astype(np.float32))
        keys = np.unique(np.concatenate([keys, part]))[:_NUM_KEYS]
    digest = xxhash.xxh3_128_hexdigest(features.view(np.uint8).data) if features.size else ""
    return SlideSketch(slide.id, len(features), f"{features.dtype.name}:{digest}", keys)


def alike(sketches: Sequence[SlideSketch]) -> list[Alike]:
    """All pairs of which at least half of the smaller slide's tiles are in the other one.

    Finds copies, copies in float16, bfloat16 or float32, extractions again on another machine, and subsets
    down to about a twentieth of the tiles. Does not find a slide whose tiles were cut again elsewhere or
    in another size, or that was embedded by another encoder. Different slides of a patient, stain or scanner
    are not alike: to share a key, two tiles must point the same way within a few per cent.

    The keys are sorted once and only slides that share one are compared: 20 000 slides take seconds.
    """
    pairs = []
    for first, second in sorted(_candidates(sketches)):
        one, other = sketches[first], sketches[second]
        is_same = one.digest == other.digest
        share = 1.0 if is_same else _share(one.keys, other.keys)
        if share >= _ALIKE:
            pairs.append(Alike(first, second, share, is_same))
    return pairs


def _share(keys: UInt64[np.ndarray, "k"], others: UInt64[np.ndarray, "o"]) -> float:
    """Of the slide that has fewer keys, the share that the other has too; 0 if they are too few to tell."""
    # Up to the smaller of the two largest keys both sketches are complete, so there they can be compared.
    limit = min((k[-1] for k in (keys, others) if len(k) == _NUM_KEYS), default=None)
    if limit is not None:
        keys, others = keys[keys <= limit], others[others <= limit]
    fewer = min(len(keys), len(others))
    num_shared = len(np.intersect1d(keys, others, assume_unique=True))
    return num_shared / fewer if num_shared and num_shared >= min(fewer, _FEWEST_SHARED) else 0.0


def _candidates(sketches: Sequence[SlideSketch]) -> set[tuple[int, int]]:
    """Pairs of slides that share a key, or all their features."""
    if not sketches:
        return set()
    keys = np.concatenate([s.keys for s in sketches])
    owner = np.repeat(np.arange(len(sketches)), [len(s.keys) for s in sketches])
    pairs: set[tuple[int, int]] = set()
    for owners in _shared(keys, owner):
        if len(owners) <= _COMMON:
            pairs.update(itertools.combinations(owners.tolist(), 2))
    full = [i for i, s in enumerate(sketches) if s.num_tiles]
    for first, *others in _shared(np.array([sketches[i].digest for i in full]), np.array(full, int)):
        # Of many copies each is compared with the first only.
        pairs.update((int(first), int(other)) for other in others)
    return pairs


def _shared(values: np.ndarray, owner: Int[np.ndarray, "n"]) -> Iterator[Int[np.ndarray, "m"]]:
    """The owners, ascending, of every value that has several."""
    order = np.lexsort((owner, values))
    values, owner = values[order], owner[order]
    ends = np.flatnonzero(values[1:] != values[:-1]) + 1
    for start, end in itertools.pairwise([0, *ends.tolist(), len(values)]):
        if end - start > 1:
            yield owner[start:end]


def _tile_keys(features: Float[np.ndarray, "l d"]) -> UInt64[np.ndarray, "k"]:
    # In units of the largest value, so that squares of float32 cannot overflow.
    largest = np.abs(features).max(axis=1, initial=0.0)
    is_usable = np.isfinite(largest) & (largest > 0)
    unit = features[is_usable] / largest[is_usable, None]
    unit /= np.linalg.norm(unit, axis=1, keepdims=True)
    directions, factors = _directions(features.shape[1])
    cells = np.floor(unit @ directions / _CELL).astype(np.int64)
    # Sums of products by random factors, modulo 2**64: a universal hash.
    return (cells.view(np.uint64) * factors).sum(axis=1, dtype=np.uint64)


@functools.cache
def _directions(width: int) -> tuple[Float[np.ndarray, "d k"], UInt64[np.ndarray, "k"]]:
    rng = np.random.default_rng(0)
    factors = rng.integers(0, 2**64, _NUM_DIRECTIONS, dtype=np.uint64)
    return rng.standard_normal((width, _NUM_DIRECTIONS), np.float32), factors

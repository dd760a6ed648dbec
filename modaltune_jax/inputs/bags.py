"""A case's tiles as one bag: slides joined, on a grid, subsampled, padded to one of a few lengths."""

from __future__ import annotations

import bisect
import dataclasses
from collections.abc import Sequence

import numpy as np
from jaxtyping import Float, Int, Integer

from modaltune_jax.types import InputError, Slide

LAYOUTS = ("stacked", "own", "reference")
ORIGINS = ("level0", "slide")

_REFERENCE_GAP = 1500
"""Level-0 pixels between one slide and the next in the published ModalTune."""


@dataclasses.dataclass(frozen=True)
class Bag:
    """All tiles of a case.

    Attributes:
      features: `[l, d]` tile features.
      cells: `[l, 2]` int32 (column, row) of each tile.
    """

    features: Float[np.ndarray, "l d"]
    cells: Int[np.ndarray, "l 2"]

    def __len__(self) -> int:
        return len(self.features)


def grid_cells(slide: Slide, tile_size: int | None = None, origin: str = "level0") -> Int[np.ndarray, "l 2"]:
    """Grid cell (column, row) of every tile: `floor((coords - origin) / tile_size)`.

    Args:
      slide: coordinates in level-0 pixels.
      tile_size: side of a cell in level-0 pixels; None takes the slide's own `patch_size_level0`, a
        number is used whatever the slide says (published ModalTune: 256 for GigaPath, 1024 for TITAN).
      origin: "level0" counts from pixel (0, 0), "slide" from the slide's smallest x and y, as TITAN does.

    Raises:
      InputError: the size is not positive.
    """
    size = slide.patch_size_level0 if tile_size is None else tile_size
    if size < 1:
        raise InputError(
            f"slide {slide.id}: tile size {size} is not positive; give the tile's side in level-0 pixels"
        )
    coords = np.asarray(slide.coords, np.int64)
    if origin == "slide" and len(coords):
        coords = coords - coords.min(axis=0)
    return np.floor_divide(coords, size).astype(np.int32)


def join_slides(
    slides: Sequence[Slide],
    *,
    tile_size: int | None = None,
    layout: str = "stacked",
    origin: str = "level0",
    feature_dim: int = 0,
) -> Bag:
    """All slides of a case as one bag, slide after slide, tiles in scan order.

    Args:
      slides: may be empty.
      tile_size: see `grid_cells`.
      layout: "stacked" shifts each slide's columns behind the last column of all slides before it, so that
        no two slides share a cell. In x, because Prov-GigaPath numbers positions 1000 x + y: a shift in y
        would give tiles beyond 1000 the positions of others. "own" leaves every slide in its own frame.
        "reference" shifts in y, by the last tile of the one slide before and 1500 pixels, as the published
        ModalTune did: the third slide of a case may overlap the second.
      origin: see `grid_cells`.
      feature_dim: width of the empty bag that a case without slides becomes.
    """
    if layout not in LAYOUTS or origin not in ORIGINS:
        raise InputError(
            f"layout '{layout}', origin '{origin}': layout is one of {LAYOUTS}, origin of {ORIGINS}"
        )
    if not slides:
        return Bag(np.zeros((0, feature_dim), np.float32), np.zeros((0, 2), np.int32))
    if layout == "reference":
        slides, origin = _shift_as_published(slides, origin), "level0"
    cells = []
    next_column = None
    for slide in slides:
        grid = grid_cells(slide, tile_size, origin)
        if layout == "stacked" and len(grid):
            if next_column is not None:
                # Columns may be negative, so the shift is measured from the slide's own first column.
                grid[:, 0] += next_column - min(0, grid[:, 0].min())
            next_column = grid[:, 0].max() + 1
        cells.append(grid)
    if len(slides) == 1:
        return Bag(slides[0].features, cells[0])
    return Bag(_stack([slide.features for slide in slides]), np.concatenate(cells))


def _stack(parts: Sequence[Float[np.ndarray, "_ d"]]) -> Float[np.ndarray, "l d"]:
    """The rows of all parts, without a copy where they follow each other in one array, as in a record."""
    parts = [part for part in parts if len(part)] or parts[:1]  # an empty part may be anywhere
    addresses = np.array([part.ctypes.data for part in parts])
    ends = addresses + [part.nbytes for part in parts]
    bases = {id(part.base) for part in parts}
    is_dense = parts[0].base is not None and all(part.flags.c_contiguous for part in parts)
    if len(bases) > 1 or not is_dense or (addresses[1:] != ends[:-1]).any():
        return np.concatenate(parts)
    shape = (sum(map(len, parts)), parts[0].shape[1])
    return np.lib.stride_tricks.as_strided(parts[0], shape, writeable=False)


def _shift_as_published(slides: Sequence[Slide], origin: str) -> list[Slide]:
    """Slides shifted in y as `join_slides` says; from the smallest x and y of all if origin is "slide"."""
    shift, shifted = 0, []
    for slide in slides:
        coords = np.asarray(slide.coords, np.int64)
        shifted.append(coords + np.array([0, shift]))
        shift = int(coords[:, 1].max()) + _REFERENCE_GAP if len(coords) else shift
    first = np.concatenate(shifted).min(axis=0, initial=np.iinfo(np.int32).max) if origin == "slide" else 0
    return [
        dataclasses.replace(slide, coords=coords - first)
        for slide, coords in zip(slides, shifted, strict=True)
    ]


def subsample(bag: Bag, max_tiles: int | None, rng: np.random.Generator | None = None) -> Bag:
    """At most `max_tiles` tiles in scan order, drawn without replacement; evenly spaced if `rng` is None."""
    num_tiles = len(bag)
    if max_tiles is None or num_tiles <= max_tiles:
        return bag
    if rng is None:
        rows = (2 * np.arange(max_tiles) + 1) * num_tiles // (2 * max_tiles)
    else:
        rows = np.sort(rng.choice(num_tiles, max_tiles, replace=False, shuffle=False))
    return Bag(bag.features[rows], bag.cells[rows])


def merge_cells(bag: Bag) -> Bag:
    """One row a foreground cell, in row-major order, as TITAN takes a slide.

    Features of tiles that share a cell are added, in float64 and rounded once to float32, so that their order
    does not matter. Cells whose features are then all zero are background and left out.
    """
    order = np.lexsort((bag.cells[:, 0], bag.cells[:, 1]))
    cells = bag.cells[order]
    is_first = np.ones(len(cells), bool)
    is_first[1:] = (cells[1:] != cells[:-1]).any(axis=1)
    starts = np.flatnonzero(is_first)
    features = bag.features[order].astype(np.float32, copy=False)
    if len(starts) < len(order):
        features = np.add.reduceat(features, starts, axis=0, dtype=np.float64).astype(np.float32)
    is_foreground = features.any(axis=1)
    return Bag(features[is_foreground], cells[starts][is_foreground])


def pad(bag: Bag, length: int, out: Bag | None = None) -> Bag:
    """The bag with zero rows up to `length`.

    Args:
      bag: `[l, d]`, l at most `length`.
      length: number of rows of the result.
      out: arrays to write into, e.g. a row of a batch; saves a copy and casts to their dtype. If the bag is a
        view of its first rows, nothing is copied at all.
    """
    num_tiles, width = bag.features.shape
    if num_tiles > length:
        raise ValueError(f"a bag of {num_tiles} tiles does not fit into {length} rows")
    if out is None:
        out = Bag(np.empty((length, width), bag.features.dtype), np.empty((length, 2), np.int32))
    for to, rows in ((out.features, bag.features), (out.cells, bag.cells)):
        to[:num_tiles] = rows
        to[num_tiles:] = 0
    return out


def buckets(
    lengths: Sequence[int] | Integer[np.ndarray, "n"],
    *,
    num_buckets: int = 8,
    multiple: int = 64,
    max_tiles: int | None = None,
) -> tuple[int, ...]:
    """The few lengths to pad to that waste least over `lengths`; the last covers the longest bag.

    A bucket is a multiple of `multiple` minus 1: the encoder puts a class token in front, and kernels
    want the sum aligned. Exact, by a dynamic programme over the distinct rounded lengths.

    Args:
      lengths: tiles per case.
      num_buckets: how many lengths at most; every one costs a compilation.
      multiple: alignment of a bucket plus its class token.
      max_tiles: longer bags will be subsampled to this.

    Raises:
      InputError: no lengths, or a setting below 1.
    """
    if len(lengths) == 0:
        raise InputError("no cases, so no bag lengths to choose buckets from")
    if min(num_buckets, multiple) < 1:
        raise InputError(f"num_buckets {num_buckets} and multiple {multiple} must be at least 1")
    capped = np.minimum(lengths, np.inf if max_tiles is None else max_tiles).astype(np.int64)
    # A bucket holds at least one tile, so that arrays keep a tile axis.
    aligned = -(-(np.maximum(capped, 1) + 1) // multiple) * multiple - 1
    sizes, counts = np.unique(aligned, return_counts=True)
    return _fewest_rows(sizes, counts, num_buckets)


def _fewest_rows(
    sizes: Int[np.ndarray, "n"], counts: Int[np.ndarray, "n"], num_buckets: int
) -> tuple[int, ...]:
    """The at most `num_buckets` of the ascending `sizes` that hold all bags in the fewest rows."""
    seen = np.concatenate([[0], np.cumsum(counts)])
    # rows[j]: fewest rows for the bags of the j smallest sizes with the buckets allowed so far.
    rows = np.where(np.arange(len(sizes) + 1) == 0, 0.0, np.inf)
    starts = []
    for _ in range(min(num_buckets, len(sizes))):
        # The last bucket, sizes[j - 1], holds sizes start[j] to j - 1; start[j] == j leaves it out.
        start = np.zeros(len(rows), np.int64)
        fewest = rows.copy()
        for j in range(1, len(rows)):
            totals = rows[: j + 1] + (seen[j] - seen[: j + 1]) * sizes[j - 1]
            start[j] = np.argmin(totals)
            fewest[j] = totals[start[j]]
        starts.append(start)
        rows = fewest
    chosen = []
    j = len(sizes)
    for start in reversed(starts):
        if start[j] < j:
            chosen.append(int(sizes[j - 1]))
            j = int(start[j])
    return tuple(reversed(chosen))


def bucket_of(length: int, buckets: Sequence[int]) -> int:
    """The smallest bucket that holds `length` tiles.

    Raises:
      InputError: longer than the last bucket.
    """
    position = bisect.bisect_left(buckets, length)
    if position == len(buckets):
        raise InputError(
            f"a bag of {length} tiles is longer than the last bucket, {buckets[-1]}; set max_tiles"
        )
    return int(buckets[position])


def padding_waste(lengths: Sequence[int] | Integer[np.ndarray, "n"], buckets: Sequence[int]) -> float:
    """Share of all padded bags' rows that is padding; bags beyond the last bucket count as cut to it."""
    used = np.minimum(lengths, buckets[-1])
    rows = sum(bucket_of(int(length), buckets) for length in used)
    return 1.0 - float(used.sum()) / rows

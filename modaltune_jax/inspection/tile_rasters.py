"""A slide's tiles as a small picture: a value a grid cell."""

from __future__ import annotations

import dataclasses

import numpy as np
from jaxtyping import Bool, Float, Int

from modaltune_jax.inputs.bags import grid_cells
from modaltune_jax.inspection.slide_checks import is_finite_row
from modaltune_jax.types import Slide

MAX_SIDE = 400
"""Rows or columns of a raster; larger grids are drawn with several cells a pixel."""


@dataclasses.dataclass(frozen=True, eq=False)
class Direction:
    """The direction in which tile features differ most.

    Attributes:
      mean: `[d]` of the tiles it was fitted on.
      axis: `[d]` unit vector.
      low, high: between which nearly all of those tiles lie.
    """

    mean: Float[np.ndarray, "d"]
    axis: Float[np.ndarray, "d"]
    low: float
    high: float


@dataclasses.dataclass(frozen=True, eq=False)
class TileRaster:
    """What a slide's tiles look like from above, cut to the tissue.

    Attributes:
      values: `[r, c]` mean over a pixel's tiles, from 0 to 1 of a `Direction`; NaN where there is no tile, or
        none with finite features.
      is_shared: `[r, c]` several tiles lie in one grid cell.
      is_broken: `[r, c]` a tile has NaN or infinite features.
      cells_per_pixel: side of a pixel in grid cells.
    """

    values: Float[np.ndarray, "r c"]
    is_shared: Bool[np.ndarray, "r c"]
    is_broken: Bool[np.ndarray, "r c"]
    cells_per_pixel: int


def sample_tiles(slide: Slide, count: int) -> Float[np.ndarray, "n d"]:
    """Features of at most `count` tiles, evenly spaced, those that are finite."""
    rows = np.unique(np.linspace(0, max(len(slide.features) - 1, 0), count).round().astype(int))
    features = slide.features[rows[: len(slide.features)]].astype(np.float32)
    return features[is_finite_row(features)]


def fit_direction(features: Float[np.ndarray, "n d"]) -> Direction:
    """The first principal component of at least one tile; its sign makes the largest weight positive."""
    mean = features.mean(axis=0)
    centred = features - mean
    axis = np.linalg.svd(centred, full_matrices=False)[2][0]
    axis = axis * np.sign(axis[np.argmax(np.abs(axis))])
    low, high = np.percentile(centred @ axis, [2, 98])
    return Direction(mean, axis, float(low), float(high))


def draw_raster(slide: Slide, direction: Direction) -> TileRaster:
    """A slide with at least one tile, coloured by where its features lie along a direction."""
    cells = grid_cells(slide).astype(np.int64)
    cells -= cells.min(axis=0)
    num_columns, num_rows = (int(side) for side in cells.max(axis=0) + 1)
    factor = -(-max(num_columns, num_rows) // MAX_SIDE)
    shape = (-(-num_rows // factor), -(-num_columns // factor))
    pixel = np.ravel_multi_index((cells[:, 1] // factor, cells[:, 0] // factor), shape)

    is_finite = is_finite_row(slide.features)
    place = (slide.features[is_finite].astype(np.float32) - direction.mean) @ direction.axis
    level = np.clip((place - direction.low) / max(direction.high - direction.low, 1e-12), 0.0, 1.0)
    num_finite = _count(pixel[is_finite], shape)
    total = np.bincount(pixel[is_finite], weights=level, minlength=num_finite.size).reshape(shape)
    values = np.where(num_finite > 0, total / np.maximum(num_finite, 1), np.nan)

    _, first, count = np.unique(cells, axis=0, return_index=True, return_counts=True)
    return TileRaster(
        values=values.astype(np.float32),
        is_shared=_count(pixel[first[count > 1]], shape) > 0,
        is_broken=_count(pixel[~is_finite], shape) > 0,
        cells_per_pixel=factor,
    )


def _count(pixel: Int[np.ndarray, "n"], shape: tuple[int, int]) -> Int[np.ndarray, "r c"]:
    return np.bincount(pixel, minlength=shape[0] * shape[1]).reshape(shape)

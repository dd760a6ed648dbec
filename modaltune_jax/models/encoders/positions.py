"""Fixed two-dimensional sine-cosine positions, computed instead of looked up."""

from __future__ import annotations

import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Float, Int


def grid_positions(cells: Int[Array, "b l 2"], width: int, num_grids: int) -> Float[Array, "b l width"]:
    """Positions of tiles as Prov-GigaPath's `num_grids` x `num_grids` table holds them.

    The table is addressed by one flat index, `cells[..., 0] * num_grids + cells[..., 1]`: a second
    coordinate beyond the grid runs on into the next row, as published; a first one beyond the grid,
    where the published table ends, continues the pattern. The first half of the vector encodes the flat
    index modulo `num_grids`, the second half the quotient, each as [sin | cos].

    Args:
      cells: (column, row) of each tile, its corner (x, y) in units of the tile's side, rounded down.
      width: length of a position vector, a multiple of 4.
      num_grids: side of the published table.
    """
    flat = cells[..., 0] * num_grids + cells[..., 1]
    halves = [_sincos(flat % num_grids, width // 2), _sincos(flat // num_grids, width // 2)]
    return jnp.concatenate(halves, axis=-1)


def _sincos(index: Int[Array, "b l"], width: int) -> Float[Array, "b l width"]:
    """[sin | cos] of index * 10000^(-i / (width / 2)).

    float32 would lose the phase of a large index. In units of 2^-32 turns the product is an unsigned
    integer whose overflow is exactly the whole turns that sine and cosine ignore.
    """
    frequency = 10000.0 ** (-np.arange(width // 2) / (width // 2))
    turns = np.round(frequency / (2 * np.pi) * 2.0**32).astype(np.uint32)
    phase = lax.bitcast_convert_type(index[..., None].astype(jnp.uint32) * turns, jnp.int32)
    angle = phase.astype(jnp.float32) * np.float32(2 * np.pi / 2.0**32)
    return jnp.concatenate([jnp.sin(angle), jnp.cos(angle)], axis=-1)

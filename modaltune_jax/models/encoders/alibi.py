"""Attention with linear biases (ALiBi, Press et al. 2022) on a grid: logits fall with the distance."""

from __future__ import annotations

from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int


class GridBias(NamedTuple):
    """What a bias of -slope * Euclidean distance between grid cells is computed from, block by block.

    Attributes:
      cells: `[n, s, 2]` grid cell of each token, queries and keys alike.
      placed: `[n, s]` False for a token that has no cell, as a class token: row and column are without bias.
      slopes: `[h]` how steeply the logits of each head fall.
    """

    cells: Int[Array, "n s 2"]
    placed: Bool[Array, "n s"]
    slopes: Float[Array, "h"]

    def places(self) -> tuple[Float[Array, "n s h 3"], Float[Array, "n s h 3"]]:
        """Cell and weight of every query and of every key; the bias is -weights * distance."""
        shape = (*self.placed.shape, len(self.slopes), 1)
        cells = jnp.broadcast_to(self.cells[:, :, None], (*shape[:3], 2)).astype(jnp.float32)
        of_queries = jnp.broadcast_to(self.placed[:, :, None, None], shape).astype(jnp.float32)
        of_keys = of_queries * self.slopes[:, None].astype(jnp.float32)
        return jnp.concatenate([cells, of_queries], axis=-1), jnp.concatenate([cells, of_keys], axis=-1)


def distance_bias(queries: Float[Array, "p s 3"], keys: Float[Array, "p t 3"]) -> Float[Array, "p s t"]:
    """The bias between some of the `GridBias.places` of queries and of keys."""
    # Coordinates apart: a norm over a last axis of two makes the whole attention four times slower on a CPU.
    (x, y, weight), (other_x, other_y, other_weight) = (jnp.moveaxis(a, -1, 0) for a in (queries, keys))
    dx, dy = (a[:, :, None] - b[:, None] for a, b in ((x, other_x), (y, other_y)))
    return -weight[:, :, None] * other_weight[:, None] * jnp.sqrt(dx * dx + dy * dy)


def head_slopes(num_heads: int) -> Float[np.ndarray, "h"]:
    """The slopes of Press et al.: 2^(-8 i / h) for h heads, i from 1, where h is a power of two.

    Other numbers of heads take those of the power of two below, then every second one, from the first,
    of the power of two above.
    """
    below = 2 ** (num_heads.bit_length() - 1)
    slopes = 2.0 ** (-8.0 / below * np.arange(1, below + 1))
    between = 2.0 ** (-4.0 / below * np.arange(1, 2 * below, 2))
    return np.concatenate([slopes, between])[:num_heads].astype(np.float32)

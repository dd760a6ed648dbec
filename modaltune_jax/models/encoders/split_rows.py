"""Segments of a sequence whose rows lie on several devices: who needs which rows, and how they get there."""

from __future__ import annotations

from typing import NamedTuple

import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float

from modaltune_jax.partitioning import SEQUENCE


class SplitRows(NamedTuple):
    """A sequence on the devices of the axis `sequence`, cut into segments.

    Attributes:
      rows: consecutive rows on each device.
      segment: rows of a segment; the last may end beyond the last device.
      num_devices: how many devices hold the sequence.
    """

    rows: int
    segment: int
    num_devices: int

    @property
    def total(self) -> int:
        """Rows on all devices."""
        return self.rows * self.num_devices

    def first(self, device):
        """The segment of a device's first row; `device` is a number or traced."""
        return device * self.rows // self.segment

    @property
    def num_windows(self) -> int:
        """Segments that a device has rows in: the most of any device."""
        return max(
            (start + self.rows - 1) // self.segment - start // self.segment + 1 for start in self._starts
        )

    @property
    def left(self) -> int:
        """Rows before a device's own that its first segment holds: the most of any device."""
        return max(start % self.segment for start in self._starts)

    @property
    def right(self) -> int:
        """Rows after a device's own that its last segment holds: the most of any device."""
        stops = (start + self.rows for start in self._starts)
        return max(min(-stop % self.segment, self.total - stop) for stop in stops)

    @property
    def _starts(self) -> range:
        return range(0, self.total, self.rows)


def gather_segments(x: Float[Array, "b c h d"], split: SplitRows) -> Float[Array, "b windows segment h d"]:
    """The segments that this device has rows in, whole, zero rows behind the end of the sequence.

    Where a device has rows in fewer segments than another, those that follow are there in place of
    missing ones, complete or not.
    """
    device = lax.axis_index(SEQUENCE)
    if split.left + split.right < split.total - split.rows:
        known, origin = _with_neighbours(x, split), device * split.rows - split.left
    else:
        known, origin = lax.all_gather(x, SEQUENCE, axis=1, tiled=True), jnp.zeros_like(device)
    size = split.num_windows * split.segment
    known = jnp.pad(known, ((0, 0), (0, size), (0, 0), (0, 0)))
    start = split.first(device) * split.segment - origin
    windows = lax.dynamic_slice_in_dim(known, start, size, axis=1)
    return windows.reshape(len(x), split.num_windows, split.segment, *x.shape[2:])


def from_neighbour(x: Array, step: int) -> Array:
    """What the device `step` places before this one passes on; zeros where there is none."""
    num_devices = lax.axis_size(SEQUENCE)
    pairs = [(i, i + step) for i in range(num_devices) if 0 <= i + step < num_devices]
    return lax.ppermute(x, SEQUENCE, pairs)


def _with_neighbours(x, split):
    """`split.left` rows of the devices before, the own, and `split.right` rows of the devices after."""
    parts = [x]
    for step, missing in _hops(split.left, split.rows):
        parts.insert(0, from_neighbour(x[:, split.rows - missing :], step))
    for step, missing in _hops(split.right, split.rows):
        parts.append(from_neighbour(x[:, :missing], -step))
    return jnp.concatenate(parts, axis=1)


def _hops(needed: int, rows: int) -> list[tuple[int, int]]:
    """How many rows of the 1st, 2nd, ... device away make `needed` rows."""
    return [(i + 1, min(rows, needed - i * rows)) for i in range(-(-needed // rows))]

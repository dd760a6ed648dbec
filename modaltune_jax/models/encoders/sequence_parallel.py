"""Dilated attention of sequences whose rows lie on several devices, equal to that on one.

Every device holds the same number of consecutive rows. It computes the attention of its own queries. Of the
other devices it needs the keys and values of the segments that its rows are in, thinned by the stride of the
branch: nothing where segments begin and end with its rows, the border where they do not, the rows of all
devices only where one segment spans them. Zero rows count as in `dilated_attention`, and padding changes
nothing.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence

import jax.numpy as jnp
from jax import lax
from jax.sharding import PartitionSpec as P
from jaxtyping import Array, Float, Int

from modaltune_jax.models.encoders import uneven_strides
from modaltune_jax.models.encoders.attention import attend
from modaltune_jax.models.encoders.dilated_attention import (
    SKIPPED,
    dilated_attention,
    keys_of_segments,
    mix,
    spread,
    thin,
)
from modaltune_jax.models.encoders.split_rows import SplitRows, from_neighbour, gather_segments
from modaltune_jax.partitioning import CASES, SEQUENCE, per_case, per_tile, split_size

_ROWS = P(CASES, SEQUENCE)


def sharded_dilated_attention(
    q: Float[Array, "b n h d"],
    k: Float[Array, "b n h d"],
    v: Float[Array, "b n h d"],
    length: Int[Array, "b"],
    segment_lengths: Sequence[int],
    dilated_ratios: Sequence[int],
    implementation: str = "auto",
) -> Float[Array, "b n h d"]:
    """`dilated_attention` on the mesh that `partitioning.tracing` has made known; on one device, the same."""
    branches = tuple(zip(segment_lengths, dilated_ratios, strict=True))
    if split_size() == 1:
        attention = functools.partial(
            dilated_attention,
            segment_lengths=segment_lengths,
            dilated_ratios=dilated_ratios,
            implementation=implementation,
        )
        return per_case(attention)(q, k, v, length)
    attention = functools.partial(
        _attention_of_own_rows,
        branches=branches,
        num_devices=split_size(),
        implementation=implementation,
    )
    return per_tile(attention, (_ROWS, _ROWS, _ROWS, P(CASES)), _ROWS)(q, k, v, length)


def join_class_token(cls: Float[Array, "b d"], tiles: Float[Array, "b l d"]) -> Float[Array, "b n d"]:
    """The class token in front of the tiles.

    Where tiles are split, the sequence has as many rows as the tiles have: every row moves on by one, and
    the last, which is padding, makes room. A case without padding becomes NaN in `part_class_token`.
    """
    if split_size() == 1:
        return jnp.concatenate([cls[:, None], tiles], axis=1)

    def move_on(cls, tiles):
        before = from_neighbour(tiles[:, -1:], step=1)
        first = jnp.where(lax.axis_index(SEQUENCE) == 0, cls[:, None], before)
        return jnp.concatenate([first, tiles[:, :-1]], axis=1)

    return per_tile(move_on, (P(CASES), _ROWS), _ROWS)(cls, tiles)


def part_class_token(
    x: Float[Array, "b n d"], length: Int[Array, "b"]
) -> tuple[Float[Array, "b d"], Float[Array, "b l d"]]:
    """Undoes `join_class_token`: class token and tiles, of which `length` are real."""
    if split_size() == 1:
        return x[:, 0], x[:, 1:]

    def move_back(x):
        cls = jnp.where(lax.axis_index(SEQUENCE) == 0, x[:, 0], 0.0)
        after = from_neighbour(x[:, :1], step=-1)
        return lax.psum(cls, SEQUENCE), jnp.concatenate([x[:, 1:], after], axis=1)

    cls, tiles = per_tile(move_back, (_ROWS,), (P(CASES), _ROWS))(x)
    return jnp.where((length < x.shape[1])[:, None], cls, jnp.nan), tiles


def _attention_of_own_rows(q, k, v, length, branches, num_devices, implementation):
    """What `dilated_attention` gives for the rows of this device."""
    rows = q.shape[1]
    own = lax.axis_index(SEQUENCE) * rows + jnp.arange(rows)
    real = (own < length[:, None])[..., None, None]
    q, k, v = (jnp.where(real, x, 0) for x in (q, k, v))
    outputs = []
    for segment, ratio in branches:
        split = SplitRows(rows, min(segment, rows * num_devices), num_devices)
        is_even = split.segment % ratio == 0 and rows % ratio == 0
        branch = _branch if is_even else uneven_strides.branch
        outputs.append(branch(q, k, v, length, split, ratio, implementation))
    return mix(outputs).astype(q.dtype)


def _branch(q, k, v, length, split, ratio, implementation):
    """One (segment, ratio) whose stride goes evenly into segments and devices; as `dilated_attention`'s.

    Thinned, the rows are a shorter sequence in shorter segments, split over the devices in the same way.
    """
    b, rows, h, _ = q.shape
    q, k, v = (thin(x, ratio) for x in (q, k, v))
    thinned = SplitRows(rows // ratio, split.segment // ratio, split.num_devices)
    k, v = (gather_segments(x, thinned) for x in (k, v))
    keys = keys_of_windows(length, split, ratio)
    place = _place_in_segments if thinned.segment <= thinned.rows else _repeat_for_segments
    q, put_back = place(q, thinned)
    flat = lambda x: x.reshape(-1, *x.shape[2:])  # noqa: E731
    o, lse = attend(flat(q), flat(k), flat(v), flat(keys), implementation=implementation)
    o, lse = (put_back(x.reshape(b, -1, *x.shape[1:])) for x in (o, lse[..., None]))
    return spread(o, ratio, 0.0)[:, :, :h], spread(lse, ratio, SKIPPED)[:, :, :h, 0]


def keys_of_windows(length, split, ratio):
    """`keys_of_segments` for the segments that this device has rows in, `[b, windows]`."""
    windows = split.first(lax.axis_index(SEQUENCE)) + jnp.arange(split.num_windows)
    return keys_of_segments(length, windows * split.segment, split.segment, ratio)


def _place_in_segments(q, split):
    """Queries in segments shorter than a device: `[b, windows, segment, ...]`, and what undoes it."""
    start = lax.axis_index(SEQUENCE) * split.rows % split.segment
    shape = (len(q), split.num_windows * split.segment, *q.shape[2:])
    placed = lax.dynamic_update_slice_in_dim(jnp.zeros(shape, q.dtype), q, start, axis=1)

    def put_back(x):
        x = x.reshape(len(x), -1, *x.shape[3:])
        return lax.dynamic_slice_in_dim(x, start, split.rows, axis=1)

    return placed.reshape(len(q), split.num_windows, split.segment, *q.shape[2:]), put_back


def _repeat_for_segments(q, split):
    """Queries in segments longer than a device, of which it has rows in two at most: all queries for each."""
    device = lax.axis_index(SEQUENCE)
    window = (device * split.rows + jnp.arange(split.rows)) // split.segment - split.first(device)
    is_in = window == jnp.arange(split.num_windows)[:, None]

    def put_back(x):
        return jnp.sum(jnp.where(is_in[..., None, None], x, 0), axis=1)

    return jnp.broadcast_to(q[:, None], (len(q), split.num_windows, *q.shape[1:])), put_back

"""Branches of a split dilated attention whose stride does not go evenly into segments or devices.

Which rows a head keeps then differs from segment to segment. Rows are found by index instead of by strided
slices, and thinned keys and values are added up over the devices, each of which knows its own: twice the
bytes of gathering them. In Prov-GigaPath that is one branch, of bags with more than 185 363 tokens.
"""

from __future__ import annotations

import jax.numpy as jnp
from jax import lax

from modaltune_jax.models.encoders.attention import attend
from modaltune_jax.models.encoders.dilated_attention import SKIPPED, keys_of_segments
from modaltune_jax.partitioning import SEQUENCE


def branch(q, k, v, length, split, ratio, implementation):
    """One (segment, ratio): output `[b, n, h, d]` and log-sum-exp `[b, n, h]` float32 of the own rows."""
    b, rows, h, d = q.shape
    q, k, v = (_in_groups(x, ratio) for x in (q, k, v))
    device = lax.axis_index(SEQUENCE)
    first, start = split.first(device), device * rows
    windows = first + jnp.arange(split.num_windows)
    k, v = (lax.psum(_thinned_everywhere(x, start, split, ratio), SEQUENCE) for x in (k, v))
    behind = ((0, 0), (0, split.num_windows), *((0, 0),) * 4)
    k, v = (lax.dynamic_slice_in_dim(jnp.pad(x, behind), first, split.num_windows, axis=1) for x in (k, v))

    # Of each segment, the strides that reach into the own rows.
    begin = jnp.maximum((start - windows * split.segment) // ratio, 0)
    strides = begin[:, None] + jnp.arange(-(-rows // ratio) + 1)
    q = _take(q, _kept(windows, strides, split, ratio) - start)

    keys = keys_of_segments(length, windows * split.segment, split.segment, ratio)
    flat = lambda x: x.reshape(b * split.num_windows, x.shape[2], -1, d)  # noqa: E731
    o, lse = attend(flat(q), flat(k), flat(v), keys.reshape(-1), implementation=implementation)

    own = start + jnp.arange(rows)
    window = own // split.segment - first
    within = own % split.segment
    stride = within // ratio - begin[window]
    groups = jnp.arange(ratio)
    is_kept = (within[:, None] % ratio == groups)[..., None]

    def put_back(x, fill):
        x = x.reshape(b, split.num_windows, strides.shape[1], ratio, -1, x.shape[-1])
        x = x[:, window[:, None], stride[:, None], groups]
        x = jnp.where(is_kept[..., None], x, fill)
        return x.reshape(b, rows, -1, x.shape[-1])[:, :, :h]

    return put_back(o, 0.0), put_back(lse[..., None], SKIPPED)[..., 0]


def _in_groups(x, ratio):
    """`[b, n, h, d]` -> `[b, n, groups, heads, d]`, heads filled with zeros to a multiple."""
    x = jnp.pad(x, ((0, 0), (0, 0), (0, -x.shape[2] % ratio), (0, 0)))
    return x.reshape(*x.shape[:2], ratio, -1, x.shape[3])


def _thinned_everywhere(x, start, split, ratio):
    """The rows that groups keep of all segments, `[b, segments, kept, groups, heads, d]`; of others zeros."""
    segments = jnp.arange(-(-split.total // split.segment))
    strides = jnp.arange(-(-split.segment // ratio))
    strides = jnp.broadcast_to(strides, (len(segments), len(strides)))
    return _take(x, _kept(segments, strides, split, ratio) - start)


def _kept(segments, strides, split, ratio):
    """The row that each group keeps of each stride `[i, kept, groups]`; -1 - total where there is none."""
    within = strides[..., None] * ratio + jnp.arange(ratio)
    rows = segments[:, None, None] * split.segment + within
    return jnp.where(within < split.segment, rows, -1 - split.total)


def _take(x, rows):
    """The own rows, `[b, i, kept, groups, heads, d]`; zeros in place of others."""
    is_own = (rows >= 0) & (rows < x.shape[1])
    found = x[:, jnp.where(is_own, rows, 0), jnp.arange(x.shape[2])]
    return jnp.where(is_own[..., None, None], found, 0)

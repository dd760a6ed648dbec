"""Dilated attention (LongNet, Ding et al. 2023), exact for any length and any padding."""

from __future__ import annotations

from collections.abc import Sequence

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float, Int

from modaltune_jax.models.encoders.attention import attend

SKIPPED = -1e8
"""Log-sum-exp of a head at a position that it skips: its branch gets no weight there."""


def dilated_attention(
    q: Float[Array, "b n h d"],
    k: Float[Array, "b n h d"],
    v: Float[Array, "b n h d"],
    length: Int[Array, "b"],
    segment_lengths: Sequence[int],
    dilated_ratios: Sequence[int],
    implementation: str = "auto",
) -> Float[Array, "b n h d"]:
    """Mixes one sparse attention per (segment length, ratio), weighed by their log-sum-exp.

    A branch cuts the sequence into segments; in each, the h heads form `ratio` groups and group j
    sees positions j, j + ratio, j + 2 ratio, ... As in the published model, the zero rows that fill
    the last segment and the last stride are keys like any other (logit 0, value 0), and the mixing
    weights are constants in the backward pass.

    The first `length` output rows equal those of the unpadded sequence, whatever the rows beyond hold.
    In one point the published code is not followed: where a segment is no multiple of its ratio it
    shifts later segments (only beyond 185 363 tokens in Prov-GigaPath); here rows stay in place.

    Args:
      q: queries.
      k: keys.
      v: values.
      length: number of real rows per case, class token included.
      segment_lengths: tokens per segment, one per branch.
      dilated_ratios: stride, one per branch. Need not divide the number of heads.
      implementation: of the attention in a segment, see `attention.attend`.

    Returns:
      The mixed output; rows at or beyond `length` are finite and mean nothing.
    """
    real = (jnp.arange(q.shape[1]) < length[:, None])[..., None, None]
    q, k, v = (jnp.where(real, x, 0) for x in (q, k, v))
    branches = [
        _branch(q, k, v, length, segment, ratio, implementation)
        for segment, ratio in zip(segment_lengths, dilated_ratios, strict=True)
    ]
    return mix(branches).astype(q.dtype)


def mix(
    branches: Sequence[tuple[Float[Array, "b n h d"], Float[Array, "b n h"]]],
) -> Float[Array, "b n h d"]:
    """The outputs of all branches, weighed by their log-sum-exp; weights are constants to differentiation."""
    outputs, lses = zip(*branches, strict=True)
    weights = lax.stop_gradient(jax.nn.softmax(jnp.stack(lses), axis=0))
    return sum(w[..., None] * o for w, o in zip(weights, outputs, strict=True))


def keys_of_segments(
    length: Int[Array, "b"], starts: Int[Array, "i"], segment: int, ratio: int
) -> Int[Array, "b i"]:
    """How many of the thinned keys count in the segments that begin at `starts`, at least 1.

    A sequence shorter than the segment is its own segment, so its keys end with its own stride; a longer
    one fills every segment with zero rows. Segments that start beyond the end are never read.
    """
    keys = jnp.where(length > segment, -(-segment // ratio), -(-length // ratio))
    return jnp.where(starts < length[:, None], keys[:, None], 1)


def _branch(q, k, v, length, segment, ratio, implementation):
    """One (segment, ratio): output `[b, n, h, d]` and log-sum-exp `[b, n, h]` float32."""
    n = q.shape[1]
    segment = min(segment, n)
    whole = n - n % segment
    parts = [_whole_segments(*(x[:, :whole] for x in (q, k, v)), length, segment, ratio, implementation)]
    if whole < n:
        parts.append(_last_segment(*(x[:, whole:] for x in (q, k, v)), segment, ratio, implementation))
    o, lse = (jnp.concatenate(part, axis=1) for part in zip(*parts, strict=True))
    return o, lse


def _whole_segments(q, k, v, length, segment, ratio, implementation):
    """A branch on sequences of as many rows as their segments have."""
    b, n, h, _ = q.shape
    num_segments = n // segment
    q, k, v = (thin(_cut(x, segment), ratio) for x in (q, k, v))
    keys = keys_of_segments(length, jnp.arange(num_segments) * segment, segment, ratio)
    o, lse = attend(q, k, v, keys.reshape(b * num_segments), implementation=implementation)
    o = spread(o, ratio, 0.0)[:, :segment, :h].reshape(b, n, h, -1)
    lse = spread(lse[..., None], ratio, SKIPPED)[:, :segment, :h].reshape(b, n, h)
    return o, lse


def _last_segment(q, k, v, segment, ratio, implementation):
    """A branch on the rows behind the last whole segment, few of a segment's.

    The zero rows that would complete it are counted as keys and never computed. It is read where the
    sequence is longer than one segment only, and there all of its rows are keys.
    """
    b, rows, h, _ = q.shape
    q, k, v = (thin(x, ratio) for x in (q, k, v))
    kept = q.shape[1]
    zero_keys = -(-segment // ratio) - kept
    o, lse = attend(q, k, v, jnp.full(b, kept), zero_keys=zero_keys, implementation=implementation)
    o = spread(o, ratio, 0.0)[:, :rows, :h]
    lse = spread(lse[..., None], ratio, SKIPPED)[:, :rows, :h, 0]
    return o, lse


def _cut(x: Float[Array, "b n h d"], segment: int) -> Float[Array, "c segment h d"]:
    """Cuts every sequence into its segments."""
    return x.reshape(-1, segment, *x.shape[2:])


def thin(x: Float[Array, "c s h d"], ratio: int) -> Float[Array, "c kept heads d"]:
    """Leaves head group j the rows j, j + ratio, ...; rows and heads are filled with zeros to multiples.

    With (row in stride, head group) as one axis, the kept pairs are its diagonal: a strided slice.
    """
    x = jnp.pad(x, ((0, 0), (0, -x.shape[1] % ratio), (0, -x.shape[2] % ratio), (0, 0)))
    c, s, h, d = x.shape
    diagonal = x.reshape(c, s // ratio, ratio * ratio, h // ratio, d)[:, :, :: ratio + 1]
    return diagonal.reshape(c, s // ratio, h, d)


def spread(x: Float[Array, "c kept h d"], ratio: int, fill: float) -> Float[Array, "c s h d"]:
    """Puts thinned rows back in place, `fill` where a head skipped a position."""
    c, kept, h, d = x.shape
    x = x.reshape(c, kept, ratio, h // ratio, d)
    gaps = [(0, 0, 0), (0, 0, 0), (0, 0, ratio), (0, 0, 0), (0, 0, 0)]
    return lax.pad(x, jnp.asarray(fill, x.dtype), gaps).reshape(c, kept * ratio, h, d)

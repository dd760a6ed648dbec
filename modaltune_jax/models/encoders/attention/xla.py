"""Attention in plain JAX, for any platform: the reference of all others, and the only one with a bias."""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
from jax import lax
from jax.ad_checkpoint import checkpoint_name
from jaxtyping import Array, Float, Int

from modaltune_jax.models.encoders.alibi import GridBias, distance_bias

# Logits held at once, 4 bytes each: on a CPU a block stays in cache, an accelerator wants large ones.
_BLOCK_CPU = 5 * 2**18
_BLOCK_ACCELERATOR = 2**28
_MASKED = -1e30

SAVED = "attention"
"""Name, for policies of `jax.checkpoint`, of output and log-sum-exp, which the backward pass needs."""


def attend(
    q: Float[Array, "n s h d"],
    k: Float[Array, "n t h d"],
    v: Float[Array, "n t h d"],
    kv_len: Int[Array, "n"],
    *,
    bias: GridBias | None = None,
    zero_keys: int = 0,
    block: int | None = None,
) -> tuple[Float[Array, "n s h d"], Float[Array, "n s h"]]:
    """As `attention.attend`, by blocks of logits, one after another.

    Only q, k, v, the output and the log-sum-exp are kept for the backward pass, which forms the logits
    again. A bias is computed for one block after another too, in float32.

    Args:
      q: queries.
      k: keys.
      v: values.
      kv_len: number of keys per row.
      bias: added to the scaled logits.
      zero_keys: further keys with logit 0 and value 0.
      block: logits to hold at once; None picks it by platform.
    """
    if block is None:
        block = _BLOCK_CPU if _is_on_cpu() else _BLOCK_ACCELERATOR
    return _attend(q, k, v, kv_len, bias, zero_keys, block)


@functools.partial(jax.custom_vjp, nondiff_argnums=(5, 6))
def _attend(q, k, v, kv_len, bias, zero_keys, block):
    return _forward(q, k, v, kv_len, bias, zero_keys, block)[0]


def _forward(q, k, v, kv_len, bias, zero_keys, block):
    heads = q.shape[2]
    rows, queries = _block_sizes(q.shape, k.shape[1], block)

    def some_rows(args):
        (q, q_places), keys = args
        o, lse = lax.map(lambda chunk: _attend_chunk(keys, chunk, zero_keys), _split((q, q_places), queries))
        return _join_queries(o, q.shape[1]), _join_queries(lse[..., None], q.shape[1])

    o, lse = lax.map(some_rows, _rows(q, k, v, kv_len, bias, rows))
    o, lse = _unhead_rows(o, heads), _unhead_rows(lse, heads)[..., 0]
    o, lse = checkpoint_name(o, SAVED), checkpoint_name(lse, SAVED)
    return (o, lse), (q, k, v, kv_len, bias, o, lse)


def _backward(zero_keys, block, residuals, cotangents):
    q, k, v, kv_len, bias, o, lse = residuals
    do, _ = cotangents
    del zero_keys  # they are in the log-sum-exp, and have no gradient of their own
    heads = q.shape[2]
    rows, queries = _block_sizes(q.shape, k.shape[1], block)
    # Row sums of dO * O stand for the softmax Jacobian's second term (Dao et al. 2022, app. B).
    delta = jnp.sum(do.astype(jnp.float32) * o.astype(jnp.float32), axis=-1)

    def some_rows(args):
        ((q, q_places), keys), outputs = args
        k, *_ = keys
        zeros = jnp.zeros((k.shape[0], k.shape[2], k.shape[1]), jnp.float32)
        step = functools.partial(_differentiate_chunk, keys)
        (dk, dv), dq = lax.scan(step, (zeros, zeros), _split((q, q_places, *outputs), queries))
        return _join_queries(dq, q.shape[1]), jnp.swapaxes(dk, 1, 2), jnp.swapaxes(dv, 1, 2)

    outputs = [_head_rows(x, rows) for x in (do, lse[..., None], delta[..., None])]
    dq, dk, dv = lax.map(some_rows, (_rows(q, k, v, kv_len, bias, rows), outputs))
    dq, dk, dv = (_unhead_rows(x, heads).astype(q.dtype) for x in (dq, dk, dv))
    return dq, dk, dv, None, None


_attend.defvjp(_forward, _backward)


def _attend_chunk(keys, chunk, zero_keys):
    """Output of some queries `[p, s, d]` of p rows, in their dtype, and log-sum-exp in float32."""
    q, q_places = chunk
    _, v, *_ = keys
    logits = _logits(q, q_places, keys)
    # Above a masked logit, so that a row without keys has no weights.
    top = jnp.maximum(jnp.max(logits, axis=-1, keepdims=True), 0.0 if zero_keys else _MASKED)
    weights = jnp.exp(logits - top)
    total = jnp.sum(weights, axis=-1, keepdims=True)
    if zero_keys:
        total = total + zero_keys * jnp.exp(-top)
    total = jnp.maximum(total, jnp.finfo(jnp.float32).tiny)
    o = _dot("psk,pkd->psd", weights.astype(v.dtype), v) / total
    return o.astype(q.dtype), (top + jnp.log(total))[..., 0]


def _differentiate_chunk(keys, sums, chunk):
    """Adds a chunk of queries to the sums `[p, d, t]` of dk and dv, and returns its dq."""
    dk, dv = sums
    q, q_places, do, lse, delta = chunk
    k, v, *_ = keys
    weights = jnp.exp(_logits(q, q_places, keys) - lse)
    dlogits = weights * (_dot("psd,pkd->psk", do, v) - delta) * q.shape[-1] ** -0.5
    dlogits, weights = dlogits.astype(q.dtype), weights.astype(q.dtype)
    # Contracting into [d, t] is twice as fast on a CPU as into [t, d].
    dv = dv + _dot("psd,psk->pdk", do, weights)
    dk = dk + _dot("psd,psk->pdk", q, dlogits)
    return (dk, dv), _dot("psk,pkd->psd", dlogits, k)


def _logits(q, q_places, keys):
    k, _, k_places, kv_len = keys
    scale = q.shape[-1] ** -0.5
    mask = jnp.where(jnp.arange(k.shape[1]) < kv_len[:, None], 0.0, 2 * _MASKED)
    if _is_on_cpu():
        # As one more feature of queries and keys the mask saves two passes over all logits.
        q = jnp.concatenate([q, jnp.ones_like(q[..., :1])], axis=-1)
        k = jnp.concatenate([k, (mask / scale)[..., None].astype(k.dtype)], axis=-1)
        logits = _dot("psd,pkd->psk", q, k) * scale
    else:  # fused there, and a width of 48 suits their units better than one of 49
        logits = _dot("psd,pkd->psk", q, k) * scale + mask[:, None]
    return logits if q_places is None else logits + distance_bias(q_places, k_places)


def _is_on_cpu():
    return jax.default_backend() == "cpu"


def _dot(spec, x, y):
    return jnp.einsum(spec, x, y, preferred_element_type=jnp.float32)


def _block_sizes(shape, num_keys, block):
    """How many rows (of n times h), and how many of their queries, make one block of logits."""
    n, s, h, _ = shape
    if s * num_keys > block:
        return 1, -(-s // -(-s * num_keys // block))
    limit = min(n * h, block // (s * num_keys))
    return max(rows for rows in range(1, limit + 1) if n * h % rows == 0), s


def _rows(q, k, v, kv_len, bias, rows):
    """What a block of `rows` rows reads: its queries and its keys, each with their places."""
    q_places, k_places = (None, None) if bias is None else bias.places()
    kv_len = jnp.repeat(kv_len, q.shape[2]).reshape(-1, rows)
    queries, keys = jax.tree.map(lambda x: _head_rows(x, rows), ((q, q_places), (k, v, k_places)))
    return queries, (*keys, kv_len)


def _head_rows(x, rows):
    """`[n, s, h, d]` -> `[n h / rows, rows, s, d]`."""
    return jnp.swapaxes(x, 1, 2).reshape(-1, rows, x.shape[1], x.shape[3])


def _unhead_rows(x, heads):
    """Undoes `_head_rows`."""
    return jnp.swapaxes(x.reshape(-1, heads, *x.shape[2:]), 1, 2)


def _split(arrays, queries):
    """`_split_queries` of arrays that go together, None among them if there is no bias."""
    return jax.tree.map(lambda x: _split_queries(x, queries), arrays)


def _split_queries(x, queries):
    """`[p, s, d]` -> `[chunks, p, queries, d]`, with zero rows behind the last query."""
    p, s, d = x.shape
    chunks = -(-s // queries)
    x = jnp.pad(x, ((0, 0), (0, chunks * queries - s), (0, 0)))
    return jnp.swapaxes(x.reshape(p, chunks, queries, d), 0, 1)


def _join_queries(x, num_queries):
    """Undoes `_split_queries`."""
    chunks, p, queries, d = x.shape
    return jnp.swapaxes(x, 0, 1).reshape(p, chunks * queries, d)[:, :num_queries]

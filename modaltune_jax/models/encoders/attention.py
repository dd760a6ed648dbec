"""Softmax attention that returns its log-sum-exp and never holds all logits at once."""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float, Int

# Logits held at once, 4 bytes each: on a CPU a block stays in cache, an accelerator wants large ones.
_BLOCK_CPU = 2**20
_BLOCK_ACCELERATOR = 2**28
_MASKED = -1e30


def attend(
    q: Float[Array, "n s h d"],
    k: Float[Array, "n t h d"],
    v: Float[Array, "n t h d"],
    kv_len: Int[Array, "n"],
    *,
    block: int | None = None,
) -> tuple[Float[Array, "n s h d"], Float[Array, "n s h"]]:
    """Attention of every query to the first `kv_len` keys of its row, scaled by 1 / sqrt(d).

    Softmax and log-sum-exp are float32 whatever the dtype of `q`. Only q, k, v, the output and the
    log-sum-exp are kept for the backward pass, which forms the logits again. The log-sum-exp is a
    constant to differentiation: its gradient is defined as zero.

    Args:
      q: queries.
      k: keys; those at or beyond `kv_len` are not seen.
      v: values.
      kv_len: number of keys per row. A row with 0 keys yields zeros.
      block: logits to hold at once; None picks it by platform.

    Returns:
      The output in the dtype of `q`, and the log-sum-exp of the scaled logits in float32.
    """
    if block is None:
        block = _BLOCK_CPU if jax.default_backend() == "cpu" else _BLOCK_ACCELERATOR
    return _attend(q, k, v, kv_len, block)


@functools.partial(jax.custom_vjp, nondiff_argnums=(4,))
def _attend(q, k, v, kv_len, block):
    return _forward(q, k, v, kv_len, block)[0]


def _forward(q, k, v, kv_len, block):
    heads = q.shape[2]
    rows, queries = _block_sizes(q.shape, k.shape[1], block)

    def some_rows(args):
        q, k, v, kv_len = args
        chunks = _split_queries(q, queries)
        o, lse = lax.map(lambda chunk: _attend_chunk(chunk, k, v, kv_len), chunks)
        return _join_queries(o, q.shape[1]), _join_queries(lse[..., None], q.shape[1])

    args = [_head_rows(x, rows) for x in (q, k, v)] + [jnp.repeat(kv_len, heads).reshape(-1, rows)]
    o, lse = lax.map(some_rows, args)
    o, lse = _unhead_rows(o, heads), _unhead_rows(lse, heads)[..., 0]
    return (o, lse), (q, k, v, kv_len, o, lse)


def _backward(block, residuals, cotangents):
    q, k, v, kv_len, o, lse = residuals
    do, _ = cotangents
    heads = q.shape[2]
    rows, queries = _block_sizes(q.shape, k.shape[1], block)
    # Row sums of dO * O stand for the softmax Jacobian's second term (Dao et al. 2022, app. B).
    delta = jnp.sum(do.astype(jnp.float32) * o.astype(jnp.float32), axis=-1)

    def some_rows(args):
        q, k, v, kv_len, do, lse, delta = args
        chunks = [_split_queries(x, queries) for x in (q, do, lse, delta)]
        zeros = jnp.zeros((k.shape[0], k.shape[2], k.shape[1]), jnp.float32)
        step = functools.partial(_differentiate_chunk, k, v, kv_len)
        (dk, dv), dq = lax.scan(step, (zeros, zeros), chunks)
        return _join_queries(dq, q.shape[1]), jnp.swapaxes(dk, 1, 2), jnp.swapaxes(dv, 1, 2)

    args = [_head_rows(x, rows) for x in (q, k, v)] + [jnp.repeat(kv_len, heads).reshape(-1, rows)]
    args += [_head_rows(x, rows) for x in (do, lse[..., None], delta[..., None])]
    dq, dk, dv = lax.map(some_rows, args)
    dq, dk, dv = (_unhead_rows(x, heads).astype(q.dtype) for x in (dq, dk, dv))
    return dq, dk, dv, None


_attend.defvjp(_forward, _backward)


def _attend_chunk(q, k, v, kv_len):
    """`[p, s, d]` queries of p rows; the output keeps the dtype of `q`, the log-sum-exp is float32."""
    logits, seen = _logits(q, k, kv_len)
    top = jnp.max(logits, axis=-1, keepdims=True)
    weights = jnp.where(seen, jnp.exp(logits - top), 0.0)
    total = jnp.maximum(jnp.sum(weights, axis=-1, keepdims=True), jnp.finfo(jnp.float32).tiny)
    o = _dot("psk,pkd->psd", weights.astype(v.dtype), v) / total
    return o.astype(q.dtype), (top + jnp.log(total))[..., 0]


def _differentiate_chunk(k, v, kv_len, sums, chunk):
    """Adds a chunk of queries to the sums `[p, d, t]` of dk and dv, and returns its dq."""
    dk, dv = sums
    q, do, lse, delta = chunk
    logits, seen = _logits(q, k, kv_len)
    weights = jnp.where(seen, jnp.exp(logits - lse), 0.0)
    dlogits = weights * (_dot("psd,pkd->psk", do, v) - delta) * q.shape[-1] ** -0.5
    dlogits, weights = dlogits.astype(q.dtype), weights.astype(q.dtype)
    # Contracting into [d, t] is twice as fast on a CPU as into [t, d].
    dv = dv + _dot("psd,psk->pdk", do, weights)
    dk = dk + _dot("psd,psk->pdk", q, dlogits)
    return (dk, dv), _dot("psk,pkd->psd", dlogits, k)


def _logits(q, k, kv_len):
    seen = jnp.arange(k.shape[1]) < kv_len[:, None, None]
    logits = _dot("psd,pkd->psk", q, k) * q.shape[-1] ** -0.5
    return jnp.where(seen, logits, _MASKED), seen


def _dot(spec, x, y):
    return jnp.einsum(spec, x, y, preferred_element_type=jnp.float32)


def _block_sizes(shape, num_keys, block):
    """How many rows (of n times h), and how many of their queries, make one block of logits."""
    n, s, h, _ = shape
    if s * num_keys > block:
        return 1, -(-s // -(-s * num_keys // block))
    limit = min(n * h, block // (s * num_keys))
    return max(rows for rows in range(1, limit + 1) if n * h % rows == 0), s


def _head_rows(x, rows):
    """`[n, s, h, d]` -> `[n h / rows, rows, s, d]`."""
    return jnp.swapaxes(x, 1, 2).reshape(-1, rows, x.shape[1], x.shape[3])


def _unhead_rows(x, heads):
    """Undoes `_head_rows`."""
    return jnp.swapaxes(x.reshape(-1, heads, *x.shape[2:]), 1, 2)


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

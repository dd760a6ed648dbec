"""Flash attention for TPUs (Dao et al. 2022) as two Pallas kernels, with log-sum-exp and key lengths.

Arrays lie as `[n, h, d, s]`, tokens last: a head of 48 fills whole tiles of a TPU, where `[s, 48]` would
be padded to 128 lanes in memory. Logits are `[keys, queries]`, so what is kept per query is a row.

XLA does not cut a kernel into parts: on several devices call `attend` inside `jax.shard_map`.
"""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
from jax import lax
from jax.ad_checkpoint import checkpoint_name
from jax.experimental import pallas as pl
from jax.experimental.pallas import tpu as pltpu
from jaxtyping import Array, Float, Int

from modaltune_jax.models.encoders.attention.xla import SAVED
from modaltune_jax.models.encoders.attention.zero_keys import count_zero_keys

# Queries and keys of one block of logits at most: 2 MB in float32, of which a kernel holds several.
_QUERIES, _KEYS = 1024, 512
_LANES = 128
_VMEM_BYTES = 96 * 2**20
_MASKED = -1e30


def attend(
    q: Float[Array, "n s h d"],
    k: Float[Array, "n t h d"],
    v: Float[Array, "n t h d"],
    kv_len: Int[Array, "n"],
    *,
    zero_keys: int = 0,
    interpret: bool = False,
) -> tuple[Float[Array, "n s h d"], Float[Array, "n s h"]]:
    """As `attention.attend` without a bias. Blocks of keys beyond `kv_len` are neither read nor computed.

    Args:
      q: queries.
      k: keys.
      v: values.
      kv_len: number of keys per row.
      zero_keys: further keys with logit 0 and value 0.
      interpret: run the kernels as plain JAX, anywhere and slowly.
    """
    return _attend(q, k, v, kv_len.astype(jnp.int32), zero_keys, interpret)


@functools.partial(jax.custom_vjp, nondiff_argnums=(4, 5))
def _attend(q, k, v, kv_len, zero_keys, interpret):
    return _forward(q, k, v, kv_len, zero_keys, interpret)[0]


def _forward(q, k, v, kv_len, zero_keys, interpret):
    queries, keys = q.shape[1], k.shape[1]
    q = _tokens_last(q, _block(queries, _QUERIES))
    k, v = (_tokens_last(x, _block(keys, _KEYS)) for x in (k, v))
    o, lse = _call_forward(q, k, v, kv_len, interpret=interpret)
    o, lse = (checkpoint_name(x, SAVED) for x in _count_zero_keys(o, lse, zero_keys))
    # The lengths travel as shapes: a residual must be an array.
    sizes = jnp.zeros((queries, keys, 0))
    return (_heads_third(o, queries), _lse_heads_last(lse, queries)), (q, k, v, kv_len, o, lse, sizes)


def _backward(zero_keys, interpret, residuals, cotangents):
    q, k, v, kv_len, o, lse, sizes = residuals
    del zero_keys  # they are in the log-sum-exp
    queries, keys, _ = sizes.shape
    do = _tokens_last(cotangents[0], _block(queries, _QUERIES))
    # Row sums of dO * O stand for the softmax Jacobian's second term (Dao et al. 2022, app. B).
    delta = jnp.sum(do.astype(jnp.float32) * o.astype(jnp.float32), axis=2, keepdims=True)
    dq, dk, dv = _call_backward(q, k, v, kv_len, do, lse, delta, interpret=interpret)
    gradients = (_heads_third(x, size) for x, size in ((dq, queries), (dk, keys), (dv, keys)))
    return *(x.astype(q.dtype) for x in gradients), None


_attend.defvjp(_forward, _backward)


def _call_forward(q, k, v, kv_len, *, interpret):
    """Output `[n, h, d, s]` in the dtype of `q` and log-sum-exp `[n, h, 1, s]` in float32."""
    n, h, d, s = q.shape
    queries, keys = _block(s, _QUERIES), _block(k.shape[3], _KEYS)

    def of_query(row, head, i, j, kv_len):
        return row, head, 0, i

    def of_key(row, head, i, j, kv_len):
        return row, head, 0, _last_read(j, kv_len[row], keys)

    return pl.pallas_call(
        functools.partial(_forward_kernel, scale=d**-0.5),
        grid_spec=pltpu.PrefetchScalarGridSpec(
            num_scalar_prefetch=1,
            grid=(n, h, s // queries, k.shape[3] // keys),
            in_specs=[_spec(d, queries, of_query), _spec(d, keys, of_key), _spec(d, keys, of_key)],
            out_specs=[_spec(d, queries, of_query), _spec(1, queries, of_query)],
            scratch_shapes=[pltpu.VMEM((rows, queries), jnp.float32) for rows in (1, 1, d)],
        ),
        out_shape=[jax.ShapeDtypeStruct(q.shape, q.dtype), jax.ShapeDtypeStruct((n, h, 1, s), jnp.float32)],
        compiler_params=_compiler_params(num_parallel=3),
        cost_estimate=_cost(q, k, num_products=2, num_arrays=4),
        interpret=interpret,
        name="flash_attention_forward",
    )(kv_len, q, k, v)


def _forward_kernel(kv_len, q, k, v, o, lse, top, total, summed, *, scale):
    """One block of keys for one of queries; `top`, `total`, `summed` carry the softmax over all of them."""
    j, is_last = pl.program_id(3), pl.program_id(3) == pl.num_programs(3) - 1
    num_keys = kv_len[pl.program_id(0)] - j * k.shape[3]

    @pl.when(j == 0)
    def _start():
        top[...] = jnp.full_like(top, _MASKED)
        total[...] = jnp.zeros_like(total)
        summed[...] = jnp.zeros_like(summed)

    @pl.when(num_keys > 0)
    def _add():
        logits, seen = _logits(q, k, num_keys, scale)
        new_top = jnp.maximum(top[...], jnp.max(logits, axis=0, keepdims=True))
        weights = jnp.where(seen, jnp.exp(logits - new_top), 0.0)
        shrink = jnp.exp(top[...] - new_top)
        total[...] = shrink * total[...] + jnp.sum(weights, axis=0, keepdims=True)
        summed[...] = shrink * summed[...] + _dot(v[0, 0], weights.astype(v.dtype), (1, 0))
        top[...] = new_top

    @pl.when(is_last)
    def _finish():
        whole = jnp.maximum(total[...], jnp.finfo(jnp.float32).tiny)
        o[0, 0] = (summed[...] / whole).astype(o.dtype)
        lse[0, 0] = top[...] + jnp.log(whole)


def _call_backward(q, k, v, kv_len, do, lse, delta, *, interpret):
    """Gradients `[n, h, d, s]`, `[n, h, d, t]` and `[n, h, d, t]` in float32."""
    n, h, d, s = q.shape
    t = k.shape[3]
    queries, keys = _block(s, _QUERIES), _block(t, _KEYS)

    def of_query(row, head, j, i, kv_len):
        return row, head, 0, i

    def of_key(row, head, j, i, kv_len):
        return row, head, 0, _last_read(j, kv_len[row], keys)

    def of_key_gradient(row, head, j, i, kv_len):
        return row, head, 0, j

    query, key, per_query = _spec(d, queries, of_query), _spec(d, keys, of_key), _spec(1, queries, of_query)
    key_gradient = _spec(d, keys, of_key_gradient)
    return pl.pallas_call(
        functools.partial(_backward_kernel, scale=d**-0.5),
        grid_spec=pltpu.PrefetchScalarGridSpec(
            num_scalar_prefetch=1,
            grid=(n, h, t // keys, s // queries),
            in_specs=[query, key, key, query, per_query, per_query],
            # All queries of a row stay in fast memory: every block of keys adds to each of them.
            out_specs=[
                _spec(d, s, lambda row, head, j, i, kv_len: (row, head, 0, 0)),
                key_gradient,
                key_gradient,
            ],
        ),
        out_shape=[jax.ShapeDtypeStruct(x.shape, jnp.float32) for x in (q, k, v)],
        compiler_params=_compiler_params(num_parallel=2),
        cost_estimate=_cost(q, k, num_products=5, num_arrays=10),
        interpret=interpret,
        name="flash_attention_backward",
    )(kv_len, q, k, v, do, lse, delta)


def _backward_kernel(kv_len, q, k, v, do, lse, delta, dq, dk, dv, *, scale):
    """Adds what one block of logits gives to the three gradients."""
    j, i = pl.program_id(2), pl.program_id(3)
    num_keys = kv_len[pl.program_id(0)] - j * k.shape[3]

    @pl.when((j == 0) & (i == 0))
    def _start_row():
        dq[...] = jnp.zeros_like(dq)

    @pl.when(i == 0)
    def _start_keys():
        dk[...] = jnp.zeros_like(dk)
        dv[...] = jnp.zeros_like(dv)

    @pl.when(num_keys > 0)
    def _add():
        logits, seen = _logits(q, k, num_keys, scale)
        weights = jnp.where(seen, jnp.exp(logits - lse[0, 0]), 0.0)
        dlogits = weights * (_dot(v[0, 0], do[0, 0], (0, 0)) - delta[0, 0]) * scale
        dlogits, weights = dlogits.astype(q.dtype), weights.astype(q.dtype)
        dv[0, 0] += _dot(do[0, 0], weights, (1, 1))
        dk[0, 0] += _dot(q[0, 0], dlogits, (1, 1))
        queries = q.shape[3]
        here = pl.ds(pl.multiple_of(i * queries, _LANES), queries)
        dq[0, 0, :, here] += _dot(k[0, 0], dlogits, (1, 0))


def _logits(q, k, num_keys, scale):
    """Scaled logits `[keys, queries]` of a block, and which of them belong to its first `num_keys` keys."""
    logits = _dot(k[0, 0], q[0, 0], (0, 0)) * scale
    seen = lax.broadcasted_iota(jnp.int32, logits.shape, 0) < num_keys
    return jnp.where(seen, logits, _MASKED), seen


def _dot(x, y, axes):
    """The product over an axis of each, summed in float32."""
    (i, j) = axes
    return lax.dot_general(x, y, (((i,), (j,)), ((), ())), preferred_element_type=jnp.float32)


def _last_read(j, kv_len, keys):
    """The j-th block of keys, or the last that holds any: a block that is not needed is not fetched."""
    return jnp.minimum(j, lax.div(jnp.maximum(kv_len - 1, 0), keys))


def _spec(rows, tokens, index_map):
    return pl.BlockSpec((1, 1, rows, tokens), index_map)


def _compiler_params(num_parallel):
    semantics = ("parallel",) * num_parallel + ("arbitrary",) * (4 - num_parallel)
    return pltpu.CompilerParams(dimension_semantics=semantics, vmem_limit_bytes=_VMEM_BYTES)


def _cost(q, k, num_products, num_arrays):
    """What the compiler is told of a kernel: its products and its arrays as large as q, if all keys count."""
    n, h, d, s = q.shape
    logits = n * h * s * k.shape[3]
    return pl.CostEstimate(
        flops=2 * num_products * d * logits,
        transcendentals=logits,
        bytes_accessed=num_arrays * q.size * q.dtype.itemsize,
    )


def _block(size, largest):
    """Blocks of at most `largest` that fill up `size` least, a multiple of the lanes."""
    num_blocks = -(-size // largest)
    return -(-size // (num_blocks * _LANES)) * _LANES


def _count_zero_keys(o, lse, zero_keys):
    """`count_zero_keys` where tokens are last."""
    o, lse = count_zero_keys(jnp.swapaxes(o, 2, 3), lse[:, :, 0], zero_keys)
    return jnp.swapaxes(o, 2, 3), lse[:, :, None]


def _tokens_last(x, block):
    """`[n, s, h, d]` -> `[n, h, d, s]`, with zeros to a multiple of `block`."""
    x = jnp.transpose(x, (0, 2, 3, 1))
    return jnp.pad(x, ((0, 0), (0, 0), (0, 0), (0, -x.shape[3] % block)))


def _heads_third(x, size):
    """Undoes `_tokens_last`."""
    return jnp.transpose(x[..., :size], (0, 3, 1, 2))


def _lse_heads_last(lse, size):
    """`[n, h, 1, s]` -> `[n, s, h]`."""
    return jnp.swapaxes(lse[:, :, 0, :size], 1, 2)

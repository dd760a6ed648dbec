"""Fused attention of cuDNN, with the log-sum-exp in float32 and key lengths.

`jax.nn.dot_product_attention` rounds the log-sum-exp to the dtype of the keys and refuses odd lengths, so
this binds the primitives below it. They are private to jax: this is the one file that knows them, and
`why_not` says when they have changed.
"""

from __future__ import annotations

import functools
import inspect

import jax
import jax.numpy as jnp
from jax._src.cudnn import fused_attention_stablehlo as fused
from jax.ad_checkpoint import checkpoint_name
from jax.typing import DTypeLike
from jaxtyping import Array, Float, Int

from modaltune_jax.models.encoders.attention.xla import SAVED
from modaltune_jax.models.encoders.attention.zero_keys import count_zero_keys

_FORWARD, _BACKWARD = "_dot_product_attention_fwd", "_dot_product_attention_bwd"
_INPUTS = (
    *("query", "key", "value", "bias", "q_seqlen", "kv_seqlen", "q_offsets", "kv_offsets"),
    *("page_table_k", "page_table_v"),
)
_RESIDUALS = ("activation", "fwd_output", "grad_output")
_SETTINGS = (
    *("scale", "seed", "dropout_rate", "variadic_args", "mask_type", "layout", "sliding_window_length"),
)
_EXPECTED = {
    _FORWARD: (*_INPUTS, *_SETTINGS, "is_training"),
    _BACKWARD: (*_INPUTS, *_RESIDUALS, *_SETTINGS),
}
_MASKED = -1e30


def _is_as_expected(name: str) -> bool:
    implementation = getattr(fused, f"{name}_impl", None)
    if implementation is None or not hasattr(fused, f"{name}_p_wrapper"):
        return False
    return tuple(inspect.signature(implementation).parameters) == _EXPECTED[name]


_IS_KNOWN = all(_is_as_expected(name) for name in _EXPECTED)


def why_not(dtype: DTypeLike, head_dim: int) -> str:
    """What keeps cuDNN from attention of this type and width of a head; "" if nothing does."""
    if not _IS_KNOWN:
        return f"jax {jax.__version__} has changed the primitives that it is made of"
    if dtype not in (jnp.bfloat16, jnp.float16):
        return f'it takes bfloat16 and float16, not {jnp.dtype(dtype).name} (model.encoder.dtype="bfloat16")'
    if head_dim > 128 or head_dim % 8:
        return f"a head is {head_dim} wide; it must be a multiple of 8, up to 128"
    return ""


def attend(
    q: Float[Array, "n s h d"],
    k: Float[Array, "n t h d"],
    v: Float[Array, "n t h d"],
    kv_len: Int[Array, "n"],
    *,
    zero_keys: int = 0,
) -> tuple[Float[Array, "n s h d"], Float[Array, "n s h"]]:
    """As `attention.attend` without a bias."""
    return _attend(q, k, v, kv_len.astype(jnp.int32), zero_keys)


@functools.partial(jax.custom_vjp, nondiff_argnums=(4,))
def _attend(q, k, v, kv_len, zero_keys):
    return _forward(q, k, v, kv_len, zero_keys)[0]


def _forward(q, k, v, kv_len, zero_keys):
    lengths = (jnp.full_like(kv_len, q.shape[1]), jnp.maximum(kv_len, 1))
    padded = [_even(x) for x in (q, k, v)]
    o, lse = _bind(_FORWARD, padded, lengths, is_training=True)
    # What the kernel says of a row without keys is its own affair, so it is given one key.
    has_keys = (kv_len > 0)[:, None, None]
    o = jnp.where(has_keys[..., None], o, 0)
    lse = jnp.where(has_keys, jnp.swapaxes(lse, 1, 2), _MASKED)
    o, lse = (checkpoint_name(x, SAVED) for x in count_zero_keys(o, lse, zero_keys))
    return (o[:, : q.shape[1]], lse[:, : q.shape[1]]), (q, k, v, kv_len, o, lse)


def _backward(zero_keys, residuals, cotangents):
    q, k, v, kv_len, o, lse = residuals
    del zero_keys  # they are in the log-sum-exp
    # The key that a row without any is given gets no weight.
    has_keys = (kv_len > 0)[:, None, None]
    lse = jnp.where(has_keys, lse, -_MASKED)
    do = _even(jnp.where(has_keys[..., None], cotangents[0], 0))
    lengths = (jnp.full_like(kv_len, q.shape[1]), jnp.maximum(kv_len, 1))
    padded = [_even(x) for x in (q, k, v)]
    dq, dk, dv = _bind(_BACKWARD, padded, lengths, (jnp.swapaxes(lse, 1, 2), o, do))
    seen = (jnp.arange(k.shape[1]) < kv_len[:, None])[..., None, None]
    dk, dv = (jnp.where(seen, x[:, : k.shape[1]], 0) for x in (dk, dv))
    return dq[:, : q.shape[1]], dk, dv, None


_attend.defvjp(_forward, _backward)


def _bind(name, qkv, lengths, residuals=(), **settings):
    """The outputs of a primitive; `lengths` are the real queries and keys of each row."""
    unused = jnp.zeros(0, qkv[0].dtype)
    return getattr(fused, f"{name}_p_wrapper").bind(
        *qkv,
        *(unused, *lengths, unused, unused, unused, unused),
        *residuals,
        scale=qkv[0].shape[-1] ** -0.5,
        seed=0,
        dropout_rate=0.0,
        variadic_args=(False, False),
        mask_type=fused.MaskType.PADDING,
        layout=fused.AttentionLayout.BTNH.value,
        sliding_window_length=None,
        **settings,
    )


def _even(x):
    """A row of zeros more where the length is odd, which jax refuses in training."""
    return jnp.pad(x, ((0, 0), (0, x.shape[1] % 2), (0, 0), (0, 0)))

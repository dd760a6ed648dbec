"""One attention for every platform, and who computes it where."""

from __future__ import annotations

import jax
from jaxtyping import Array, Float, Int

from modaltune_jax.models.encoders.alibi import GridBias
from modaltune_jax.models.encoders.attention import cudnn, pallas, xla
from modaltune_jax.types import InputError

IMPLEMENTATIONS = ("auto", "xla", "cudnn", "pallas")
"""What `implementation` may say: the best that is known to be right, plain JAX, for GPUs, for TPUs."""

_PLATFORMS = {"cudnn": "gpu", "pallas": "tpu"}

# Shorter rows than one tile are not worth a kernel.
_MIN_QUERIES = 128


def attend(
    q: Float[Array, "n s h d"],
    k: Float[Array, "n t h d"],
    v: Float[Array, "n t h d"],
    kv_len: Int[Array, "n"],
    *,
    bias: GridBias | None = None,
    zero_keys: int = 0,
    block: int | None = None,
    implementation: str = "auto",
) -> tuple[Float[Array, "n s h d"], Float[Array, "n s h"]]:
    """Attention of every query to the first `kv_len` keys of its row, scaled by 1 / sqrt(d).

    Softmax and log-sum-exp are float32 whatever the dtype of `q`, and no implementation holds all logits,
    forward or backward. The log-sum-exp is a constant to differentiation: its gradient is defined as zero.

    Args:
      q: queries.
      k: keys; those at or beyond `kv_len` are not seen.
      v: values.
      kv_len: number of keys per row. A row with 0 keys yields zeros.
      bias: added to the scaled logits, a constant to differentiation. Queries and keys are then the same
        tokens (s = t). "xla" alone takes one.
      zero_keys: further keys that every query sees, with logit 0 and value 0, for rows of zeros that need
        not be there to be counted.
      block: logits that "xla" holds at once; None picks it by platform.
      implementation: one of `IMPLEMENTATIONS`. "auto" takes "pallas" on a TPU for rows of 128 queries or
        more without a bias, and "xla" everywhere else. It does not take "cudnn", which nobody has yet seen
        agree with the others on a GPU.

    Returns:
      The output in the dtype of `q`, and the log-sum-exp of the scaled logits in float32.

    Raises:
      InputError: an implementation that does not exist, or that cannot do this here.
    """
    if implementation not in IMPLEMENTATIONS:
        raise InputError(
            f"attention {implementation!r} does not exist; choose one of {', '.join(IMPLEMENTATIONS)}"
        )
    platform = target_platform()
    if implementation == "auto":
        is_for_kernel = bias is None and q.shape[1] >= _MIN_QUERIES
        implementation = "pallas" if platform == "tpu" and is_for_kernel else "xla"
    if implementation == "xla":
        return xla.attend(q, k, v, kv_len, bias=bias, zero_keys=zero_keys, block=block)
    _check(implementation, platform, q, bias)
    kernel = pallas.attend if implementation == "pallas" else cudnn.attend
    return kernel(q, k, v, kv_len, zero_keys=zero_keys)


def target_platform() -> str:
    """The platform that is compiled for: of the mesh in use if there is one, else of this process."""
    device = jax.sharding.get_abstract_mesh().abstract_device
    platform = jax.default_backend() if device is None else device.platform
    return "gpu" if platform in ("cuda", "rocm") else platform


def _check(implementation: str, platform: str, q: jax.Array, bias: GridBias | None) -> None:
    wanted = _PLATFORMS[implementation]
    if platform != wanted:
        raise InputError(
            f"attention {implementation!r} runs on a {wanted.upper()}, but this is compiled for a "
            f'{platform.upper()}: set model.encoder.attention to "auto" or "xla"'
        )
    if bias is not None:
        raise InputError(f'attention {implementation!r} takes no bias: use "auto" or "xla"')
    if implementation == "cudnn" and (reason := cudnn.why_not(q.dtype, q.shape[-1])):
        raise InputError(f'attention "cudnn" cannot be used: {reason}; set model.encoder.attention="xla"')

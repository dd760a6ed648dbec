"""Softmax attention through landmarks, linear in the length (Xiong et al. 2021, "Nyströmformer").

Sequences of a batch have lengths of their own: landmarks are means over equal parts of each, and what
padding holds is never read.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Bool, Float, Int

from modaltune_jax.models.layers import LECUN_NORMAL, Linear, linear
from modaltune_jax.models.regularisation import dropout

_CONVOLVED_ROWS = 64
"""Of the sequence, in one block of `convolve`."""


def part_means(
    x: Float[Array, "b h n c"], length: Int[Array, "b"], num_parts: int
) -> tuple[Float[Array, "b h p c"], Bool[Array, "b p"]]:
    """Means over `num_parts` parts of each sequence, equally long to one row, and which parts there are.

    A sequence shorter than that has a part for each row. Empty parts are zeros.

    Args:
      x: sequences, zero beyond `length`.
      length: of each, at least 1.
      num_parts: p.
    """
    used = jnp.minimum(length, num_parts)
    part = jnp.arange(x.shape[2]) * used[:, None] // length[:, None]
    is_real = (jnp.arange(x.shape[2]) < length[:, None]).astype(x.dtype)
    sums = jax.vmap(lambda rows, ids: jax.ops.segment_sum(rows, ids, num_parts))
    count = sums(is_real, part)
    total = sums(x.transpose(0, 2, 1, 3), part).transpose(0, 2, 1, 3)
    return total / jnp.maximum(count, 1.0)[:, None, :, None], count > 0


def pseudo_inverse(matrix: Float[Array, "*b p p"], num_iterations: int) -> Float[Array, "*b p p"]:
    """Moore-Penrose inverse of matrices without negative entries, by iteration (Xiong et al. 2021, sec. 3).

    Rows and columns of zeros stay so.
    """
    scale = matrix.sum(-1).max(-1) * matrix.sum(-2).max(-1)
    inverse = matrix.swapaxes(-1, -2) / scale[..., None, None]
    eye = jnp.eye(matrix.shape[-1], dtype=matrix.dtype)
    for _ in range(num_iterations):
        product = matrix @ inverse
        inner = 15.0 * eye - product @ (7.0 * eye - product)
        inverse = 0.25 * inverse @ (13.0 * eye - product @ inner)
    return inverse


class NystromAttention(nnx.Module):
    """Self-attention through landmarks, and beside it a convolution of the values along the sequence.

    Args:
      dim: width d of a token.
      num_heads: h.
      num_landmarks: p at most.
      num_iterations: of the pseudo-inverse.
      kernel_size: rows of the convolution, an odd number; one kernel a head.
      rate: of dropout behind the output.
    """

    def __init__(
        self,
        dim: int,
        num_heads: int,
        num_landmarks: int,
        num_iterations: int,
        kernel_size: int,
        rate: float,
        *,
        rngs: nnx.Rngs,
    ):
        self.num_heads, self.num_landmarks, self.num_iterations = num_heads, num_landmarks, num_iterations
        self.rate = rate
        self.qkv = Linear(dim, 3 * dim, use_bias=False, kernel_init=LECUN_NORMAL, rngs=rngs)
        self.out = linear(dim, dim, LECUN_NORMAL, rngs=rngs)
        self.kernel = nnx.Param(
            kernel_size**-0.5 * jax.random.normal(rngs.params(), (kernel_size, num_heads))
        )

    def __call__(
        self, x: Float[Array, "b n d"], length: Int[Array, "b"], key: jax.Array | None = None
    ) -> Float[Array, "b n d"]:
        """Attention among the first `length` rows, at least one; the others come out as anything finite."""
        mask = jnp.arange(x.shape[1]) < length[:, None]
        qkv = self.qkv(x).reshape(*x.shape[:2], 3, self.num_heads, -1)
        q, k, v = jnp.where(mask[:, :, None, None, None], qkv, 0.0).transpose(2, 0, 3, 1, 4)
        q = q * q.shape[-1] ** -0.5
        mixed = self._attend(q, k, v, length, mask) + convolve(v, self.kernel[...])
        return dropout(self.out(mixed.swapaxes(1, 2).reshape(x.shape)), self.rate, key)

    def _attend(self, q, k, v, length, mask) -> Float[Array, "b h n c"]:
        q_mean, is_used = part_means(q, length, self.num_landmarks)
        k_mean, _ = part_means(k, length, self.num_landmarks)
        columns, rows = is_used[:, None, None, :], is_used[:, None, :, None]
        to_landmarks = _softmax(q, k_mean, columns)
        among = jnp.where(rows, _softmax(q_mean, k_mean, columns), 0.0)
        to_tokens = jnp.where(rows, _softmax(q_mean, k, mask[:, None, None, :]), 0.0)
        return to_landmarks @ (pseudo_inverse(among, self.num_iterations) @ (to_tokens @ v))


def convolve(v: Float[Array, "b h n c"], kernel: Float[Array, "k h"]) -> Float[Array, "b h n c"]:
    """Convolution along n with zeros beyond both ends, one kernel of odd length k a head.

    As products of blocks with a band matrix: XLA's grouped convolution takes several times as long on a CPU.
    """
    size, n = kernel.shape[0], v.shape[2]
    block = max(_CONVOLVED_ROWS, size - 1)
    num_blocks = -(-n // block)
    fill = (num_blocks + 1) * block - n - size // 2
    padded = jnp.pad(v, ((0, 0), (0, 0), (size // 2, fill), (0, 0)))
    blocks = padded.reshape(*v.shape[:2], num_blocks + 1, block, v.shape[3])
    windows = jnp.concatenate([blocks[:, :, :-1], blocks[:, :, 1:, : size - 1]], axis=3)
    shift = jnp.arange(block + size - 1) - jnp.arange(block)[:, None]
    is_in_band = (shift >= 0) & (shift < size)
    band = jnp.where(is_in_band, kernel.T[:, jnp.clip(shift, 0, size - 1)], 0.0)
    mixed = jnp.einsum("hij,bhwjc->bhwic", band, windows)
    return mixed.reshape(*v.shape[:2], num_blocks * block, v.shape[3])[:, :, :n]


def _softmax(
    q: Float[Array, "b h n c"], k: Float[Array, "b h m c"], where: Bool[Array, "b 1 1 m"]
) -> Float[Array, "b h n m"]:
    logits = jnp.einsum("bhnc,bhmc->bhnm", q, k)
    return jax.nn.softmax(jnp.where(where, logits, -1e30), axis=-1)

"""TransMIL: a transformer over the tiles of a case (Shao et al. 2021).

The tiles of a case, as many as it has and in their order, are laid out as a square of its own; so padding and
the other cases of a batch change nothing.
"""

from __future__ import annotations

import dataclasses
import math
from typing import NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Bool, Float, Int

from modaltune_jax.models.baselines.nystrom import NystromAttention
from modaltune_jax.models.baselines.presence import zero_where_absent
from modaltune_jax.models.layers import LECUN_NORMAL, TRUNC_NORMAL, layer_norm, linear
from modaltune_jax.models.modalities import ModalInputs
from modaltune_jax.models.regularisation import fold
from modaltune_jax.types import Batch, InputError


@dataclasses.dataclass(frozen=True)
class TransMilConfig:
    """Sizes of a `TransMil`.

    Attributes:
      dim: width of a token, and of the case.
      num_heads: attention heads.
      num_landmarks: of the Nyström attention.
      num_iterations: of its pseudo-inverse.
      value_kernel: rows of the convolution over the values beside the attention, an odd number.
      position_kernels: sides of the convolutions that encode positions, odd numbers.
      dropout: rate behind each attention, in training.
    """

    dim: int
    num_heads: int
    num_landmarks: int
    num_iterations: int
    value_kernel: int
    position_kernels: tuple[int, ...]
    dropout: float

    def __post_init__(self) -> None:
        for name, sizes in (
            ("value_kernel", (self.value_kernel,)),
            ("position_kernels", self.position_kernels),
        ):
            if not sizes or not all(size % 2 for size in sizes):
                raise InputError(f"TransMIL: {name} is {getattr(self, name)}; it must be odd")

    @classmethod
    def published(cls) -> TransMilConfig:
        """The network of the paper."""
        return cls(
            dim=512,
            num_heads=8,
            num_landmarks=256,
            num_iterations=6,
            value_kernel=33,
            position_kernels=(7, 5, 3),
            dropout=0.1,
        )


class Square(NamedTuple):
    """The tiles of each case as a square of its own, row by row.

    Attributes:
      side: `[b]` of each square.
      source: `[b, s*s]` the tile that stands at each place of the sequence; 0 beyond the square.
      is_real: `[b, s*s]` places of the square.
    """

    side: Int[Array, "b"]
    source: Int[Array, "b n"]
    is_real: Bool[Array, "b n"]


def square(length: Int[Array, "b"], num_rows: int) -> Square:
    """The smallest square that holds the tiles; its last places repeat the first tiles.

    >>> print(square(jnp.array([3, 1]), 4).source)
    [[0 1 2 0]
     [0 0 0 0]]

    Args:
      length: tiles of each case.
      num_rows: rows of the padded bags, which `length` does not exceed.
    """
    largest = math.isqrt(max(num_rows - 1, 0)) + 1
    # In whole numbers: a rounded root would be off by one.
    side = jnp.sum(jnp.arange(largest) ** 2 < length[:, None], axis=1)
    place = jnp.arange(largest**2)
    is_real = place < (side**2)[:, None]
    repeated = place - jnp.where(place < length[:, None], 0, length[:, None])
    return Square(side, jnp.where(is_real, repeated, 0), is_real)


class PositionEncoding(nnx.Module):
    """Pyramid position encoding generator: depthwise convolutions over the square, added to it."""

    def __init__(self, dim: int, kernels: tuple[int, ...], *, rngs: nnx.Rngs):
        self.convs = nnx.List(
            [nnx.Conv(dim, dim, (size, size), feature_group_count=dim, rngs=rngs) for size in kernels]
        )

    def __call__(self, tokens: Float[Array, "b n d"], places: Square) -> Float[Array, "b n d"]:
        """Tokens of the square with their neighbours'; beyond the square is nothing but zeros."""
        b, n, d = tokens.shape
        largest, side = math.isqrt(n), jnp.maximum(places.side, 1)[:, None]
        row, column = jnp.divmod(jnp.arange(n), largest)
        is_inside = (row < side) & (column < side) & (places.side > 0)[:, None]
        at_cell = jnp.where(is_inside, row * side + column, 0)
        image = jnp.where(is_inside[..., None], jnp.take_along_axis(tokens, at_cell[..., None], 1), 0.0)
        image = image.reshape(b, largest, largest, d)
        image = (image + self._convolve(image)).reshape(b, n, d)
        row, column = jnp.divmod(jnp.arange(n), side)
        cell = jnp.where(places.is_real, row * largest + column, 0)
        return jnp.take_along_axis(image, cell[..., None], 1)

    def _convolve(self, image: Float[Array, "b s s d"]) -> Float[Array, "b s s d"]:
        """The sum of all convolutions, as one of the sum of their kernels."""
        kernels = [conv.kernel[...] for conv in self.convs]
        margins = [(max(map(len, kernels)) - len(kernel)) // 2 for kernel in kernels]
        same_size = [
            jnp.pad(kernel, ((margin, margin), (margin, margin), (0, 0), (0, 0)))
            for kernel, margin in zip(kernels, margins, strict=True)
        ]
        convolved = jax.lax.conv_general_dilated(
            image,
            jnp.stack(same_size).sum(axis=0),
            window_strides=(1, 1),
            padding="SAME",
            dimension_numbers=("NHWC", "HWIO", "NHWC"),
            feature_group_count=image.shape[-1],
        )
        return convolved + sum(conv.bias[...] for conv in self.convs if conv.bias is not None)


class TransMilLayer(nnx.Module):
    """Pre-norm residual Nyström attention."""

    def __init__(self, config: TransMilConfig, *, rngs: nnx.Rngs):
        self.norm = layer_norm(config.dim, rngs=rngs)
        self.attention = NystromAttention(
            config.dim,
            config.num_heads,
            config.num_landmarks,
            config.num_iterations,
            config.value_kernel,
            config.dropout,
            rngs=rngs,
        )

    def __call__(
        self, x: Float[Array, "b n d"], length: Int[Array, "b"], key: jax.Array | None = None
    ) -> Float[Array, "b n d"]:
        return x + self.attention(self.norm(x), length, key)


class TransMil(nnx.Module):
    """Linear and ReLU on each tile, squaring, class token, attention, positions, attention, LayerNorm."""

    modalities = ("slides",)

    def __init__(self, config: TransMilConfig, in_dim: int, inputs: ModalInputs, *, rngs: nnx.Rngs):
        del inputs  # slides only
        self.out_dim = config.dim
        self.embed = linear(in_dim, config.dim, LECUN_NORMAL, rngs=rngs)
        self.cls_token = nnx.Param(TRUNC_NORMAL(rngs.params(), (config.dim,)))
        self.first = TransMilLayer(config, rngs=rngs)
        self.positions = PositionEncoding(config.dim, config.position_kernels, rngs=rngs)
        self.second = TransMilLayer(config, rngs=rngs)
        self.norm = layer_norm(config.dim, rngs=rngs)

    def __call__(self, batch: Batch, key: jax.Array | None = None) -> Float[Array, "b e"]:
        """The class token; zeros for a case without slides."""
        tiles = jax.nn.relu(self.embed(batch.features.astype(jnp.float32)))
        places = square(batch.length, tiles.shape[1])
        tiles = jnp.take_along_axis(tiles, places.source[..., None], 1)
        length = 1 + places.side**2
        cls = jnp.broadcast_to(self.cls_token[...], (len(tiles), 1, self.out_dim))
        x = self.first(jnp.concatenate([cls, tiles], axis=1), length, fold(key, 0))
        x = jnp.concatenate([x[:, :1], self.positions(x[:, 1:], places)], axis=1)
        x = self.second(x, length, fold(key, 1))
        return zero_where_absent(self.norm(x[:, 0]), batch, "slides")

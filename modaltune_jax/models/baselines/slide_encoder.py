"""A slide encoder by itself: its published embedding, fine-tuned with a linear head or probed as it is."""

from __future__ import annotations

import dataclasses

import jax
from flax import nnx
from jaxtyping import Array, Float

from modaltune_jax.models.baselines.presence import zero_where_absent
from modaltune_jax.models.encoders import EncoderConfig, build_encoder
from modaltune_jax.models.modalities import ModalInputs
from modaltune_jax.types import Batch


@dataclasses.dataclass(frozen=True)
class SlideEncoderConfig:
    """Sizes of a `SlideEncoderBaseline`.

    Attributes:
      encoder: the slide encoder, with the keys of `model.encoder`.
    """

    encoder: EncoderConfig


class SlideEncoderBaseline(nnx.Module):
    """The slide embedding; zeros for a case without slides. Weights come from `encoder_weights`."""

    modalities = ("slides",)

    def __init__(self, config: SlideEncoderConfig, in_dim: int, inputs: ModalInputs, *, rngs: nnx.Rngs):
        del in_dim, inputs  # the encoder knows its width, and sees slides only
        self.encoder = build_encoder(config.encoder, rngs=rngs)
        self.out_dim = self.encoder.width

    def __call__(self, batch: Batch, key: jax.Array | None = None) -> Float[Array, "b e"]:
        """What the encoder gives without an adapter; `key` switches its dropout on."""
        embedding = self.encoder(batch.features, batch.cells, batch.length, key)
        return zero_where_absent(embedding, batch, "slides")

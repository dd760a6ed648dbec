"""Late fusion: a baseline on slides and a self-normalising network on expression, their vectors side by side.

The fusion by concatenation that multimodal networks of the field are compared with (Chen et al. 2021, MCAT).
"""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float

from modaltune_jax.models.baselines.abmil import Abmil, AbmilConfig
from modaltune_jax.models.baselines.slide_encoder import SlideEncoderBaseline, SlideEncoderConfig
from modaltune_jax.models.baselines.snn import Snn, SnnConfig
from modaltune_jax.models.baselines.transmil import TransMil, TransMilConfig
from modaltune_jax.models.encoders import EncoderConfig
from modaltune_jax.models.encoders.base import SlideEncoder
from modaltune_jax.models.layers import LECUN_NORMAL, linear
from modaltune_jax.models.modalities import ModalInputs
from modaltune_jax.models.regularisation import fold
from modaltune_jax.types import Batch


class Concatenation(nnx.Module):
    """Both vectors, Linear, ReLU. A modality that a case lacks is zeros before the linear layer.

    Args:
      slides: the baseline on slides.
      expression: sizes of the network on expression.
      fusion_dim: width of the case.
      inputs: sizes that come from the data set.
    """

    modalities = ("slides", "expression")

    def __init__(
        self,
        slides: Abmil | TransMil | SlideEncoderBaseline,
        expression: SnnConfig,
        fusion_dim: int,
        inputs: ModalInputs,
        *,
        rngs: nnx.Rngs,
    ):
        self.slides = slides
        self.expression = Snn(expression, 0, inputs, rngs=rngs)
        self.out_dim = fusion_dim
        self.fuse = linear(slides.out_dim + self.expression.out_dim, fusion_dim, LECUN_NORMAL, rngs=rngs)

    def __call__(self, batch: Batch, key: jax.Array | None = None) -> Float[Array, "b e"]:
        """The fused vector; `key` switches the dropout of both on."""
        vectors = [self.slides(batch, fold(key, 0)), self.expression(batch, fold(key, 1))]
        return jax.nn.relu(self.fuse(jnp.concatenate(vectors, axis=-1)))


@dataclasses.dataclass(frozen=True)
class AbmilCatConfig:
    """Sizes of an `AbmilCat`.

    Attributes:
      slides: sizes of the ABMIL.
      expression: sizes of the network on expression.
      fusion_dim: width of the case.
    """

    slides: AbmilConfig
    expression: SnnConfig
    fusion_dim: int


class AbmilCat(Concatenation):
    """ABMIL and expression."""

    def __init__(self, config: AbmilCatConfig, in_dim: int, inputs: ModalInputs, *, rngs: nnx.Rngs):
        slides = Abmil(config.slides, in_dim, inputs, rngs=rngs)
        super().__init__(slides, config.expression, config.fusion_dim, inputs, rngs=rngs)


@dataclasses.dataclass(frozen=True)
class TransMilCatConfig:
    """Sizes of a `TransMilCat`.

    Attributes:
      slides: sizes of the TransMIL.
      expression: sizes of the network on expression.
      fusion_dim: width of the case.
    """

    slides: TransMilConfig
    expression: SnnConfig
    fusion_dim: int


class TransMilCat(Concatenation):
    """TransMIL and expression."""

    def __init__(self, config: TransMilCatConfig, in_dim: int, inputs: ModalInputs, *, rngs: nnx.Rngs):
        slides = TransMil(config.slides, in_dim, inputs, rngs=rngs)
        super().__init__(slides, config.expression, config.fusion_dim, inputs, rngs=rngs)


@dataclasses.dataclass(frozen=True)
class SlideEncoderCatConfig:
    """Sizes of a `SlideEncoderCat`.

    Attributes:
      encoder: the slide encoder, with the keys of `model.encoder`.
      expression: sizes of the network on expression.
      fusion_dim: width of the case.
    """

    encoder: EncoderConfig
    expression: SnnConfig
    fusion_dim: int


class SlideEncoderCat(Concatenation):
    """A slide encoder, fine-tuned, and expression."""

    def __init__(self, config: SlideEncoderCatConfig, in_dim: int, inputs: ModalInputs, *, rngs: nnx.Rngs):
        slides = SlideEncoderBaseline(SlideEncoderConfig(config.encoder), in_dim, inputs, rngs=rngs)
        super().__init__(slides, config.expression, config.fusion_dim, inputs, rngs=rngs)

    @property
    def encoder(self) -> SlideEncoder:
        """The slide encoder."""
        assert isinstance(self.slides, SlideEncoderBaseline)
        return self.slides.encoder

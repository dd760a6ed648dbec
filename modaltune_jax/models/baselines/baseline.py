"""A baseline with its heads, as the trainer sees a model."""

from __future__ import annotations

import dataclasses
from typing import Any, NamedTuple, Protocol, runtime_checkable

import jax
from flax import nnx
from jaxtyping import Array, Float

from modaltune_jax.models.baselines import BASELINES
from modaltune_jax.models.encoders import EncoderConfig
from modaltune_jax.models.encoders.base import SlideEncoder
from modaltune_jax.models.heads import Heads, HeadsConfig, Predictions
from modaltune_jax.models.modalities import ModalInputs
from modaltune_jax.types import Batch


@dataclasses.dataclass(frozen=True)
class BaselineModelConfig:
    """A baseline in the place of ModalTune.

    Attributes:
      name: which one, of `models.baselines.BASELINES`.
      in_dim: width of a tile feature.
      sizes: the settings of the table of its name below.
    """

    name: str
    in_dim: int
    sizes: Any

    @property
    def modalities(self) -> tuple[str, ...]:
        """What it looks at."""
        return BASELINES[self.name][1].modalities

    @property
    def encoder(self) -> EncoderConfig | None:
        """Its slide encoder, if it has one."""
        return getattr(self.sizes, "encoder", None)

    @property
    def embedding_dim(self) -> int:
        """Width of the space of sentences, of which a baseline knows nothing."""
        return 0


class BaselineOutput(NamedTuple):
    """What a forward pass gives.

    Attributes:
      embedding: `[b, 1, e]` what the heads read, as of a model of one task.
      predictions: of the heads; empty for a model without.
    """

    embedding: Float[Array, "b 1 e"]
    predictions: Predictions


@runtime_checkable
class BaselineModule(Protocol):
    """A baseline up to its last linear layer.

    Padding, filler cases and absent modalities change nothing for other cases. A case that lacks a modality
    has zeros in its place.
    """

    modalities: tuple[str, ...]
    out_dim: int

    def __call__(self, batch: Batch, key: jax.Array | None = None) -> Float[Array, "b e"]: ...


class Baseline(nnx.Module):
    """A baseline and the linear heads of what it is trained for.

    Args:
      config: which baseline, and its sizes.
      inputs: sizes that come from the data set.
      heads: what it predicts; None for embeddings alone.
    """

    def __init__(
        self,
        config: BaselineModelConfig,
        inputs: ModalInputs,
        heads: HeadsConfig | None = None,
        *,
        rngs: nnx.Rngs,
    ):
        module = BASELINES[config.name][1]
        self.has_encoder = config.encoder is not None
        self.baseline: BaselineModule = module(config.sizes, config.in_dim, inputs, rngs=rngs)
        plain = dataclasses.replace(heads, is_standardised=False) if heads else None
        self.heads = Heads(plain, self.baseline.out_dim, rngs=rngs) if plain else None

    @property
    def encoder(self) -> SlideEncoder | None:
        """The slide encoder, of a baseline that has one."""
        return getattr(self.baseline, "encoder") if self.has_encoder else None  # noqa: B009

    def __call__(self, batch: Batch, key: jax.Array | None = None) -> BaselineOutput:
        """Embeds a batch of cases.

        Args:
          batch: padded cases.
          key: switches dropout on; None is evaluation.
        """
        embedding = self.baseline(batch, key)[:, None]
        return BaselineOutput(embedding, Predictions() if self.heads is None else self.heads(embedding))

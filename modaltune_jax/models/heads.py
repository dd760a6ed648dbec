"""Heads: what a task embedding predicts by itself, trained on labels rather than probed afterwards."""

from __future__ import annotations

import dataclasses
import math
from typing import NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float

from modaltune_jax.losses.text_similarity import MAX_LOG_SCALE
from modaltune_jax.models.layers import LAYER_NORM_EPS, Linear, linear
from modaltune_jax.types import TASKS

_FIRST_TEMPERATURE = 0.07
"""As in CLIP (Radford et al. 2021)."""


@dataclasses.dataclass(frozen=True)
class HeadsConfig:
    """Which heads a model has.

    Attributes:
      has_risk: one number a case, a log hazard ratio.
      num_bins: logits of discrete hazards, one a bin; 0 for none.
      num_classes: logits of the classes of all sites; 0 for none.
      text_dim: width of the text vectors to be similar to; 0 for none.
      temperature: of the similarities; 0 learns it.
      terms: losses whose log variance is learnt, by name.
      is_standardised: heads read embeddings of mean 0 and variance 1, as the distillation leaves their scale
        free; False for the plain linear heads of a model without it.
    """

    has_risk: bool = False
    num_bins: int = 0
    num_classes: int = 0
    text_dim: int = 0
    temperature: float = 0.0
    terms: tuple[str, ...] = ()
    is_standardised: bool = True


class Predictions(NamedTuple):
    """What the heads say; None for a head that the model does not have.

    Attributes:
      risk: `[b]` log hazard ratio, higher is worse; only differences mean something.
      hazard: `[b, c]` logits of the discrete hazards.
      classes: `[b, k]` logits of the classes of all sites.
      text: `[b, d]` a vector in the space of the text encoder.
      log_scale: `[]` logarithm of the inverse temperature of similarities to `text`.
      log_variance: by term, `[]` each.
    """

    risk: Float[Array, "b"] | None = None
    hazard: Float[Array, "b c"] | None = None
    classes: Float[Array, "b k"] | None = None
    text: Float[Array, "b d"] | None = None
    log_scale: Float[Array, ""] | None = None
    log_variance: dict[str, Float[Array, ""]] | None = None


class Heads(nnx.Module):
    """Linear heads on task embeddings: survival for risk and hazards, diagnosis for classes and similarity.

    Args:
      config: which ones.
      dim: width e of an embedding.
    """

    def __init__(self, config: HeadsConfig, dim: int, *, rngs: nnx.Rngs):
        # A bias of the risk would add the same to all cases, of which the losses see differences only.
        self.risk = Linear(dim, 1, use_bias=False, rngs=rngs) if config.has_risk else None
        self.hazard = linear(dim, config.num_bins, rngs=rngs) if config.num_bins else None
        self.classes = linear(dim, config.num_classes, rngs=rngs) if config.num_classes else None
        self.text = linear(dim, config.text_dim, rngs=rngs) if config.text_dim else None
        self.is_standardised = config.is_standardised
        self.fixed_temperature = config.temperature
        is_learnt = config.text_dim > 0 and not config.temperature
        # As a bare Python number it is of a weak type, which updates change: the step would compile again.
        self.temperature = nnx.Param(jnp.float32(_sigmoid_inverse())) if is_learnt else None
        self.log_variance = nnx.Dict({term: nnx.Param(jnp.zeros(())) for term in config.terms})

    def __call__(self, embedding: Float[Array, "b t e"]) -> Predictions:
        """Predictions of every case from its task embeddings; a model of one task serves all heads."""
        survival, diagnosis = self._of_task(embedding, "survival"), self._of_task(embedding, "diagnosis")
        return Predictions(
            risk=None if self.risk is None else self.risk(survival)[:, 0],
            hazard=None if self.hazard is None else self.hazard(survival),
            classes=None if self.classes is None else self.classes(diagnosis),
            text=None if self.text is None else self.text(diagnosis),
            log_scale=None if self.text is None else self._log_scale(),
            log_variance={term: value[...] for term, value in self.log_variance.items()} or None,
        )

    def _log_scale(self) -> Float[Array, ""]:
        if self.temperature is None:
            return jnp.array(-math.log(self.fixed_temperature))
        # A share of the limit: cut off at the limit, it would get no gradient to come back.
        return MAX_LOG_SCALE * jax.nn.sigmoid(self.temperature[...])

    def _of_task(self, embedding: Float[Array, "b t e"], task: str) -> Float[Array, "b e"]:
        of_task = embedding[:, TASKS.index(task) if embedding.shape[1] > 1 else 0]
        return jax.nn.standardize(of_task, epsilon=LAYER_NORM_EPS) if self.is_standardised else of_task


def _sigmoid_inverse() -> float:
    """Where the learnt temperature starts."""
    share = -math.log(_FIRST_TEMPERATURE) / MAX_LOG_SCALE
    return math.log(share / (1.0 - share))

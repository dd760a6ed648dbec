"""The model that a config describes: ModalTune, or a baseline in its place."""

from __future__ import annotations

from flax import nnx

from modaltune_jax.models.baselines.baseline import Baseline, BaselineModelConfig
from modaltune_jax.models.heads import HeadsConfig
from modaltune_jax.models.modalities import ModalInputs
from modaltune_jax.models.modaltune import ModalTune, ModelConfig


def build_model(
    config: ModelConfig | BaselineModelConfig,
    inputs: ModalInputs,
    heads: HeadsConfig | None,
    *,
    rngs: nnx.Rngs,
) -> ModalTune | Baseline:
    """The model with random weights.

    Args:
      config: which one, and its sizes.
      inputs: sizes that come from the data set.
      heads: what it predicts by itself; None for embeddings alone.
    """
    if isinstance(config, BaselineModelConfig):
        return Baseline(config, inputs, heads, rngs=rngs)
    return ModalTune(config, inputs, heads, rngs=rngs)

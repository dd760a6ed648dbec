"""Baselines by name: the config of each and its module (`baseline.BaselineModule`)."""

from typing import Any

from modaltune_jax.models.baselines.abmil import Abmil, AbmilConfig
from modaltune_jax.models.baselines.mean_mlp import MeanMlp, MeanMlpConfig
from modaltune_jax.models.baselines.tile_mean import TileMean, TileMeanConfig

BASELINES: dict[str, tuple[type, Any]] = {
    "tile_mean": (TileMeanConfig, TileMean),
    "mean_pool": (MeanMlpConfig, MeanMlp),
    "abmil": (AbmilConfig, Abmil),
}
"""What `model.name` may say besides "modaltune"."""

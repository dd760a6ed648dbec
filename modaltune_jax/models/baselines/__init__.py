"""Baselines by name: the config of each and its module (`baseline.BaselineModule`)."""

from typing import Any

from modaltune_jax.models.baselines.abmil import Abmil, AbmilConfig
from modaltune_jax.models.baselines.concatenation import (
    AbmilCat,
    AbmilCatConfig,
    SlideEncoderCat,
    SlideEncoderCatConfig,
    TransMilCat,
    TransMilCatConfig,
)
from modaltune_jax.models.baselines.mean_mlp import MeanMlp, MeanMlpConfig
from modaltune_jax.models.baselines.slide_encoder import SlideEncoderBaseline, SlideEncoderConfig
from modaltune_jax.models.baselines.tile_mean import TileMean, TileMeanConfig
from modaltune_jax.models.baselines.transmil import TransMil, TransMilConfig

BASELINES: dict[str, tuple[type, Any]] = {
    "slide_encoder": (SlideEncoderConfig, SlideEncoderBaseline),
    "tile_mean": (TileMeanConfig, TileMean),
    "mean_pool": (MeanMlpConfig, MeanMlp),
    "abmil": (AbmilConfig, Abmil),
    "transmil": (TransMilConfig, TransMil),
    "abmil_cat": (AbmilCatConfig, AbmilCat),
    "transmil_cat": (TransMilCatConfig, TransMilCat),
    "slide_encoder_cat": (SlideEncoderCatConfig, SlideEncoderCat),
}
"""What `model.name` may say besides "modaltune"."""

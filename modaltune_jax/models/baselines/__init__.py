"""Baselines by name: the config of each and its module (`baseline.BaselineModule`)."""

from typing import Any

from modaltune_jax.models.baselines.abmil import Abmil, AbmilConfig
from modaltune_jax.models.baselines.clinical_linear import ClinicalLinear, ClinicalLinearConfig
from modaltune_jax.models.baselines.concatenation import (
    AbmilCat,
    AbmilCatConfig,
    SlideEncoderCat,
    SlideEncoderCatConfig,
    TransMilCat,
    TransMilCatConfig,
)
from modaltune_jax.models.baselines.expression_linear import ExpressionLinear, ExpressionLinearConfig
from modaltune_jax.models.baselines.gene_mixer import GeneMixer, GeneMixerConfig
from modaltune_jax.models.baselines.mcat import Mcat, McatConfig
from modaltune_jax.models.baselines.mean_mlp import MeanMlp, MeanMlpConfig
from modaltune_jax.models.baselines.mlp import Mlp, MlpConfig
from modaltune_jax.models.baselines.slide_encoder import SlideEncoderBaseline, SlideEncoderConfig
from modaltune_jax.models.baselines.snn import Snn, SnnConfig
from modaltune_jax.models.baselines.sparse_mlp import SparseMlp, SparseMlpConfig
from modaltune_jax.models.baselines.survpath import SurvPath, SurvPathConfig
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
    "expression_linear": (ExpressionLinearConfig, ExpressionLinear),
    "mlp": (MlpConfig, Mlp),
    "snn": (SnnConfig, Snn),
    "sparse_mlp": (SparseMlpConfig, SparseMlp),
    "gene_mixer": (GeneMixerConfig, GeneMixer),
    "clinical_linear": (ClinicalLinearConfig, ClinicalLinear),
    "mcat": (McatConfig, Mcat),
    "survpath": (SurvPathConfig, SurvPath),
}
"""What `model.name` may say besides "modaltune"."""

"""Slide encoders behind one protocol (`base.py`)."""

from flax import nnx

from modaltune_jax.models.encoders.base import SlideEncoder
from modaltune_jax.models.encoders.longnet import LongNet, LongNetConfig
from modaltune_jax.models.encoders.mean_pool import MeanPool, MeanPoolConfig
from modaltune_jax.models.encoders.titan import Titan, TitanConfig

EncoderConfig = LongNetConfig | MeanPoolConfig | TitanConfig


def build_encoder(config: EncoderConfig, *, rngs: nnx.Rngs) -> SlideEncoder:
    """The encoder that `config` describes, with random weights."""
    match config:
        case LongNetConfig():
            return LongNet(config, rngs=rngs)
        case MeanPoolConfig():
            return MeanPool(config, rngs=rngs)
        case TitanConfig():
            return Titan(config, rngs=rngs)

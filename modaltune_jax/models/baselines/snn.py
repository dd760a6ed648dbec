"""A self-normalising network on expression.

Klambauer et al. 2017, "Self-Normalizing Neural Networks": the activation drives every layer to mean 0 and
variance 1, and alpha dropout keeps both.
"""

from __future__ import annotations

import dataclasses
import itertools

import jax
from flax import nnx
from jaxtyping import Array, Float

from modaltune_jax.models.baselines.presence import zero_where_absent
from modaltune_jax.models.layers import LECUN_NORMAL, linear
from modaltune_jax.models.modalities import ModalInputs
from modaltune_jax.models.regularisation import alpha_dropout, fold
from modaltune_jax.types import Batch

ACTIVATIONS = {"selu": jax.nn.selu, "elu": jax.nn.elu}


@dataclasses.dataclass(frozen=True)
class SnnConfig:
    """Sizes of an `Snn`.

    Attributes:
      widths: of the hidden layers, the last of which is the vector of a case.
      activation: "selu" (Klambauer et al. 2017), or "elu" as in the networks on genes of MCAT (Chen et al.
        2021).
      dropout: rate of alpha dropout after every hidden layer.
    """

    widths: tuple[int, ...]
    activation: str
    dropout: float

    @classmethod
    def published(cls) -> SnnConfig:
        """The network on genes that Chen et al. 2021 compare MCAT with."""
        return cls(widths=(256, 256), activation="elu", dropout=0.25)


class Snn(nnx.Module):
    """Linear (LeCun normal), SELU or ELU, alpha dropout, once a width; a case without expression is zeros."""

    modalities = ("expression",)

    def __init__(self, config: SnnConfig, in_dim: int, inputs: ModalInputs, *, rngs: nnx.Rngs):
        if config.activation not in ACTIVATIONS:
            raise ValueError(f"activation is one of {', '.join(ACTIVATIONS)}, not {config.activation!r}")
        widths = (inputs.num_genes, *config.widths)
        self.layers = nnx.List(
            [linear(width, after, LECUN_NORMAL, rngs=rngs) for width, after in itertools.pairwise(widths)]
        )
        self.activation = config.activation
        self.rate = config.dropout
        self.out_dim = widths[-1]

    def __call__(self, batch: Batch, key: jax.Array | None = None) -> Float[Array, "b e"]:
        """The last hidden layer; `key` switches alpha dropout on."""
        x, activation = batch.expression, ACTIVATIONS[self.activation]
        for i, layer in enumerate(self.layers):
            x = alpha_dropout(activation(layer(x)), self.rate, fold(key, i))
        return zero_where_absent(x, batch, "expression")

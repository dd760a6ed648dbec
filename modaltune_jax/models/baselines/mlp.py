"""A multi-layer perceptron on expression, the plainest network that reads genes."""

from __future__ import annotations

import dataclasses
import itertools

import jax
from flax import nnx
from jaxtyping import Array, Float

from modaltune_jax.models.baselines.presence import zero_where_absent
from modaltune_jax.models.layers import Linear
from modaltune_jax.models.modalities import ModalInputs
from modaltune_jax.models.regularisation import dropout, fold
from modaltune_jax.types import Batch

_HE_NORMAL = nnx.initializers.he_normal()


@dataclasses.dataclass(frozen=True)
class MlpConfig:
    """Sizes of an `Mlp`.

    Attributes:
      widths: of the hidden layers, the last of which is the vector of a case.
      dropout: rate after every hidden layer.
    """

    widths: tuple[int, ...]
    dropout: float

    @classmethod
    def published(cls) -> MlpConfig:
        """Four layers with that of the head, as deep as the MLP that Jaume et al. 2024 compare with."""
        return cls(widths=(256, 256, 256), dropout=0.25)


class Mlp(nnx.Module):
    """Linear, ReLU, dropout, once a width; a case without expression is zeros."""

    modalities = ("expression",)

    def __init__(self, config: MlpConfig, in_dim: int, inputs: ModalInputs, *, rngs: nnx.Rngs):
        widths = (inputs.num_genes, *config.widths)
        self.layers = nnx.List(
            [
                Linear(width, after, kernel_init=_HE_NORMAL, rngs=rngs)
                for width, after in itertools.pairwise(widths)
            ]
        )
        self.rate = config.dropout
        self.out_dim = widths[-1]

    def __call__(self, batch: Batch, key: jax.Array | None = None) -> Float[Array, "b e"]:
        """The last hidden layer; `key` switches dropout on."""
        x = batch.expression
        for i, layer in enumerate(self.layers):
            x = dropout(jax.nn.relu(layer(x)), self.rate, fold(key, i))
        return zero_where_absent(x, batch, "expression")

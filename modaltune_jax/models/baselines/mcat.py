"""MCAT: groups of genes attend to the tiles of a slide.

Chen et al. 2021, "Multimodal Co-Attention Transformer for Survival Prediction in Gigapixel Whole Slide
Images". Data flow::

    tiles -> Linear, ReLU --------+-> co-attention -> transformer -> gated pool --+--> fuse -> vector
    genes -> a network a group ---+------------------> transformer -> gated pool --+
"""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import Array, Bool, Float

from modaltune_jax.models.baselines.fusion import BilinearFusion, ConcatFusion
from modaltune_jax.models.baselines.gated_pool import GatedPool
from modaltune_jax.models.baselines.gene_groups import measured_groups
from modaltune_jax.models.baselines.presence import zero_where_absent
from modaltune_jax.models.baselines.transformer import Transformer, TransformerConfig
from modaltune_jax.models.layers import LECUN_NORMAL, MultiHeadAttention, linear
from modaltune_jax.models.modalities import ModalInputs
from modaltune_jax.models.pathways import PathwayNetworks
from modaltune_jax.models.regularisation import dropout, fold
from modaltune_jax.types import Batch


@dataclasses.dataclass(frozen=True)
class McatConfig:
    """Sizes of an `Mcat`.

    Attributes:
      dim: width of tile and gene tokens, and of the vector of a case.
      transformer: sizes of the two transformers: depth, num_heads, ffn_dim, dropout.
      fusion: "concat" or "bilinear".
      bilinear_dim: width of each vector in the products of "bilinear".
      dropout: rate everywhere outside the transformers; alpha dropout in the networks on genes.
    """

    dim: int
    transformer: TransformerConfig
    fusion: str
    bilinear_dim: int
    dropout: float

    @classmethod
    def published(cls) -> McatConfig:
        """With the fusion by concatenation."""
        transformer = TransformerConfig(depth=2, num_heads=8, ffn_dim=512, dropout=0.25)
        return cls(dim=256, transformer=transformer, fusion="concat", bilinear_dim=32, dropout=0.25)


class SetPool(nnx.Module):
    """A few tokens to one vector: transformer, gated attention pooling, Linear, ReLU, dropout."""

    def __init__(self, config: McatConfig, *, rngs: nnx.Rngs):
        self.rate = config.dropout
        self.transformer = Transformer(config.dim, config.transformer, rngs=rngs)
        self.pool = GatedPool(config.dim, config.dim, config.dropout, rngs=rngs)
        self.project = linear(config.dim, config.dim, LECUN_NORMAL, rngs=rngs)

    def __call__(
        self, tokens: Float[Array, "b n d"], mask: Bool[Array, "b n"], key: jax.Array | None = None
    ) -> Float[Array, "b d"]:
        pooled = self.pool(self.transformer(tokens, mask, fold(key, 0)), mask, fold(key, 1))
        return dropout(jax.nn.relu(self.project(pooled)), self.rate, fold(key, 2))


class Mcat(nnx.Module):
    """Both branches and their fusion.

    The co-attention has one head and costs `[b, g, l]`, never `[b, l, l]`. The groups are those of the data
    set: six families of genes in the paper. A group of which no gene was measured is left out. A case
    without slides has zeros for the vector of its slides. A case without expression has zeros for that of
    its genes, and looks at its tiles as the mean case of train does, whose standardised expression is 0.

    Args:
      config: sizes.
      in_dim: width of a tile feature.
      inputs: groups of genes.
    """

    modalities = ("slides", "expression")

    def __init__(self, config: McatConfig, in_dim: int, inputs: ModalInputs, *, rngs: nnx.Rngs):
        dim = config.dim
        self.rate = config.dropout
        self.measured = measured_groups(inputs)
        self.embed = linear(in_dim, dim, LECUN_NORMAL, rngs=rngs)
        self.networks = PathwayNetworks(inputs.gene_groups, dim, config.dropout, rngs=rngs)
        self.co_attention = MultiHeadAttention(dim, dim, num_heads=1, rngs=rngs)
        self.slide_pool = SetPool(config, rngs=rngs)
        self.gene_pool = SetPool(config, rngs=rngs)
        self.fusion = _fusion(config, rngs)
        self.out_dim = dim

    def __call__(self, batch: Batch, key: jax.Array | None = None) -> Float[Array, "b e"]:
        """The fused vector; `key` switches dropout on."""
        tiles = jax.nn.relu(self.embed(batch.features.astype(jnp.float32)))
        tiles = dropout(tiles, self.rate, fold(key, 0))
        is_tile = jnp.arange(tiles.shape[1]) < batch.length[:, None]
        genes = self.networks(zero_where_absent(batch.expression, batch, "expression"), fold(key, 1))
        measured = jnp.broadcast_to(np.array(self.measured), genes.shape[:2])
        attended = self.co_attention(genes, tiles, tiles, is_tile)
        slide_vector = self.slide_pool(attended, measured, fold(key, 2))
        gene_vector = self.gene_pool(genes, measured, fold(key, 3))
        return self.fusion(
            zero_where_absent(slide_vector, batch, "slides"),
            zero_where_absent(gene_vector, batch, "expression"),
            fold(key, 4),
        )


def _fusion(config: McatConfig, rngs: nnx.Rngs) -> ConcatFusion | BilinearFusion:
    if config.fusion == "concat":
        return ConcatFusion(config.dim, rngs=rngs)
    if config.fusion == "bilinear":
        return BilinearFusion(config.dim, config.bilinear_dim, config.dropout, rngs=rngs)
    raise ValueError(f'fusion is "concat" or "bilinear", not {config.fusion!r}')

"""ModalTune: a slide encoder, the Modal Adapter through it, fusion, one embedding a task.

Start reading here. ModalTune (Ramanathan et al. 2025). Data flow::

    tiles -> encoder.embed --+--> [inject, encoder blocks, extract] x stages --> pool --+
    expression, clinical,    |          ^                |                              +--> fuse -> embedding
    task -> modal tokens ----+----------+                +--> summaries ----------------+

Tasks are a batch axis: the t passes of a case run as one array.
"""

from __future__ import annotations

import dataclasses
from typing import NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float

from modaltune_jax.models.adapter import Adapter, AdapterConfig
from modaltune_jax.models.encoders import EncoderConfig, build_encoder
from modaltune_jax.models.encoders.base import Tokens
from modaltune_jax.models.heads import Heads, HeadsConfig, Predictions
from modaltune_jax.models.layers import layer_norm, linear
from modaltune_jax.models.modalities import ModalInputs, ModalTokens
from modaltune_jax.models.pathways import PathwayConfig
from modaltune_jax.models.regularisation import fold
from modaltune_jax.types import MODALITIES, Batch


@dataclasses.dataclass(frozen=True)
class ModelConfig:
    """The whole model.

    Attributes:
      encoder: the slide encoder.
      adapter: the Modal Adapter.
      pathways: the expression encoder.
      modalities: token sets the model has, of `types.MODALITIES`; "slides" is the encoder itself.
      tasks: names of the tasks, in order of the axis t.
      expression_agg: "avg" (published) or "cls".
      fusion: "sum" (published with Prov-GigaPath) or "cat" (with TITAN).
      embedding_dim: width e of a task embedding.
    """

    encoder: EncoderConfig
    adapter: AdapterConfig
    pathways: PathwayConfig
    modalities: tuple[str, ...]
    tasks: tuple[str, ...]
    expression_agg: str
    fusion: str
    embedding_dim: int

    @property
    def in_dim(self) -> int:
        """Width of a tile feature."""
        return self.encoder.in_dim


class ModalTuneOutput(NamedTuple):
    """What a forward pass gives.

    Attributes:
      embedding: `[b, t, e]` one embedding a task.
      image: `[b, t, d]` pooled slide, before fusion; zero for a case without slides.
      modal: `[b, t, m, d]` modal tokens after the adapter.
      predictions: of the heads; empty for a model without.
    """

    embedding: Float[Array, "b t e"]
    image: Float[Array, "b t d"]
    modal: Float[Array, "b t m d"]
    predictions: Predictions


class Fusion(nnx.Module):
    """Sum or concatenation of one vector a modality, LayerNorm, Linear to the embedding."""

    def __init__(self, dim: int, num_vectors: int, mode: str, out_dim: int, *, rngs: nnx.Rngs):
        if mode not in ("sum", "cat"):
            raise ValueError(f'fusion is "sum" or "cat", not {mode!r}')
        self.mode = mode
        fused = dim * (num_vectors if mode == "cat" else 1)
        self.norm = layer_norm(fused, rngs=rngs)
        self.project = linear(fused, out_dim, rngs=rngs)

    def __call__(self, vectors: list[Float[Array, "b t d"]]) -> Float[Array, "b t e"]:
        fused = sum(vectors[1:], vectors[0]) if self.mode == "sum" else jnp.concatenate(vectors, axis=-1)
        return self.project(self.norm(fused))


class ModalTune(nnx.Module):
    """The model.

    Args:
      config: sizes and choices.
      inputs: sizes that come from the data set.
      heads: what it predicts by itself; None for embeddings alone, as published.
    """

    def __init__(
        self, config: ModelConfig, inputs: ModalInputs, heads: HeadsConfig | None = None, *, rngs: nnx.Rngs
    ):
        self.encoder = build_encoder(config.encoder, rngs=rngs)
        dim = self.encoder.width
        self.num_tasks = len(config.tasks)
        self.modal_tokens = ModalTokens(inputs, dim, config, rngs=rngs)
        self.adapter = Adapter(dim, config.adapter, rngs=rngs)
        num_vectors = 1 + len(self.modal_tokens.order)
        self.fusion = Fusion(dim, num_vectors, config.fusion, config.embedding_dim, rngs=rngs)
        self.heads = Heads(heads, config.embedding_dim, rngs=rngs) if heads else None

    def __call__(self, batch: Batch, key: jax.Array | None = None) -> ModalTuneOutput:
        """Embeds a batch of cases.

        Args:
          batch: padded cases; padding, filler cases and absent modalities change nothing for the rest.
          key: switches dropout and stochastic depth on; None is evaluation.
        """
        modal, modal_mask = self.modal_tokens(batch, fold(key, 0))
        tokens = self.encoder.embed(batch.features, batch.cells, batch.length)
        tokens, fused_modal = self.adapter(
            _per_task(tokens, self.num_tasks),
            modal.reshape(-1, *modal.shape[2:]),
            jnp.repeat(modal_mask, self.num_tasks, axis=0),
            self.modal_tokens.positions[...],
            self.encoder.run_blocks,
            fold(key, 1),
        )
        modal = fused_modal.reshape(modal.shape)
        image = self.encoder.pool(tokens).reshape(modal.shape[0], self.num_tasks, -1)
        has_slides = batch.present[:, MODALITIES.index("slides"), None, None]
        image = jnp.where(has_slides, image, 0.0)
        vectors = [image, *self.modal_tokens.summaries(modal, modal_mask).values()]
        embedding = self.fusion(vectors)
        predictions = Predictions() if self.heads is None else self.heads(embedding)
        return ModalTuneOutput(embedding, image, modal, predictions)


def _per_task(tokens: Tokens, num_tasks: int) -> Tokens:
    """Repeats every case once a task, a case's tasks side by side."""
    return jax.tree.map(lambda x: jnp.repeat(x, num_tasks, axis=0), tokens)

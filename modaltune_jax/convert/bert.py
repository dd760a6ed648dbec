"""Public BERT-family models as parameters of `Bert`, and as folders of text encoders."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np

from modaltune_jax.convert import param_file, rules
from modaltune_jax.convert.report import Report
from modaltune_jax.convert.tensor_file import open_tensors
from modaltune_jax.convert.text_encoder import write
from modaltune_jax.models.text import hugging_face
from modaltune_jax.models.text.bert import BertConfig
from modaltune_jax.models.text.folder import TextFolder, layout
from modaltune_jax.models.text.tokenizer import check_vocabulary, make_tokenizer, read_hugging_face_tokenizer

_LAYER = "encoder.layer.{i}"
_LINEARS = {
    f"{_LAYER}.attention.self.query": "layers.{i}.query",
    f"{_LAYER}.attention.self.key": "layers.{i}.key",
    f"{_LAYER}.attention.self.value": "layers.{i}.value",
    f"{_LAYER}.attention.output.dense": "layers.{i}.out",
    f"{_LAYER}.intermediate.dense": "layers.{i}.fc1",
    f"{_LAYER}.output.dense": "layers.{i}.fc2",
}
_NORMS = {
    "embeddings.LayerNorm": "norm",
    f"{_LAYER}.attention.output.LayerNorm": "layers.{i}.attention_norm",
    f"{_LAYER}.output.LayerNorm": "layers.{i}.mlp_norm",
}
_EMBEDDINGS = {
    "embeddings.word_embeddings": "word",
    "embeddings.position_embeddings": "position",
    "embeddings.token_type_embeddings": "token_type",
}

EXTRAS = (
    rules.Skip("embeddings.position_ids", "that counts positions"),
    rules.Skip("pooler.{rest}", "of the head on the first token"),
    rules.Skip("cls.{rest}", "of the pretraining heads"),
)
"""What checkpoints hold besides the encoder."""

RULES: tuple[rules.Rule, ...] = (
    *(rules.Rename(f"{name}.weight", f"{path}.embedding") for name, path in _EMBEDDINGS.items()),
    *(rules.Rename(f"{name}.weight", f"{path}.kernel", rules.TRANSPOSE) for name, path in _LINEARS.items()),
    *(rules.Rename(f"{name}.weight", f"{path}.scale") for name, path in _NORMS.items()),
    *(rules.Rename(f"{name}.bias", f"{path}.bias") for name, path in (_LINEARS | _NORMS).items()),
    *EXTRAS,
)

_OLD_NORMS = (
    *(rules.Rename(f"{name}.gamma", f"{path}.scale") for name, path in _NORMS.items()),
    *(rules.Rename(f"{name}.beta", f"{path}.bias") for name, path in _NORMS.items()),
)
"""Of norms in checkpoints that come from TensorFlow; read and never written."""


def to_params(tensors: Mapping[str, np.ndarray], config: BertConfig) -> rules.Params:
    """Public tensors, with or without a common prefix such as "bert.", as `Bert` parameters.

    Raises:
      InputError: names or shapes differ from the model's.
    """
    return rules.to_params(_without_prefix(tensors), layout(config)[1], RULES + _OLD_NORMS)


def to_tensors(params: rules.Params) -> Mapping[str, np.ndarray]:
    """`Bert` parameters under their public names and in the public layout."""
    return rules.to_tensors(params, RULES)


def read(folder: Path, *, pooling: str | None = None, unit_norm: bool | None = None) -> TextFolder:
    """A Hugging Face or sentence-transformers folder as a text encoder, in memory.

    Args:
      folder: holds config.json, model.safetensors or pytorch_model.bin, and a tokenizer.
      pooling: one of `POOLINGS`; None takes what 1_Pooling/config.json says, and "mean" where there is none.
      unit_norm: whether vectors are scaled to norm 1; None takes what modules.json says, else False.

    Raises:
      InputError: a missing or unfit file; the message says what to get.
    """
    config = hugging_face.read_config(folder)
    with open_tensors(hugging_face.find_weights(folder)) as file, rules.naming(file.path):
        params = to_params(file, config)
    return TextFolder(
        kind="bert",
        config=config,
        params=params,
        sha256=param_file.fingerprint(params),
        tokenizer=read_hugging_face_tokenizer(folder),
        pooling=pooling or hugging_face.read_pooling(folder),
        unit_norm=hugging_face.read_unit_norm(folder) if unit_norm is None else unit_norm,
    )


def convert(
    source: Path, folder: Path, *, pooling: str | None = None, unit_norm: bool | None = None
) -> Report:
    """Writes a Hugging Face or sentence-transformers folder as the folder of a text encoder.

    Args:
      source: the folder to read.
      folder: the folder to write; an older text encoder in it is replaced.
      pooling, unit_norm: as in `read`.

    Raises:
      InputError: a missing or unfit file in `source`, or `folder` holds something else.
    """
    stored = read(source, pooling=pooling, unit_norm=unit_norm)
    weights = hugging_face.find_weights(source)
    with open_tensors(weights) as file:
        num_tensors, skipped = len(file), rules.skipped(_without_prefix(file), EXTRAS)
    config = hugging_face.read_config(source)
    check_vocabulary(make_tokenizer(stored.tokenizer, source), config.vocab_size, source)
    return write(
        folder,
        stored,
        source=weights,
        what=f"BERT, {config.num_hidden_layers} layers of width {config.hidden_size}",
        num_tensors=num_tensors,
        skipped=skipped,
    )


def _without_prefix(tensors: Mapping[str, np.ndarray]) -> Mapping[str, np.ndarray]:
    return rules.strip_prefix(tensors, "embeddings.word_embeddings.weight")

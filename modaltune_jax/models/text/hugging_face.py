"""Folders of BERT-family models in Hugging Face and sentence-transformers layout."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

from modaltune_jax.models.text.bert import BertConfig
from modaltune_jax.models.text.pooling import POOLINGS
from modaltune_jax.types import InputError

WEIGHTS = ("model.safetensors", "pytorch_model.bin")
"""The files that hold weights; the first that is there is read."""

_STEPS = ("Transformer", "Pooling", "Normalize")
"""What sentence-transformers may do one after the other."""

_POOLING_MODES = {
    "pooling_mode_mean_tokens": "mean",
    "pooling_mode_cls_token": "cls",
    "pooling_mode_max_tokens": "max",
    "pooling_mode_mean_sqrt_len_tokens": "mean_sqrt_len_tokens",
}


def read_config(folder: Path) -> BertConfig:
    """Reads and checks config.json.

    Raises:
      InputError: no such file, no BERT, or a variant of it that `Bert` does not compute.
    """
    path = folder / "config.json"
    if not path.is_file():
        raise InputError(
            f"{path} is missing: a text encoder is a folder with config.json, {WEIGHTS[0]} and "
            "tokenizer.json of a BERT-family model, as `hf download <model> --local-dir <folder>` fetches it"
        )
    values = _read_json(path, dict)
    supported = {"model_type": "bert", "hidden_act": "gelu", "position_embedding_type": "absolute"}
    for name, wanted in supported.items():
        if values.get(name, wanted) != wanted:
            raise InputError(f"{path}: {name} is {values[name]!r}, only {wanted!r} is supported")
    names = [field.name for field in dataclasses.fields(BertConfig)]
    missing = [name for name in names if name not in values]
    if missing:
        raise InputError(f"{path} lacks {', '.join(missing)}: not the config.json of a BERT-family model")
    sizes = {name: values[name] for name in names}
    for name, value in sizes.items():
        kinds = (int, float) if name == "layer_norm_eps" else (int,)
        if type(value) not in kinds or value <= 0:
            raise InputError(
                f"{path}: {name} is {value!r}, it must be a positive number: fetch the file again"
            )
    config = BertConfig(**sizes)
    if config.hidden_size % config.num_attention_heads:
        raise InputError(
            f"{path}: hidden_size {config.hidden_size} is no multiple of num_attention_heads "
            f"{config.num_attention_heads}: fetch the file again"
        )
    return config


def find_weights(folder: Path) -> Path:
    """The file with the weights.

    Raises:
      InputError: there is none.
    """
    for name in WEIGHTS:
        if (folder / name).is_file():
            return folder / name
    raise InputError(
        f"{folder / WEIGHTS[0]} is missing, and so is {WEIGHTS[1]}: fetch one of them, as with `hf download "
        "<model> --local-dir <folder>`; weights in several files must be saved as one"
    )


def read_pooling(folder: Path) -> str:
    """The pooling that 1_Pooling/config.json asks for, "mean" without such a file.

    Raises:
      InputError: another than `POOLINGS`, or several.
    """
    path = folder / "1_Pooling" / "config.json"
    if not path.is_file():
        return "mean"
    modes = [name for name, on in _read_json(path, dict).items() if name.startswith("pooling_mode") and on]
    if len(modes) != 1 or modes[0] not in _POOLING_MODES:
        raise InputError(f"{path} asks for {modes}: set the pooling to one of {', '.join(POOLINGS)} yourself")
    return _POOLING_MODES[modes[0]]


def read_unit_norm(folder: Path) -> bool:
    """Whether modules.json asks for vectors of norm 1; False without such a file.

    Raises:
      InputError: it asks for another step behind the transformer, such as a linear layer.
    """
    path = folder / "modules.json"
    if not path.is_file():
        return False
    modules = _read_json(path, list)
    steps = [str(module.get("type")).split(".")[-1] if isinstance(module, dict) else "" for module in modules]
    unknown = [step for step in steps if step not in _STEPS]
    if unknown:
        raise InputError(
            f"{path} asks for {', '.join(unknown)}, only {', '.join(_STEPS)} are supported: choose a model "
            "without it"
        )
    return "Normalize" in steps


def _read_json(path: Path, kind: type) -> Any:
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise InputError(f"{path} is damaged ({error}): fetch it again") from error
    if not isinstance(value, kind):
        raise InputError(f"{path} is damaged (it holds no {kind.__name__}): fetch it again")
    return value

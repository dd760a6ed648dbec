"""A `ConfigDict` unpacked once into frozen dataclasses: unknown and missing keys fail here."""

from __future__ import annotations

import dataclasses
import difflib
import json
import math
import types
import typing
from collections.abc import Mapping
from typing import Any

from ml_collections import ConfigDict

from modaltune_jax import config_checks
from modaltune_jax.checkpoints import CheckpointConfig
from modaltune_jax.inputs.collate import PipelineConfig
from modaltune_jax.inputs.prepare import DataConfig
from modaltune_jax.losses.combine import LossConfig
from modaltune_jax.models.baselines import BASELINES
from modaltune_jax.models.baselines.baseline import BaselineModelConfig
from modaltune_jax.models.encoders.longnet import LongNetConfig
from modaltune_jax.models.encoders.mean_pool import MeanPoolConfig
from modaltune_jax.models.encoders.titan import TitanConfig
from modaltune_jax.models.modaltune import ModelConfig
from modaltune_jax.models.weights import AdapterWeightsConfig, EncoderWeightsConfig
from modaltune_jax.optim import OptimConfig
from modaltune_jax.partitioning import MeshConfig
from modaltune_jax.targets import TextConfig
from modaltune_jax.types import InputError

ENCODERS = {"longnet": LongNetConfig, "mean_pool": MeanPoolConfig, "titan": TitanConfig}
"""What `model.encoder.name` and `model.sizes.encoder.name` may say."""

MODALTUNE = "modaltune"
"""What `model.name` says of ModalTune, if anything; baselines are named as in `BASELINES`."""

_WORDS = {str: "text", int: "a whole number", float: "a number", bool: "True or False"}


@dataclasses.dataclass(frozen=True)
class Config:
    """One experiment, as `configs/*.py` describe it.

    Attributes:
      name: folder of its results.
      seeds: one run each: initialisation, order of cases, dropout.
      compare: variants trained beside each other: `(name, modalities that the model is shown)`.
    """

    name: str
    seeds: tuple[int, ...]
    compare: tuple[tuple[str, tuple[str, ...]], ...]
    data: DataConfig
    pipeline: PipelineConfig
    text: TextConfig
    model: ModelConfig | BaselineModelConfig
    encoder_weights: EncoderWeightsConfig
    adapter_weights: AdapterWeightsConfig
    loss: LossConfig
    optim: OptimConfig
    mesh: MeshConfig
    checkpoint: CheckpointConfig


def unpack(config: ConfigDict) -> Config:
    """Checks a config and turns it into dataclasses.

    Raises:
      InputError: an unknown key (with the nearest known one), a missing key, a value of another type, or
        one that cannot work.
    """
    unpacked = _unpack(Config, config.to_dict(), "config")
    config_checks.check(unpacked)
    return unpacked


def describe(config: Config) -> dict[str, Any]:
    """The config as plain values that JSON can hold, and that `unpack` takes back."""
    values = dataclasses.asdict(config)
    encoder = config.model.encoder
    if encoder is not None:
        model = values["model"]
        sizes = model["sizes"] if isinstance(config.model, BaselineModelConfig) else model
        sizes["encoder"]["name"] = next(key for key, kind in ENCODERS.items() if isinstance(encoder, kind))
    return json.loads(json.dumps(values))


def _unpack(kind: Any, value: Any, path: str) -> Any:
    if isinstance(kind, types.UnionType):
        is_model = ModelConfig in typing.get_args(kind)
        return _unpack_model(value, path) if is_model else _unpack_encoder(value, path)
    if dataclasses.is_dataclass(kind):
        return _unpack_dataclass(kind, value, path)
    if typing.get_origin(kind) is tuple:
        return _unpack_tuple(typing.get_args(kind), value, path)
    if kind is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    is_right = isinstance(value, kind) and (kind is bool or not isinstance(value, bool))
    if not is_right or (kind is float and not math.isfinite(value)):
        raise InputError(f"{path} must be {_WORDS[kind]}, not {value!r}")
    return value


def _unpack_tuple(kinds: tuple[Any, ...], value: Any, path: str) -> tuple[Any, ...]:
    if not isinstance(value, tuple | list):
        raise InputError(f"{path} must be a tuple, not {value!r}")
    if kinds[-1] is Ellipsis:
        kinds = kinds[:1] * len(value)
    if len(kinds) != len(value):
        raise InputError(f"{path} must have {len(kinds)} entries, not {value!r}")
    return tuple(_unpack(k, v, f"{path}[{i}]") for i, (k, v) in enumerate(zip(kinds, value, strict=True)))


def _unpack_dataclass(kind: Any, value: Any, path: str, **narrower: Any) -> Any:
    value = _group(value, path)
    hints = typing.get_type_hints(kind) | narrower
    for key in value:
        if key not in hints:
            near = difflib.get_close_matches(key, hints, n=1)
            hint = f"; did you mean {path}.{near[0]}?" if near else f"; known: {', '.join(hints)}"
            raise InputError(f"unknown config key {path}.{key}{hint}")
    missing = [key for key in hints if key not in value]
    if missing:
        raise InputError(f"config key {path}.{missing[0]} is missing")
    return kind(**{key: _unpack(hint, value[key], f"{path}.{key}") for key, hint in hints.items()})


def _unpack_model(value: Any, path: str) -> Any:
    fields = dict(_group(value, path))
    name = fields.get("name", MODALTUNE)
    if name == MODALTUNE:
        fields.pop("name", None)
        return _unpack_dataclass(ModelConfig, fields, path)
    if name not in BASELINES:
        raise InputError(f"{path}.name is {name!r}; known models: {MODALTUNE}, {', '.join(BASELINES)}")
    return _unpack_dataclass(BaselineModelConfig, fields, path, sizes=BASELINES[name][0])


def _unpack_encoder(value: Any, path: str) -> Any:
    fields = dict(_group(value, path))
    name = fields.pop("name", None)
    if name not in ENCODERS:
        raise InputError(f"{path}.name is {name!r}; known encoders: {', '.join(ENCODERS)}")
    return _unpack_dataclass(ENCODERS[name], fields, path)


def _group(value: Any, path: str) -> Mapping[str, Any]:
    if not isinstance(value, Mapping):
        raise InputError(f"{path} must be a group of settings, not {value!r}")
    return value

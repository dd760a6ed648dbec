"""Weights that a model starts from: of its slide encoder, and of an adapter trained before."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import jax
import jax.numpy as jnp
from flax import nnx

from modaltune_jax.convert import param_file
from modaltune_jax.convert.from_public import WHOLE_MODEL
from modaltune_jax.convert.locate import locate
from modaltune_jax.convert.rules import Params
from modaltune_jax.convert.slide_encoders import kind_of, read
from modaltune_jax.convert.tensor_file import open_tensors
from modaltune_jax.models.baselines.baseline import Baseline
from modaltune_jax.models.encoders import EncoderConfig
from modaltune_jax.models.encoders.base import SlideEncoder
from modaltune_jax.models.modaltune import ModalTune
from modaltune_jax.types import InputError


@dataclasses.dataclass(frozen=True)
class EncoderWeightsConfig:
    """Where the encoder's weights come from.

    Attributes:
      init: "file" or "random". Random is for controls; a missing file never turns into it.
      path: for "file": the published file or a converted one, or a file in the local Hugging Face cache,
        "hf:owner/repository/file" (short: "hf:gigapath", "hf:titan").
    """

    init: str
    path: str


@dataclasses.dataclass(frozen=True)
class AdapterWeightsConfig:
    """Where the adapter's weights come from.

    Attributes:
      path: a converted ModalTune checkpoint on the same encoder and the same gene sets; `""` for a new one.
    """

    path: str


def load_encoder_weights(
    encoder: SlideEncoder | None, config: EncoderWeightsConfig, sizes: EncoderConfig | None
) -> str:
    """Fills an encoder in place and returns a sha256 that names the weights; `""` for a model without.

    Raises:
      InputError: no such file, names or shapes that do not fit, an unknown `init`.
    """
    if encoder is None or sizes is None:
        return ""
    abstract = nnx.to_pure_dict(nnx.state(encoder))
    if config.init == "random":
        return param_file.fingerprint(abstract)
    if config.init != "file":
        raise InputError(f'encoder_weights.init is {config.init!r}; it must say "file" or "random"')
    kind = kind_of(sizes)
    if not config.path:
        raise InputError(f'encoder_weights.path is empty; give the file of the {kind} weights, "hf:{kind}"')
    with open_tensors(_find("encoder_weights", config.path, kind)) as file:
        params = read(file, kind, abstract)
    nnx.update(encoder, jax.tree.map(jnp.asarray, params))
    return param_file.fingerprint(params)


def load_adapter_weights(
    model: ModalTune | Baseline,
    config: AdapterWeightsConfig,
    encoder: EncoderConfig | None,
    encoder_hash: str,
) -> None:
    """Fills everything but `model.encoder` in place, where the config names a file.

    Raises:
      InputError: no such file, weights that do not fit, an adapter of another encoder, or a model without.
    """
    if not config.path:
        return
    if not isinstance(model, ModalTune) or encoder is None:
        raise InputError(
            f"config.adapter_weights.path is {config.path!r}, but a baseline has no adapter: set it to ''"
        )
    abstract: Params = nnx.to_pure_dict(nnx.state(model))
    for part in ("encoder", "heads"):  # heads start anew: the public model has none
        abstract.pop(part, None)
    kind = WHOLE_MODEL + kind_of(encoder)
    with open_tensors(_find("adapter_weights", config.path, kind)) as file:
        if not param_file.is_converted(file):
            raise InputError(
                f"{file.path} is not converted: run `python -m modaltune_jax.convert --from {kind} "
                f"{file.path} adapter.safetensors` and give adapter_weights.path that file"
            )
        params = param_file.read(file, kind, abstract)
        if file.metadata["encoder"] != encoder_hash:
            raise InputError(
                f"{file.path} is an adapter of the encoder with sha256 {file.metadata['encoder']}, but "
                f"encoder_weights gives {encoder_hash}: give the encoder it was trained on"
            )
    nnx.update(model, jax.tree.map(jnp.asarray, params))


def _find(group: str, path: str, kind: str) -> Path:
    try:
        return locate(path, kind)
    except InputError as error:
        raise InputError(f"config.{group}.path: {error}") from error

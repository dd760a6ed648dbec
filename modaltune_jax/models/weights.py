"""Pretrained weights of a slide encoder: from a file, or random only when the config says so."""

from __future__ import annotations

import dataclasses
import hashlib
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from modaltune_jax.convert.gigapath import to_params
from modaltune_jax.convert.rules import load_safetensors
from modaltune_jax.models.modaltune import ModalTune
from modaltune_jax.types import InputError


@dataclasses.dataclass(frozen=True)
class EncoderWeightsConfig:
    """Where the encoder's weights come from.

    Attributes:
      init: "file" or "random". Random is for controls; a missing file never turns into it.
      path: the file with the public tensor names, for "file".
    """

    init: str
    path: str


def load_encoder_weights(model: ModalTune, config: EncoderWeightsConfig) -> str:
    """Fills `model.encoder` in place and returns a sha256 that names the weights.

    Raises:
      InputError: no such file, names or shapes that do not fit, an unknown `init`.
    """
    if config.init == "random":
        return fingerprint(nnx.to_pure_dict(nnx.state(model.encoder)))
    if config.init != "file":
        raise InputError(f'encoder_weights.init is {config.init!r}; it must say "file" or "random"')
    if not config.path or not Path(config.path).is_file():
        raise InputError(
            f"encoder weights {config.path!r} do not exist: ask for access at "
            "https://huggingface.co/prov-gigapath/prov-gigapath, save the slide encoder as .safetensors and "
            'set encoder_weights.path, or set encoder_weights.init="random" for an untrained control'
        )
    abstract = nnx.to_pure_dict(nnx.state(model.encoder))
    params = to_params(load_safetensors(Path(config.path)), abstract)
    nnx.update(model.encoder, jax.tree.map(jnp.asarray, params))
    return fingerprint(params)


def fingerprint(params: dict) -> str:
    """sha256 over names, shapes and values of a nested dict of arrays."""
    digest = hashlib.sha256()
    for path, leaf in sorted(jax.tree_util.tree_leaves_with_path(params), key=lambda item: str(item[0])):
        value = np.asarray(leaf)
        digest.update(f"{jax.tree_util.keystr(path)} {value.dtype} {value.shape}\n".encode())
        digest.update(np.ascontiguousarray(value).tobytes())
    return digest.hexdigest()

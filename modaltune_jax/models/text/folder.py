"""The folder of a converted text encoder.

text_encoder.json     what it is: kind, sizes, pooling, origin, sha256 of the parameters
model.safetensors     the parameters under our names
tokenizer.json        as the `tokenizers` library reads it
"""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import json
import os
import shutil
import uuid
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx

from modaltune_jax.convert import param_file, rules
from modaltune_jax.convert.tensor_file import open_tensors
from modaltune_jax.models.text.bert import Bert, BertConfig
from modaltune_jax.models.text.conch import ConchText, ConchTextConfig
from modaltune_jax.models.text.pooling import POOLINGS
from modaltune_jax.models.text.tokenizer import read_tokenizer
from modaltune_jax.types import InputError

FORMAT = 1

_MANIFEST = "text_encoder.json"
_WEIGHTS = "model.safetensors"
_TOKENIZER = "tokenizer.json"
_KINDS: dict[str, tuple[type, Callable[..., nnx.Module]]] = {
    "bert": (BertConfig, Bert),
    "conch": (ConchTextConfig, ConchText),
}


@dataclasses.dataclass(frozen=True)
class TextFolder:
    """All that decides the vectors of a text encoder, and where it comes from.

    Attributes:
      kind: "bert" or "conch".
      config: its sizes.
      params: nested dict of float32 arrays.
      sha256: of the parameters.
      tokenizer: JSON text of the tokenizer.
      pooling: how a sentence becomes one vector; "cls" for the class embedding of "conch".
      unit_norm: whether vectors are scaled to norm 1.
      source: name and sha256 of the file that it was converted from, and the prefix of the names in it; no
        part of the fingerprint.
    """

    kind: str
    config: BertConfig | ConchTextConfig
    params: rules.Params
    sha256: str
    tokenizer: str
    pooling: str
    unit_norm: bool
    source: Mapping[str, str] = dataclasses.field(default_factory=dict)

    def __post_init__(self):
        known = ("cls",) if self.kind == "conch" else POOLINGS
        if self.pooling not in known:
            raise InputError(
                f"{self.kind}: pooling {self.pooling!r} is unknown: choose one of {', '.join(known)}"
            )

    @property
    def fingerprint(self) -> str:
        """sha256 of all that decides the vectors; where they come from does not."""
        sizes = dataclasses.asdict(self.config)
        decisive = [self.kind, sizes, self.sha256, self.tokenizer, self.pooling, self.unit_norm]
        return hashlib.sha256(json.dumps(decisive, sort_keys=True).encode()).hexdigest()

    def split(self) -> tuple[nnx.GraphDef, rules.Params]:
        """The model, a `Bert` or a `ConchText`, for `nnx.merge`."""
        return layout(self.config)[0], jax.tree.map(jnp.asarray, self.params)


@functools.cache
def layout(config: BertConfig | ConchTextConfig) -> tuple[nnx.GraphDef, rules.Params]:
    """A model of these sizes: its graph, and shapes and dtypes of its parameters. Nothing is computed."""
    make = next(make for sizes, make in _KINDS.values() if isinstance(config, sizes))
    graph, state = nnx.split(nnx.eval_shape(lambda: make(config, rngs=nnx.Rngs(0))))
    return graph, nnx.to_pure_dict(state)


def is_text_folder(path: Path) -> bool:
    """Whether `write_folder` wrote `path`."""
    return (path / _MANIFEST).is_file()


def write_folder(path: Path, stored: TextFolder) -> None:
    """Writes a folder, which appears whole or not at all. An older one of its kind is replaced.

    Raises:
      InputError: `path` is there, and is neither empty nor the folder of a text encoder.
    """
    if path.exists() and not is_text_folder(path) and (not path.is_dir() or any(path.iterdir())):
        raise InputError(
            f"{path} exists and is no folder of a text encoder: choose another name, or remove it yourself"
        )
    manifest = {
        "format": FORMAT,
        "kind": stored.kind,
        "config": dataclasses.asdict(stored.config),
        "pooling": stored.pooling,
        "unit_norm": stored.unit_norm,
        "source": dict(stored.source),
        "sha256": stored.sha256,
    }
    building = path.with_name(f".{path.name}-{uuid.uuid4().hex[:8]}.partial")
    building.mkdir(parents=True)
    try:
        param_file.write(building / _WEIGHTS, stored.params, kind=stored.kind, about={})
        (building / _TOKENIZER).write_text(stored.tokenizer, encoding="utf-8")
        (building / _MANIFEST).write_text(json.dumps(manifest, indent=2) + "\n", encoding="utf-8")
        _move_into_place(building, path)
    finally:
        shutil.rmtree(building, ignore_errors=True)


def read_folder(path: Path) -> TextFolder:
    """Reads a folder and checks the parameters against their sha256.

    Raises:
      InputError: a file is missing, damaged or of another format, or the parameters are not those that the
        folder was written with.
    """
    manifest = _read_manifest(path)
    try:
        config = _KINDS[manifest["kind"]][0](**manifest["config"])
        stated = {name: manifest[name] for name in ("kind", "sha256", "pooling", "unit_norm", "source")}
    except (KeyError, TypeError) as error:
        raise InputError(f"{path / _MANIFEST} is damaged ({error!r}): convert the encoder again") from error
    with open_tensors(path / _WEIGHTS) as file:
        if not param_file.is_converted(file) or file.metadata["sha256"] != stated["sha256"]:
            raise InputError(
                f"{file.path} does not hold the parameters with sha256 {stated['sha256']} that {_MANIFEST} "
                "names: convert the encoder again"
            )
        params = param_file.read(file, stated["kind"], layout(config)[1])
    return TextFolder(config=config, params=params, tokenizer=read_tokenizer(path / _TOKENIZER), **stated)


def folder_kind(path: Path) -> str:
    """Which kind of encoder a folder holds: "bert" or "conch".

    Raises:
      InputError: the folder does not say, or says something else.
    """
    return _read_manifest(path)["kind"]


def _read_manifest(path: Path) -> dict[str, Any]:
    path = path / _MANIFEST
    if not path.is_file():
        raise InputError(f"{path} is missing: the folder holds no converted text encoder")
    try:
        manifest = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise InputError(f"{path} is damaged ({error}): convert the encoder again") from error
    if manifest.get("format") != FORMAT or manifest.get("kind") not in _KINDS:
        raise InputError(
            f"{path} is of format {manifest.get('format')} and kind {manifest.get('kind')!r}, this version "
            f"reads format {FORMAT} of {', '.join(_KINDS)}: convert the encoder again"
        )
    return manifest


def _move_into_place(building: Path, path: Path) -> None:
    replaced = path.with_name(f"{building.name}.replaced")
    try:
        if path.exists():
            os.rename(path, replaced)
        os.rename(building, path)
    finally:
        if replaced.exists() and not path.exists():  # interrupted between the two
            os.rename(replaced, path)
        shutil.rmtree(replaced, ignore_errors=True)

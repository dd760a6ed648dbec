"""Our weights back to the names and the file that the public code reads."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np

from modaltune_jax.convert import bert, conch, modaltune, param_file, rules
from modaltune_jax.convert.from_public import WHOLE_MODEL
from modaltune_jax.convert.report import Report, counts
from modaltune_jax.convert.safetensors_writer import write_safetensors
from modaltune_jax.convert.slide_encoders import SLIDE_ENCODERS, kind_of, read
from modaltune_jax.convert.tensor_file import open_tensors, sha256
from modaltune_jax.convert.torch_writer import write_torch
from modaltune_jax.models.text.folder import is_text_folder, read_folder
from modaltune_jax.types import InputError

SUFFIXES = (".safetensors", ".pth", ".pt", ".bin")
"""What a target may end in: the first is written as safetensors, the others as torch does."""


def to_public(source: Path, target: Path, encoder: Path | None = None) -> Report:
    """Writes a slide encoder, a text encoder, or an adapter with its slide encoder, under the public names.

    Args:
      source: a converted file or text encoder, or the folder of a finished run, whose best checkpoint is
        taken. Heads, which the public model does not have, are left out.
      target: a file with one of `SUFFIXES`.
      encoder: weights of the encoder that an adapter was trained on, public or converted; None for what is no
        adapter.

    Raises:
      InputError: the source or the target is neither, or the encoder is missing, of no use or another one.
    """
    if target.suffix not in SUFFIXES:
        raise InputError(f"{target} says no format: let it end in one of {', '.join(SUFFIXES)}")
    if is_text_folder(source):
        _refuse(encoder, source)
        return _text_encoder(source, target)
    params, kind, layout, needed = _of_run(source) if source.is_dir() else _of_file(source)
    digest = param_file.fingerprint(params) if source.is_dir() else sha256(source)
    published = SLIDE_ENCODERS[kind]
    if layout is None:
        _refuse(encoder, source)
        ours = rules.to_tensors(params, published.table)
        names = {published.prefix + name: name for name in ours}
        _write(target, rules.Renamed(ours, names), published.under)
    else:
        params.pop("heads", None)
        if "encoder" not in params:
            params = {**params, "encoder": _encoder(encoder, kind, needed)}
        table = modaltune.rules(**layout, encoder=published.table)
        _write(target, rules.to_tensors(params, table))
    return _report(source, digest, target, f"{WHOLE_MODEL if layout else ''}{kind}", params)


def _refuse(encoder: Path | None, source: Path) -> None:
    if encoder is not None:
        raise InputError(f"{source} is no adapter, so {encoder} has no place beside it: leave --encoder out")


def _text_encoder(source: Path, target: Path) -> Report:
    stored = read_folder(source)
    to_tensors = {"bert": bert.to_tensors, "conch": conch.to_tensors}[stored.kind]
    tensors, prefix = to_tensors(stored.params), stored.source.get("prefix", "")
    _write(target, rules.Renamed(tensors, {prefix + name: name for name in tensors}))
    return _report(source, stored.sha256, target, f"{stored.kind} text encoder", stored.params)


def _report(source: Path, digest: str, target: Path, what: str, params: rules.Params) -> Report:
    return Report(
        source=source,
        source_sha256=digest,
        target=target,
        what=f"{what}, public names",
        num_tensors=len(jax.tree.leaves(params)),
        **counts(params),
        sha256=param_file.fingerprint(params),
    )


def _of_file(source: Path) -> tuple[rules.Params, str, dict[str, Any] | None, str]:
    """Parameters, kind of the encoder, layout of the model (None for an encoder), hash of the encoder."""
    with open_tensors(source) as file:
        if not param_file.is_converted(file):
            raise InputError(f"{source} has public names already: give a converted file or a run's folder")
        header = file.metadata
        if header["kind"].removeprefix(WHOLE_MODEL) not in SLIDE_ENCODERS:
            raise InputError(
                f"{source} belongs to a {header['kind']} text encoder: give the folder that it is in"
            )
        params = param_file.read(file, header["kind"])
    layout = json.loads(header["layout"]) if "layout" in header else None
    return params, header["kind"].removeprefix(WHOLE_MODEL), layout, header.get("encoder", "")


def _of_run(folder: Path) -> tuple[rules.Params, str, dict[str, Any] | None, str]:
    from modaltune_jax.checkpoints import Checkpoints
    from modaltune_jax.experiment import config_of_run
    from modaltune_jax.inputs.records import Records
    from modaltune_jax.models.modaltune import ModelConfig

    config = config_of_run(folder)
    if not isinstance(config.model, ModelConfig):
        raise InputError(
            f"{folder} holds a run of the baseline {config.model.name}, which has no public form"
        )
    records = Records(config.data.directory)
    with Checkpoints(folder / "checkpoints", config.checkpoint) as checkpoints:
        restored = checkpoints.restore_as_saved("best")
    layout = {
        "group_sizes": [len(group) for group in records.gene_sets.groups],
        "num_mixers": config.model.pathways.depth,
        "num_stages": len(config.model.adapter.stages),
    }
    return restored.state["trainable"], kind_of(config.model.encoder), layout, restored.meta["encoder"]


def _encoder(path: Path | None, kind: str, needed: str) -> rules.Params:
    if path is None:
        raise InputError(
            f"the public file holds the encoder too: give --encoder, the {kind} weights with sha256 {needed}"
        )
    with open_tensors(path) as file:
        encoder = read(file, kind)
    found = param_file.fingerprint(encoder)
    if found != needed:
        raise InputError(
            f"{path} holds the encoder with sha256 {found}, the adapter was trained on {needed}: "
            "give that one"
        )
    return encoder


def _write(target: Path, tensors: Mapping[str, np.ndarray], under: str | None = None) -> None:
    if target.suffix == SUFFIXES[0]:
        write_safetensors(target, tensors, {})
    else:
        write_torch(target, tensors, under=under)

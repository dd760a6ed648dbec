"""Published weight files to converted ones."""

from __future__ import annotations

import dataclasses
import json
import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from flax import nnx

from modaltune_jax.convert import modaltune, param_file, rules
from modaltune_jax.convert.model_sizes import group_sizes, model_sizes
from modaltune_jax.convert.report import Report, counts
from modaltune_jax.convert.slide_encoders import (
    SLIDE_ENCODERS,
    abstract_params,
    encoder_tensors,
    shapes_of,
    sizes,
)
from modaltune_jax.convert.tensor_file import TensorFile, open_tensors, sha256
from modaltune_jax.models.encoders import EncoderConfig
from modaltune_jax.models.modaltune import ModalTune
from modaltune_jax.types import InputError

WHOLE_MODEL = "modaltune-"
"""In front of a slide encoder's kind: a ModalTune checkpoint around that encoder."""


def convert_encoder(source: Path, target: Path, kind: str, skip: Sequence[str] = ()) -> Report:
    """Converts the published file of a slide encoder.

    Args:
      source: the file.
      target: gets the parameters.
      kind: a key of `SLIDE_ENCODERS`.
      skip: templates of names to leave out besides those that the table knows.

    Raises:
      InputError: the file is damaged or converted already, or its tensors do not fit one to one.
    """
    published = SLIDE_ENCODERS[kind]
    with open_tensors(source) as file:
        _refuse_converted(file)
        tensors = encoder_tensors(file)
        config = sizes(file, tensors, kind)
        table: tuple[rules.Rule, ...] = (*published.table, *published.extras, *_asked(skip, tensors))
        with rules.naming(source):
            params = rules.to_params(tensors, abstract_params(config), table)
        skipped = rules.skipped(tensors, table)
        num_tensors = len(file)
    origin = _origin(source)
    return Report(
        source=source,
        source_sha256=origin["source_sha256"],
        target=target,
        what=f"{kind} slide encoder, {_describe(config)}",
        num_tensors=num_tensors,
        **counts(params),
        sha256=param_file.write(target, params, kind=kind, about=origin),
        skipped=skipped,
    )


def convert_modaltune(source: Path, target: Path, kind: str, encoder_target: Path | None = None) -> Report:
    """Converts a ModalTune checkpoint: the adapter to one file, the encoder inside it to its name.

    Args:
      source: the file, which holds encoder and adapter.
      target: gets the adapter's parameters, and the hash of the encoder.
      kind: "modaltune-" and a key of `SLIDE_ENCODERS`.
      encoder_target: gets the encoder's parameters, if given.

    Raises:
      InputError: the file is damaged or converted already, or its tensors do not fit one to one.
    """
    encoder_kind = kind.removeprefix(WHOLE_MODEL)
    with open_tensors(source) as file:
        _refuse_converted(file)
        tensors = rules.strip_prefix(file, "gene_pe")
        if "gene_pe" not in tensors:
            raise InputError(
                f"{source} has no tensor 'gene_pe' among its {len(file)}: this is no ModalTune checkpoint"
            )
        shapes = shapes_of(file, tensors)
        config, inputs = model_sizes(shapes, sizes(file, tensors, encoder_kind))
        layout: dict[str, Any] = {
            "group_sizes": group_sizes(shapes),
            "num_mixers": config.pathways.depth,
            "num_stages": len(config.adapter.stages),
        }
        model = nnx.eval_shape(lambda: ModalTune(config, inputs, rngs=nnx.Rngs(0)))
        table = modaltune.rules(**layout, encoder=SLIDE_ENCODERS[encoder_kind].table)
        with rules.naming(source):
            params = rules.to_params(tensors, nnx.to_pure_dict(nnx.state(model, nnx.Param)), table)
        num_tensors = len(file)
    origin, encoder = _origin(source), params.pop("encoder")
    name = param_file.fingerprint(encoder)
    note = f"adapter of the {encoder_kind} encoder with sha256 {name}"
    if encoder_target is not None:
        param_file.write(encoder_target, encoder, kind=encoder_kind, about=origin)
        note += f", which is now {encoder_target}"
    about = {**origin, "encoder": name, "layout": json.dumps(layout)}
    return Report(
        source=source,
        source_sha256=origin["source_sha256"],
        target=target,
        what=(
            f"ModalTune on {encoder_kind}, {_describe(config.encoder)}; {len(inputs.gene_groups)} pathways, "
            f"modalities {', '.join(config.modalities)}, {len(config.tasks)} tasks"
        ),
        num_tensors=num_tensors,
        **counts(params),
        sha256=param_file.write(target, params, kind=kind, about=about),
        notes=(note,),
    )


def _refuse_converted(file: TensorFile) -> None:
    if param_file.is_converted(file):
        raise InputError(
            f"{file.path} is converted already ({file.metadata['kind']}): use it as it is, or say --to torch "
            "to have public names again"
        )


def _asked(templates: Sequence[str], names: Iterable[str]) -> tuple[rules.Skip, ...]:
    """What the user wants left out; a template that fits nothing is a mistake."""
    skips = tuple(rules.Skip(template, "as asked") for template in templates)
    for skip in skips:
        try:
            is_used = bool(rules.skipped(names, [skip]))
        except re.error as error:
            raise InputError(
                f"{skip.name!r} is no template ({error}): write it like 'decoder.{{any}}'"
            ) from error
        if not is_used:
            raise InputError(
                f"no tensor has a name like {skip.name!r}: write it like 'decoder.{{any}}', or leave it out"
            )
    return skips


def _origin(source: Path) -> dict[str, str]:
    """What a converted file says of the file that it was made of."""
    return {"source": source.name, "source_sha256": sha256(source)}


def _describe(config: EncoderConfig) -> str:
    """The sizes that shapes tell."""
    fields = dataclasses.asdict(config)
    return ", ".join(f"{name} {fields[name]}" for name in ("depth", "width", "in_dim"))

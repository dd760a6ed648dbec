"""Slide encoders' weight files: which table reads them, and what sizes their shapes tell."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Callable, Iterable, Mapping

from flax import nnx

from modaltune_jax.convert import gigapath, param_file, rules, titan
from modaltune_jax.convert.tensor_file import TensorFile
from modaltune_jax.models.encoders import EncoderConfig, build_encoder
from modaltune_jax.models.encoders.longnet import LongNetConfig
from modaltune_jax.models.encoders.titan import TitanConfig
from modaltune_jax.types import InputError

Shapes = Mapping[str, tuple[int, ...]]


def count(names: Iterable[str], stem: str) -> int:
    """How many numbered modules there are behind `stem`, by the largest number."""
    numbers = (re.match(rf"{re.escape(stem)}\.(\d+)\.", name) for name in names)
    return max((int(match[1]) + 1 for match in numbers if match), default=0)


def _longnet_sizes(shapes: Shapes) -> LongNetConfig:
    width, in_dim = shapes["patch_embed.proj.weight"]
    return LongNetConfig(
        in_dim=in_dim,
        width=width,
        depth=count(shapes, "encoder.layers"),
        num_heads=1,
        ffn_dim=shapes["encoder.layers.0.ffn.fc1.weight"][0],
        segment_lengths=(1024,),
        dilated_ratios=(1,),
    )


def _titan_sizes(shapes: Shapes) -> TitanConfig:
    width, in_dim = shapes["patch_embed.0.weight"]
    return TitanConfig(
        in_dim=in_dim,
        width=width,
        depth=count(shapes, "blocks.modules_list"),
        num_heads=1,
        mlp_dim=shapes["blocks.modules_list.0.mlp.fc1.weight"][0],
        pooler_heads=1,
        num_caption_queries=shapes["attn_pool.query"][0],
    )


@dataclasses.dataclass(frozen=True)
class SlideEncoderFile:
    """How a slide encoder's weights are published.

    Attributes:
      table: from public names, without `prefix`, to parameters.
      sizes: a config with parameters of the shapes in a file. What shapes do not tell, the number of heads
        above all, is 1: enough to know where every tensor goes, not to run the model.
      config: the class of the config.
      extras: what else is in the published file, without `prefix`.
      prefix: what stands before all names in the published file.
      under: the key of the published file below which the tensors lie.
    """

    table: tuple[rules.Rename, ...]
    sizes: Callable[[Shapes], EncoderConfig]
    config: type
    extras: tuple[rules.Skip, ...] = ()
    prefix: str = ""
    under: str | None = None


SLIDE_ENCODERS = {
    "gigapath": SlideEncoderFile(gigapath.RULES, _longnet_sizes, LongNetConfig, under="model"),
    "titan": SlideEncoderFile(
        titan.RULES,
        _titan_sizes,
        TitanConfig,
        extras=(
            rules.Skip("text_encoder.{any}", "of the text tower (--from titan-text)"),
            rules.Skip("logit_scale", "temperature of the pretraining"),
        ),
        prefix="vision_encoder.",
    ),
}
"""By kind. A file of another encoder of the same shapes would fit too: the user says which one it is."""


def kind_of(config: EncoderConfig) -> str:
    """The kind of published weights that an encoder of this config takes.

    Raises:
      InputError: none is published.
    """
    for kind, file in SLIDE_ENCODERS.items():
        if isinstance(config, file.config):
            return kind
    raise InputError(
        f'no weights are published for {type(config).__name__}: set encoder_weights.init="random"'
    )


def encoder_tensors(file: TensorFile) -> rules.Renamed:
    """The tensors of a published slide encoder, without what stands before all their names.

    Raises:
      InputError: the file holds a whole ModalTune model.
    """
    tensors = rules.strip_prefix(file, "cls_token")
    if "gene_pe" in tensors:
        raise InputError(
            f"{file.path} holds a whole ModalTune model and not only a slide encoder: take it apart with "
            "`python -m modaltune_jax.convert --from modaltune-gigapath` (or modaltune-titan)"
        )
    return tensors


def shapes_of(file: TensorFile, tensors: rules.Renamed) -> dict[str, tuple[int, ...]]:
    """Shapes by new name, nothing read."""
    return {name: file.shapes[stored] for name, stored in tensors.names.items()}


def sizes(file: TensorFile, tensors: rules.Renamed, kind: str) -> EncoderConfig:
    """The sizes that the shapes in a public file tell.

    Raises:
      InputError: a tensor that every file of this kind has is missing.
    """
    shapes = shapes_of(file, tensors)
    try:
        return SLIDE_ENCODERS[kind].sizes(shapes)
    except KeyError as error:
        others = [other for other, file in SLIDE_ENCODERS.items() if _has_sizes(file, shapes)]
        instead = f" but look like those of {others[0]}" if others else ""
        raise InputError(
            f"{file.path} has no tensor {error} among its {len(file)}: these are not {kind} weights{instead}"
        ) from error


def _has_sizes(file: SlideEncoderFile, shapes: Shapes) -> bool:
    try:
        file.sizes(shapes)
    except KeyError:
        return False
    return True


def abstract_params(config: EncoderConfig) -> rules.Params:
    """Shapes and dtypes of the parameters of an encoder, nothing computed."""
    model = nnx.eval_shape(lambda: build_encoder(config, rngs=nnx.Rngs(0)))
    return nnx.to_pure_dict(nnx.state(model, nnx.Param))


def read(file: TensorFile, kind: str, abstract: rules.Params | None = None) -> rules.Params:
    """Parameters of a slide encoder, from a public file or from a converted one.

    Args:
      file: the open file.
      kind: a key of `SLIDE_ENCODERS`.
      abstract: nested dict of shapes and dtypes that they must have; None takes the file's own sizes.

    Raises:
      InputError: names, shapes, dtypes or the kind differ, or a converted file was changed.
    """
    if param_file.is_converted(file):
        return param_file.read(file, kind, abstract)
    tensors = encoder_tensors(file)
    if abstract is None:
        abstract = abstract_params(sizes(file, tensors, kind))
    published = SLIDE_ENCODERS[kind]
    with rules.naming(file.path):
        return rules.to_params(tensors, abstract, (*published.table, *published.extras))

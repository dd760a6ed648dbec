"""Slides and words as vectors of one space: TITAN's (Ding et al. 2024), without an adapter."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import Array, Float, Integer

from modaltune_jax.class_bank import ClassBank, class_bank
from modaltune_jax.config import Config
from modaltune_jax.convert.locate import locate
from modaltune_jax.convert.rules import Params
from modaltune_jax.convert.slide_encoders import abstract_params, kind_of, read
from modaltune_jax.convert.tensor_file import open_tensors
from modaltune_jax.embed_cases import predict_cases
from modaltune_jax.inputs.clinical import ClinicalEncoder
from modaltune_jax.inputs.pipeline import eval_batches
from modaltune_jax.inputs.records import Records
from modaltune_jax.inputs.transforms import Transforms
from modaltune_jax.models.encoders.titan import Titan, TitanConfig
from modaltune_jax.models.weights import EncoderWeightsConfig
from modaltune_jax.partitioning import (
    gather_params,
    make_mesh,
    num_case_shards,
    process_shard,
    shard_params,
    tracing,
)
from modaltune_jax.targets import load_encoder
from modaltune_jax.types import Batch, InputError

_UNFITTED = Transforms(
    expression_mean=np.zeros(0),
    expression_std=np.zeros(0),
    clinical=ClinicalEncoder(()),
    num_bins=1,
    survival_edges={},
)
"""For batches of slides alone: there need not even be a train split."""


def titan_of(config: Config) -> TitanConfig:
    """The slide encoder of a config, if its embedding lies in a space of text.

    Raises:
      InputError: it does not, or the config gives the encoder random weights.
    """
    sizes, weights = config.model.encoder, config.encoder_weights
    if not isinstance(sizes, TitanConfig):
        name = type(sizes).__name__.removesuffix("Config") if sizes else "that of a baseline without one"
        raise InputError(
            f"config.model.encoder is {name}, whose embedding lies in no space of text: zero-shot needs "
            "TITAN, as in configs/titan.py"
        )
    if weights.init != "file" or not weights.path:
        raise InputError(
            f"config.encoder_weights is {weights.init!r} with path {weights.path!r}, but only published "
            'weights know words: set init="file" and path="hf:titan"'
        )
    return sizes


def load_titan(sizes: TitanConfig, weights: EncoderWeightsConfig) -> Titan:
    """The slide encoder with its weights.

    Raises:
      InputError: no such file, or names or shapes that do not fit.
    """
    kind = kind_of(sizes)
    with open_tensors(locate(weights.path, kind)) as file:
        params = read(file, kind, abstract_params(sizes))
    encoder = nnx.eval_shape(lambda: Titan(sizes, rngs=nnx.Rngs(0)))
    nnx.update(encoder, jax.tree.map(jnp.asarray, params))
    return encoder


def cases_with_slides(
    records: Records, split: str, in_dim: int
) -> tuple[Integer[np.ndarray, "c"], tuple[str, ...]]:
    """Rows of a split's cases with tiles, and the ids of those without.

    Args:
      records: the data set.
      split: one of its splits, or "all".
      in_dim: width of the tile features that the encoder takes.

    Raises:
      InputError: no case with tiles, or tile features of another width.
    """
    rows = np.arange(records.num_cases) if split == "all" else records.rows(split)
    has_tiles = records.lengths[rows] > 0
    if not has_tiles.any():
        raise InputError(
            f"{records.directory} has {len(rows)} cases of --split={split}, and none of them "
            "has slides: choose another split, or records with slides"
        )
    if records.feature_dim != in_dim:
        raise InputError(
            f"tile features in {records.directory} are {records.feature_dim} wide, but the slide encoder "
            f"takes {in_dim}: use features of its own tile encoder"
        )
    return rows[has_tiles], tuple(records.table["case_id"].iloc[rows[~has_tiles]])


def embed_classes(prompts: Mapping[str, Sequence[str]], text: str, width: int) -> ClassBank:
    """Classes as vectors of the text tower.

    Args:
      prompts: sentences by class.
      text: as for `targets.load_encoder`.
      width: of the projected slide embedding.

    Raises:
      InputError: no such text tower, or vectors of another width.
    """
    try:
        encoder = load_encoder(text)
    except InputError as error:
        raise InputError(f"--text: {error}") from error
    if encoder.dim != width:
        raise InputError(
            f"--text={text} gives vectors of width {encoder.dim}, but projected slide embeddings are "
            f"{width} wide: give the text tower of the slide encoder's own model"
        )
    return class_bank(prompts, encoder)


def embed_slides(
    encoder: Titan, records: Records, rows: Integer[np.ndarray, "c"], config: Config
) -> Float[np.ndarray, "c d"]:
    """Projected slide embeddings of cases, one row for each of `rows`, in their order.

    Args:
      encoder: with its weights.
      records: the data set.
      rows: cases with slides.
      config: its `pipeline` says how slides become bags and batches, its `mesh` over which devices.
    """
    from tqdm import tqdm

    mesh = make_mesh(config.mesh)
    graphdef, state = nnx.split(encoder)
    params = shard_params(nnx.to_pure_dict(state), mesh)

    @jax.jit
    def embed(params: Params, batch: Batch) -> Float[Array, "b d"]:
        titan = nnx.merge(graphdef, gather_params(params, mesh))
        with tracing(mesh):
            return titan.slide_embedding(batch.features, batch.cells, batch.length)

    batches = eval_batches(
        records,
        rows,
        np.zeros((records.num_cases, 0, 0), np.float32),
        _UNFITTED,
        dataclasses.replace(config.pipeline, modalities=("slides",)),
        shard=process_shard(mesh),
        num_shards=num_case_shards(mesh),
    )
    bar = tqdm(batches, desc="embedding slides", unit="batch", total=batches.steps_per_epoch)
    # Threads read the next batches meanwhile: waiting costs little, and the bar shows what is done.
    step = lambda batch: {"slide": jax.block_until_ready(embed(params, batch))}  # noqa: E731
    return predict_cases(step, bar, mesh, records.num_cases)["slide"][rows]

"""Cases to the padded arrays of a batch: no order, no randomness of its own, no input and output."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import ml_dtypes
import numpy as np
from jaxtyping import Float, Int, Shaped

from modaltune_jax.inputs.bags import LAYOUTS, ORIGINS, Bag, join_slides, merge_cells, pad, subsample
from modaltune_jax.inputs.transforms import Transforms
from modaltune_jax.types import MODALITIES, Batch, Case, InputError

FEATURE_DTYPES = {
    "float32": np.dtype(np.float32),
    "float16": np.dtype(np.float16),
    "bfloat16": np.dtype(ml_dtypes.bfloat16),
}
"""Number types that tile features may have in a batch, by name."""

SPREAD = ("site", "event", "subtype")
"""Labels that can be dealt evenly to batches."""


@dataclasses.dataclass(frozen=True)
class PipelineConfig:
    """How cases become batches.

    Attributes:
      batch_size: cases in a batch at most, over all processes.
      tokens_per_batch: padded tiles in a batch at most, over all processes; bounds memory.
      num_buckets: padded lengths, each of which costs a compilation.
      multiple: alignment of a padded length plus its class token.
      max_tiles: longer bags are subsampled, at random in training and evenly in evaluation; 0 never.
      tile_size: side of a grid cell in level-0 pixels; 0 takes each slide's own.
      layout: slides of a case beside each other ("stacked"), each in its own frame ("own"), or as the
        published code laid them out ("reference"), see `bags.join_slides`.
      origin: cells count from pixel (0, 0) ("level0") or from the slide's smallest x and y ("slide").
      merge_cells: add tiles that share a cell and leave out cells without features, as TITAN does;
        `max_tiles` counts the tiles before.
      modalities: those the model is shown; others are absent in every case.
      feature_dtype: of the tile features in a batch.
      spread: labels whose combinations are dealt evenly to the batches of an epoch ("site", "event",
        "subtype"), so that as many as can be hold events and several classes; empty for chance.
      num_threads: batches read at the same time.
      prefetch: batches kept ready; each may take `tokens_per_batch` times the feature width in memory.
    """

    batch_size: int = 8
    tokens_per_batch: int = 65_536
    num_buckets: int = 6
    multiple: int = 64
    max_tiles: int = 25_000
    tile_size: int = 0
    layout: str = "stacked"
    origin: str = "level0"
    merge_cells: bool = False
    modalities: tuple[str, ...] = MODALITIES
    feature_dtype: str = "float32"
    spread: tuple[str, ...] = ()
    num_threads: int = 2
    prefetch: int = 4

    def __post_init__(self) -> None:
        choices = {"layout": LAYOUTS, "origin": ORIGINS, "feature_dtype": FEATURE_DTYPES}
        for name, known in choices.items():
            if getattr(self, name) not in known:
                raise InputError(
                    f"pipeline.{name} is {getattr(self, name)!r}; it must be one of {', '.join(known)}"
                )
        if self.merge_cells and self.layout == "own":
            raise InputError(
                "pipeline.merge_cells adds tiles that share a cell, which tiles of different slides do if"
                " pipeline.layout is 'own'; set pipeline.layout to 'stacked'"
            )
        if set(self.spread) - set(SPREAD):
            raise InputError(f"pipeline.spread is {self.spread}; it must be some of {', '.join(SPREAD)}")
        unknown = set(self.modalities) - set(MODALITIES)
        if unknown or not self.modalities:
            raise InputError(
                f"pipeline.modalities is {self.modalities}; name one or more of {', '.join(MODALITIES)}"
            )
        for name in ("batch_size", "tokens_per_batch", "num_buckets", "multiple", "num_threads", "prefetch"):
            if getattr(self, name) < 1:
                raise InputError(f"pipeline.{name} is {getattr(self, name)}; it must be at least 1")
        for name in ("max_tiles", "tile_size"):
            if getattr(self, name) < 0:
                raise InputError(
                    f"pipeline.{name} is {getattr(self, name)}; it must be positive, or 0 for none"
                )


def collate(
    cases: Sequence[Case | None],
    bucket: int,
    transforms: Transforms,
    config: PipelineConfig,
    *,
    sites: Sequence[str],
    num_genes: int,
    feature_dim: int,
    rngs: Sequence[np.random.Generator | None] | None = None,
    index: Sequence[int] | Int[np.ndarray, "b"] | None = None,
    targets: Float[np.ndarray, "n t e"] | None = None,
    features: Shaped[np.ndarray, "b l d"] | None = None,
) -> Batch:
    """A batch of numpy arrays.

    A modality that `config` does not show, or that a case lacks, is zero and marked absent.

    Args:
      cases: None is filler: zero in every array, no modality present, every label unknown, weight 0.
      bucket: rows to pad every bag to.
      transforms: fitted on the training cases.
      config: which modalities and tiles to take, and how.
      sites: `Batch.site` is a position in this.
      num_genes, feature_dim: widths of arrays that no case of the batch may have.
      rngs: per case what draws the subsample; None draws evenly spaced tiles.
      index: per case its row in the data set; 0, 1, ... if not given.
      targets: text targets by row in the data set; without any the batch has an empty task axis.
      features: memory for the tile features, of any content, `bucket` rows a case; new memory if None. The
        first rows may be those of the case already: then they stay where they are.

    Raises:
      InputError: a case of a site that is not among `sites`, or of other widths.
    """
    num_cases = len(cases)
    index = range(num_cases) if index is None else index
    rngs = [None] * num_cases if rngs is None else rngs
    target_shape = (0, 0) if targets is None else targets.shape[1:]
    dtype = FEATURE_DTYPES[config.feature_dtype]
    num_clinical = len(transforms.clinical)
    if features is None:
        features = np.empty((num_cases, bucket, feature_dim), dtype)
    batch = _filler(features, num_genes, num_clinical, target_shape)
    for row, case in enumerate(cases):
        if case is None:
            features[row] = 0
            continue
        if case.site not in sites:
            raise InputError(f"case {case.id}: site {case.site!r} is not among {', '.join(sites)}")
        shown = case if "slides" in config.modalities else dataclasses.replace(case, slides=())
        bag = _bag(shown, config, feature_dim, rngs[row])
        pad(bag, bucket, out=Bag(features[row], batch.cells[row]))
        batch.length[row] = len(bag)
        expression = case.expression if "expression" in config.modalities else None
        if expression is not None:
            batch.expression[row] = transforms.expression(expression)
        clinical = transforms.clinical(case)
        has_clinical = "clinical" in config.modalities and transforms.clinical.is_known(clinical)
        if has_clinical:
            batch.clinical[row] = clinical
        batch.present[row] = (batch.length[row] > 0, expression is not None, has_clinical)
        if targets is not None:
            batch.targets[row] = targets[index[row]]
        batch.subtype[row] = case.labels.subtype
        batch.site[row] = sites.index(case.site)
        batch.time[row] = case.labels.time
        batch.event[row] = case.labels.event
        batch.weight[row] = 1.0
        batch.index[row] = index[row]
    return batch


def _bag(case: Case, config: PipelineConfig, feature_dim: int, rng: np.random.Generator | None) -> Bag:
    bag = join_slides(
        case.slides,
        tile_size=config.tile_size or None,
        layout=config.layout,
        origin=config.origin,
        feature_dim=feature_dim,
    )
    if bag.features.shape[1] != feature_dim:
        raise InputError(
            f"case {case.id}: tile features are {bag.features.shape[1]} wide, not {feature_dim};"
            " extract them with the tile encoder of the training data"
        )
    bag = subsample(bag, config.max_tiles or None, rng)
    return merge_cells(bag) if config.merge_cells else bag


def _filler(
    features: Shaped[np.ndarray, "b l d"], num_genes: int, num_clinical: int, target_shape: tuple[int, ...]
) -> Batch:
    """A batch of filler cases only, but for its features."""
    num_cases, bucket, _ = features.shape
    return Batch(
        features=features,
        cells=np.zeros((num_cases, bucket, 2), np.int32),
        length=np.zeros(num_cases, np.int32),
        expression=np.zeros((num_cases, num_genes), np.float32),
        clinical=np.zeros((num_cases, num_clinical), np.float32),
        present=np.zeros((num_cases, len(MODALITIES)), bool),
        targets=np.zeros((num_cases, *target_shape), np.float32),
        subtype=np.full(num_cases, -1, np.int32),
        site=np.zeros(num_cases, np.int32),
        time=np.full(num_cases, np.nan, np.float32),
        event=np.full(num_cases, -1, np.int32),
        weight=np.zeros(num_cases, np.float32),
        index=np.full(num_cases, -1, np.int32),
    )

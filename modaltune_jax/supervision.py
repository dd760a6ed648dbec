"""What losses and heads know of the labels of a data set: survival bins, classes as text, class weights."""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd

from modaltune_jax.class_bank import class_bank, prompts_from_templates
from modaltune_jax.inputs.cohort import CohortSpec
from modaltune_jax.inputs.records import Records
from modaltune_jax.losses.combine import LabelSpace, LossConfig
from modaltune_jax.losses.discrete_hazard import time_bins
from modaltune_jax.losses.text_similarity import class_weights
from modaltune_jax.models.heads import HeadsConfig
from modaltune_jax.models.text.base import TextEncoder
from modaltune_jax.predictions import HeadLabels
from modaltune_jax.types import InputError


@dataclasses.dataclass(frozen=True)
class Supervision:
    """The labels as losses, heads and their evaluation see them.

    Attributes:
      space: arrays of the losses.
      labels: the same in words and months, for predictions.
      heads: which heads the losses need; None for none.
    """

    space: LabelSpace
    labels: HeadLabels
    heads: HeadsConfig | None

    def to_dict(self) -> dict[str, Any]:
        """What a checkpoint notes to know the label space again."""
        digest = (
            hashlib.sha256(np.asarray(self.space.bank).tobytes()).hexdigest() if len(self.space.bank) else ""
        )
        return {
            "edges": {site: list(edges) for site, edges in self.labels.edges.items()},
            "horizons": dict(self.labels.horizons),
            "classes": list(self.labels.class_names),
            "class_bank": digest,
        }


def supervise(records: Records, encoder: TextEncoder | None, config: LossConfig) -> Supervision:
    """Fits on training cases what the terms of the loss need, and no more.

    Args:
      records: the cases.
      encoder: frozen text encoder, for the class prompts; None where no term reads text.
      config: the terms.

    Raises:
      InputError: too few deaths in training for the bins, no class to be similar to or no case that has one,
        or no death at all for a loss on survival.
    """
    train = records.table[records.table["split"] == "train"]
    by_name = {spec.name: spec for spec in records.specs}
    specs = [by_name[site] for site in records.sites]
    class_site = [position for position, spec in enumerate(specs) for _ in spec.classes]
    _check_labels(records, train, config.terms, num_classes=len(class_site))
    edges: dict[str, tuple[float, ...]] = {}
    horizons: dict[str, float] = {}
    num_edges = 0
    if "discrete_hazard" in config.terms:
        edges, horizons = _bins(train, records.sites, config.discrete_hazard.num_bins)
        num_edges = config.discrete_hazard.num_bins - 1
    bank = np.zeros((0, 0), np.float32)
    if "text_similarity" in config.terms:
        assert encoder is not None
        bank = _bank(specs, config.text_similarity.templates, encoder)
    space = LabelSpace(
        edges=np.array([edges.get(site, ()) for site in records.sites], np.float32).reshape(
            len(specs), num_edges
        ),
        bank=bank,
        class_site=np.array(class_site, np.int32),
        class_weight=_class_weights(train, specs).astype(np.float32),
    )
    names = tuple(name for spec in specs for name in spec.classes)
    labels = HeadLabels(edges=edges, horizons=horizons, class_names=names, class_site=tuple(class_site))
    return Supervision(space, labels, _heads(config, num_classes=len(names), text_dim=bank.shape[1]))


def _check_labels(records: Records, train: pd.DataFrame, terms: tuple[str, ...], num_classes: int) -> None:
    if {"cox", "ranking"} & set(terms) and not (train["event"] == 1).any():
        raise InputError(
            f"no training case in {records.directory} has a known death: set the weights of loss.cox and "
            "loss.ranking to 0, or give labels"
        )
    for term in sorted({"text_similarity", "cross_entropy"} & set(terms)):
        if not num_classes:
            raise InputError(
                f"no cohort of {records.directory} has classes: set the weight of loss.{term} to 0, or "
                "define classes in the cohort's file"
            )
        if not (train["subtype"] >= 0).any():
            raise InputError(
                f"no training case in {records.directory} has a class: set the weight of loss.{term} to "
                "0, or give labels"
            )


def _heads(config: LossConfig, num_classes: int, text_dim: int) -> HeadsConfig | None:
    if not set(config.terms) - {"distillation"} and not config.uncertainty:
        return None
    return HeadsConfig(
        has_risk=bool({"cox", "ranking"} & set(config.terms)),
        num_bins=config.discrete_hazard.num_bins if "discrete_hazard" in config.terms else 0,
        num_classes=num_classes if "cross_entropy" in config.terms else 0,
        text_dim=text_dim,
        temperature=config.text_similarity.temperature,
        terms=config.terms if config.uncertainty else (),
    )


def _bins(train: pd.DataFrame, sites: tuple[str, ...], num_bins: int) -> tuple[dict, dict]:
    """Interior edges, and the month where the last bin ends: the longest follow-up."""
    edges, horizons = {}, {}
    for site in sites:
        cases = train[train["site"] == site]
        time = cases["time"].to_numpy(np.float64)
        try:
            edges[site] = tuple(time_bins(time, cases["event"].to_numpy(), num_bins).tolist())
        except InputError as error:
            raise InputError(
                f"site {site}: {error} (config.loss.discrete_hazard.num_bins), or set the weight of "
                "loss.discrete_hazard to 0"
            ) from error
        horizons[site] = float(np.nanmax(time))
    return edges, horizons


def _bank(specs: Sequence[CohortSpec], templates: tuple[str, ...], encoder: TextEncoder) -> np.ndarray:
    """Class vectors around their common mean: what all prompts share says nothing about any class."""
    names = {f"{spec.name}/{name}": [name] for spec in specs for name in spec.classes}
    vectors = class_bank(prompts_from_templates(names, templates), encoder).vectors
    if len(names) > 1:
        vectors = vectors - vectors.mean(axis=0)
    return (vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-12)).astype(np.float32)


def _class_weights(train: pd.DataFrame, specs: Sequence[CohortSpec]) -> np.ndarray:
    """Per site, so that its classes weigh the same among themselves, and sites as many cases as they have."""
    weights = []
    for spec in specs:
        label = train.loc[train["site"] == spec.name, "subtype"].to_numpy(np.int64)
        has_labels = (label >= 0).any()
        weights.append(class_weights(label, len(spec.classes)) if has_labels else np.zeros(len(spec.classes)))
    return np.concatenate(weights)

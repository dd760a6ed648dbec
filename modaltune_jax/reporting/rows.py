"""Which row of the table a run belongs to, and runs that belong to the same one."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from modaltune_jax import case_scores
from modaltune_jax.scores import PROBE
from modaltune_jax.types import InputError

FAMILIES = {
    "slides": "Slides",
    "expression": "Expression",
    "clinical": "Clinical values",
    "both": "Slides and expression",
    "modaltune": "ModalTune",
}
"""Blocks of the table, in order, and their titles."""

METHODS = {
    "tile_mean": ("slides", "Mean of tile features"),
    "slide_encoder_probe": ("slides", "Slide encoder"),
    "mean_pool": ("slides", "Mean pool"),
    "abmil": ("slides", "ABMIL"),
    "transmil": ("slides", "TransMIL"),
    "slide_encoder": ("slides", "Slide encoder, tuned"),
    "expression_linear": ("expression", "Linear"),
    "mlp": ("expression", "MLP"),
    "snn": ("expression", "Self-normalising MLP"),
    "sparse_mlp": ("expression", "Pathway MLP"),
    "gene_mixer": ("expression", "Gene mixer"),
    "clinical_linear": ("clinical", "Linear"),
    "abmil_cat": ("both", "ABMIL (cat)"),
    "transmil_cat": ("both", "TransMIL (cat)"),
    "slide_encoder_cat": ("both", "Slide encoder (cat)"),
    "mcat": ("both", "MCAT"),
    "survpath": ("both", "SurvPath"),
    "modaltune": ("modaltune", "ModalTune"),
    "modaltune_pancancer": ("modaltune", "ModalTune, pan-cancer"),
}
"""Family and title by method, in the order of the table."""

_HEADS = {"subtype": ("classes", "similarity"), "survival": ("hazard", "risk")}


@dataclasses.dataclass(frozen=True, order=True)
class Row:
    """One row of a table.

    Attributes:
      method: a key of `METHODS`.
      detail: what tells it from other rows of the method: encoder, losses, what the model is shown, head.
      head: which of a run's predictions it shows, a method of `case_scores`.
    """

    method: str
    detail: str
    head: str

    @property
    def label(self) -> str:
        title = METHODS[self.method][1]
        return f"{title} ({self.detail})" if self.detail else title

    @property
    def family(self) -> str:
        return METHODS[self.method][0]


@dataclasses.dataclass(frozen=True)
class Run:
    """A finished run: its folder, what it was trained as, and what it says of each case."""

    folder: Path
    config: Mapping[str, Any]
    scores: pd.DataFrame

    @property
    def variant(self) -> str:
        return self.folder.parent.name

    @property
    def experiment(self) -> Path:
        """All seeds of a variant have the same."""
        return self.folder.parent

    @property
    def terms(self) -> list[str]:
        """Losses that it was trained with."""
        loss = self.config["loss"]
        return [name for name, term in loss.items() if isinstance(term, Mapping) and term["weight"] > 0]


def find_runs(folders: Sequence[Path]) -> list[Run]:
    """All finished runs in folders.

    Raises:
      InputError: a folder without any.
    """
    runs = []
    for folder in folders:
        found = sorted(folder.glob(f"**/{case_scores.NAME}"))
        if not found:
            raise InputError(
                f"{folder} holds no finished run: there is no {case_scores.NAME} in it or below; runs are "
                "written by `modaltune_jax.main` and `modaltune_jax.sweep`"
            )
        for path in found:
            config = json.loads((path.parent / "config.json").read_text(encoding="utf-8"))
            runs.append(Run(path.parent, config, case_scores.read(path)))
    return runs


def group_rows(runs: Sequence[Run], target: str) -> dict[Row, dict[str, list[Run]]]:
    """Runs of each row and site; those of one place differ by their seeds only.

    Raises:
      InputError: two experiments would fill the same place.
    """
    rows: dict[Row, dict[str, list[Run]]] = {}
    for run in runs:
        for head in heads_of(run, target):
            row = row_of(run, head)
            scored = run.scores[(run.scores["target"] == target) & (run.scores["method"] == head)]
            for site in scored.loc[scored["scope"] != "pooled", "scope"].unique():
                place = rows.setdefault(row, {}).setdefault(site, [])
                if place and place[0].experiment != run.experiment:
                    raise InputError(
                        f"{place[0].experiment} and {run.experiment} are both {row.label!r} of {site}: name "
                        "one of the folders only"
                    )
                place.append(run)
    order = list(METHODS)
    return dict(sorted(rows.items(), key=lambda item: (order.index(item[0].method), item[0].detail)))


def heads_of(run: Run, target: str) -> list[str]:
    """What of a run is in the table of a target: a baseline's head for it, ModalTune's probes and heads.

    A baseline that was trained for the other target is not asked about this one.
    """
    methods = set(run.scores.loc[run.scores["target"] == target, "method"])
    heads = [head for head in _HEADS[target] if head in methods]
    if model_of(run) == "modaltune" or not run.terms:
        return [*([PROBE] if PROBE in methods else []), *heads]
    return heads


def model_of(run: Run) -> str:
    """Name of the model in the config."""
    return run.config["model"].get("name", "modaltune")


def row_of(run: Run, head: str) -> Row:
    """The row that one of a run's heads, or its probes, belong to.

    Raises:
      InputError: a model that has no row.
    """
    method, details = model_of(run), []
    if method == "modaltune":
        if run.scores["site"].nunique() > 1:
            method = "modaltune_pancancer"
        encoder = run.config["model"]["encoder"]["name"]
        details += [encoder] if encoder != "longnet" else []
        details += ["+".join(run.terms)] if run.terms != ["distillation"] else []
        details += [head] if head != PROBE else []
    elif run.terms:
        details += [head] if head == "risk" else []
    else:
        details += ["linear probe"] if f"{method}_probe" not in METHODS else []
        method = f"{method}_probe" if f"{method}_probe" in METHODS else method
    if run.variant != "full":
        details.append(run.variant)
    if method not in METHODS:
        raise InputError(f"{run.folder}: model {method!r} has no row in the table ({', '.join(METHODS)})")
    return Row(method, ", ".join(details), head)

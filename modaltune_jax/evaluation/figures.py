"""Pictures of the groups of one run: survival by risk group, ROC, calibration."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np

from modaltune_jax.case_scores import probabilities
from modaltune_jax.evaluation.confusion import class_names
from modaltune_jax.evaluation.groups import Group
from modaltune_jax.evaluation.measures import NUM_CALIBRATION_GROUPS
from modaltune_jax.evaluation.survival_columns import MONTHS, survival_columns
from modaltune_jax.inputs.cohort import CohortSpec
from modaltune_jax.metrics.curves import risk_cutoffs, risk_groups, roc
from modaltune_jax.metrics.survival_probability import calibration
from modaltune_jax.plots.calibration import draw_calibration
from modaltune_jax.plots.kaplan_meier import draw_kaplan_meier
from modaltune_jax.plots.roc import draw_roc
from modaltune_jax.scores import OVERALL

_RISK_GROUPS = ("low risk", "high risk")


def draw(groups: Iterable[Group], specs: Sequence[CohortSpec], folder: Path) -> list[Path]:
    """Writes what can be drawn of each group and returns the files.

    Args:
      groups: of one run.
      specs: cohorts of the run, for the names of classes.
      folder: for the pictures.
    """
    files = []
    for group in groups:
        rows, key = group.rows, group.key
        is_mean = key.site == OVERALL and key.target != "site"
        if is_mean or rows.empty or rows["predicted"].isna().any():
            continue
        if key.target == "survival":
            files += _draw_survival(group, folder)
        else:
            files += _draw_classes(group, specs, folder)
    return files


def _draw_survival(group: Group, folder: Path) -> list[Path]:
    risk, time = (group.rows[name].to_numpy(np.float64) for name in ("predicted", "time"))
    event = group.rows["event"].to_numpy(np.int64)
    train_risk = group.train["predicted"].to_numpy(np.float64)
    if not event.any() or not np.isfinite(train_risk).all() or not len(train_risk):
        return []
    files = [_path(group, "kaplan_meier", folder)]
    cutoffs = risk_cutoffs(train_risk)
    draw_kaplan_meier(time, event, risk_groups(risk, cutoffs), _RISK_GROUPS, files[0], title=_title(group))
    survival = group.rows[list(survival_columns())].to_numpy(np.float64)
    results = {
        f"{month:g} months": calibration(column, time, event, month, NUM_CALIBRATION_GROUPS)
        for month, column in zip(MONTHS, survival.T, strict=True)
        if np.isfinite(column).all()
    }
    if results:
        files.append(_path(group, "calibration", folder))
        draw_calibration(results, files[-1], title=_title(group))
    return files


def _draw_classes(group: Group, specs: Sequence[CohortSpec], folder: Path) -> list[Path]:
    labels, scores = group.rows["label"].to_numpy(np.int64), probabilities(group.rows)
    names = class_names(group, specs)
    # Of two classes, either curve says it all.
    shown = range(len(names)) if len(names) > 2 else range(1, len(names))
    curves = {names[c]: roc((labels == c).astype(np.int64), scores[:, c]) for c in shown}
    if not curves:
        return []
    path = _path(group, "roc", folder)
    draw_roc(curves, path, title=_title(group))
    return [path]


def _title(group: Group) -> str:
    return f"{group.key.site}, {group.key.split}: {group.key.method}"


def _path(group: Group, kind: str, folder: Path) -> Path:
    key = group.key
    name = "-".join((key.protocol, key.split, key.target, key.method, key.site, kind))
    return folder / f"{re.sub(r'[^A-Za-z0-9_.-]+', '_', name)}.png"

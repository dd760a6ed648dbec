"""Who is taken for whom: counts of true and predicted class."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Sequence

import numpy as np
import pandas as pd

from modaltune_jax.case_scores import probabilities
from modaltune_jax.evaluation.groups import Group
from modaltune_jax.inputs.cohort import CohortSpec
from modaltune_jax.metrics.classification import confusion
from modaltune_jax.scores import OVERALL, POOLED

_KEYS = ("protocol", "split", "site", "target", "task", "method", "scope")
COLUMNS = ("run", *_KEYS, "label", "predicted", "num")


def confusion_table(groups: Iterable[Group], specs: Sequence[CohortSpec], run: str) -> pd.DataFrame:
    """A row a group, true class and predicted class."""
    rows = []
    for group in groups:
        of_classes = group.key.target != "survival" and len(group.rows) > 0
        is_mean = group.key.site == OVERALL and group.key.target != "site"
        if not of_classes or is_mean or group.rows["predicted"].isna().any():
            continue
        key = {name: value for name, value in dataclasses.asdict(group.key).items() if name in _KEYS}
        names = class_names(group, specs)
        labels, predicted = (group.rows[name].to_numpy(np.int64) for name in ("label", "predicted"))
        counts = confusion(labels, predicted, len(names))
        rows += [
            {"run": run, **key, "label": names[i], "predicted": names[j], "num": int(num)}
            for (i, j), num in np.ndenumerate(counts)
        ]
    return pd.DataFrame(rows, columns=list(COLUMNS))


def class_names(group: Group, specs: Sequence[CohortSpec]) -> list[str]:
    """Of the classes of a group's scope; numbers where some class of the cohorts has no case at all."""
    num_classes = probabilities(group.rows).shape[1]
    if group.key.target == "site":
        names = [spec.name for spec in specs]
    elif group.key.scope == POOLED:
        names = [f"{spec.name}: {name}" for spec in specs for name in spec.classes]
    else:
        names = [name for spec in specs if spec.name == group.key.scope for name in spec.classes]
    return names if len(names) == num_classes else [f"class {c}" for c in range(num_classes)]

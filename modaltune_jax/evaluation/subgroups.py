"""The main metrics by subgroup: stage, age, project."""

from __future__ import annotations

import dataclasses

import numpy as np
import pandas as pd

from modaltune_jax.evaluation.groups import Group, scored
from modaltune_jax.evaluation.measures import Bootstrap
from modaltune_jax.inputs.ajcc import ajcc_category
from modaltune_jax.inputs.records import Records
from modaltune_jax.scores import OVERALL

_PROJECT = ("project", "project_id")


def levels_of_cases(records: Records, like: Records) -> pd.DataFrame:
    """Of every case, by id, its level of each variable; "" where it is not known.

    - stage: the main category of the AJCC code;
    - age: at most, or above, the median of the training cases;
    - project: of the records' variable of this name, if they have one.

    Args:
      records: the cases.
      like: the records that hold the training cases; the same, or another cohort.
    """
    table = records.table
    levels = {"stage": [ajcc_category("stage", code) for code in table["stage"]]}
    age = table["age"].to_numpy(np.float64)
    of_train = like.table["age"].to_numpy(np.float64)[like.rows("train")]
    of_train = of_train[np.isfinite(of_train)]
    if len(of_train):
        median = float(np.median(of_train))
        words = np.where(age <= median, f"at most {median:g}", f"above {median:g}")
        levels["age"] = np.where(np.isfinite(age), words, "").tolist()
    for name in sorted(set(_PROJECT) & set(records.variables)):
        cases = (records.without_slides(i) for i in range(records.num_cases))
        levels["project"] = [str(case.variables.get(name, "")) for case in cases]
    return pd.DataFrame(levels, index=table["case_id"])


def subgroups_of(groups: list[Group], levels: pd.DataFrame, bootstrap: Bootstrap) -> list[Group]:
    """Harrell's c and balanced accuracy of every group, by level of each variable.

    A group that has one level alone is left out: there is nothing to set it against.

    Args:
      groups: of all cases.
      levels: from `levels_of_cases`.
      bootstrap: of the intervals.
    """
    found = []
    for group in groups:
        if group.key.target == "site" or group.key.site == OVERALL:
            continue
        for variable in levels.columns:
            level = levels[variable].reindex(group.rows["case_id"]).fillna("").to_numpy(str)
            present = sorted(set(level) - {""})
            if len(present) < 2:
                continue
            for name in present:
                key = dataclasses.replace(group.key, variable=variable, level=name)
                rows = group.rows[level == name]
                found.append(scored(key, rows, group.train, bootstrap, is_main_only=True))
    return found

"""The one number that picks a checkpoint."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd
from absl import logging

from modaltune_jax.probes import probe_table
from modaltune_jax.scores import (
    OVERALL,
    TARGET_TASKS,
    Predicted,
    Predictions,
    cases_by_site,
    score_name,
    score_table,
    truth_of,
)
from modaltune_jax.types import InputError


def selection_score(table: pd.DataFrame, targets: tuple[str, ...], step: int) -> float:
    """Mean over `targets` of the "overall" value on validation; the step itself for `("last",)`.

    A target that cannot be estimated on the validation split is left out; if none can, the score is
    -inf and no checkpoint becomes the best.

    Args:
      table: rows of `probe_table`, and of `heads_table` if there are heads.
      targets: "survival" for the probe, "survival:risk" for a head by its method (`scores.score_name`).
      step: of the model that was scored.
    """
    if targets == ("last",):
        return float(step)
    names = pd.Series(map(score_name, table["target"], table["method"]), table.index)
    rows = table[(table["split"] == "val") & (table["site"] == OVERALL) & names.isin(targets)]
    values = rows["value"].dropna()
    if values.empty:
        logging.warning("nothing of %s can be estimated on the validation split", ", ".join(targets))
        return -np.inf
    return float(values.mean())


def check_selection(cases: pd.DataFrame, sites: Sequence[str], targets: tuple[str, ...]) -> None:
    """Finds out before training whether the validation labels can pick a checkpoint.

    Raises:
      InputError: there is no training or no validation case, or nothing of `targets` can be estimated.
    """
    if not (cases["split"] == "train").any():
        raise InputError(
            f"none of the {len(cases)} cases is in the split train: there is nothing to train on"
        )
    if targets == ("last",):
        return
    tables = [_scores_of_noise(target, cases, sites) for target in targets]
    if all(table.loc[table["site"] == OVERALL, "value"].isna().all() for table in tables):
        raise InputError(
            f"the {sum(cases['split'] == 'val')} validation cases cannot pick a checkpoint by "
            f"{', '.join(targets)}: add validation cases with labels, or set config.checkpoint.best=last to "
            "take the last step"
        )


def _scores_of_noise(name: str, cases: pd.DataFrame, sites: Sequence[str]) -> pd.DataFrame:
    """The validation scores of a target; which of them can be estimated depends on the labels alone."""
    target, _, method = name.partition(":")
    if not method:
        noise = np.random.default_rng(0).normal(size=(len(cases), 1, 2)).astype(np.float32)
        return probe_table(noise, cases, sites, ("val",), (target,))
    truth = truth_of(target, cases, sites)
    by_site = cases_by_site(target, truth, cases, sites)
    same_for_all: dict[str, Predictions] = dict.fromkeys(by_site, np.zeros(len(cases)))
    predicted = Predicted(target, TARGET_TASKS[target], method, truth, by_site, same_for_all)
    return score_table([predicted], cases, ("val",))

"""All metrics of one group of cases, each with its bootstrap draws."""

from __future__ import annotations

import zlib
from typing import NamedTuple

import numpy as np
import pandas as pd
from jaxtyping import Float, Integer

from modaltune_jax.case_scores import probabilities
from modaltune_jax.evaluation import class_draws
from modaltune_jax.evaluation.survival_columns import MONTHS, survival_columns
from modaltune_jax.metrics import classification, survival
from modaltune_jax.metrics.concordance import concordance_of_draws
from modaltune_jax.metrics.estimate import Estimate
from modaltune_jax.metrics.follow_up import Censoring
from modaltune_jax.metrics.intervals import draw_cases
from modaltune_jax.metrics.survival_probability import calibration, integrated_brier, integrated_brier_by_case
from modaltune_jax.scores import has_survival

NUM_CALIBRATION_GROUPS = 4


class Bootstrap(NamedTuple):
    """How intervals are found: `num_draws` draws of the cases, 0 for no intervals; `level` of them inside."""

    num_draws: int = 1000
    level: float = 0.95


class Measured(NamedTuple):
    """A metric on a group of cases.

    Attributes:
      metric: its name.
      estimate: on all cases of the group.
      draws: on bootstrap draws, NaN where it cannot be estimated; empty for metrics without an interval.
    """

    metric: str
    estimate: Estimate
    draws: Float[np.ndarray, "draws"]


def known(rows: pd.DataFrame) -> pd.DataFrame:
    """The rows whose truth is known, in order of the case ids, so that draws of several runs are the same."""
    if len(rows) and rows["target"].iloc[0] == "survival":
        rows = rows[has_survival(rows["time"].to_numpy(np.float64), rows["event"].to_numpy())]
    else:
        rows = rows[rows["label"] >= 0]
    return rows.sort_values("case_id", kind="stable")


def measure(
    target: str,
    rows: pd.DataFrame,
    train: pd.DataFrame,
    bootstrap: Bootstrap,
    group: str,
    *,
    is_main_only: bool = False,
) -> list[Measured]:
    """The metrics of a target on `rows`.

    Args:
      target: "survival", or another for classes.
      rows: of `case_scores` with survival columns, known and of one target, method and scope.
      train: known rows of the training cases, which tell how long cases are followed.
      bootstrap: of the intervals.
      group: a name; groups of another name get other draws, and those of the same name and cases the same.
      is_main_only: Harrell's c or balanced accuracy, and no other.
    """
    missing = rows["predicted"].isna().to_numpy()
    strata = rows["event" if target == "survival" else "label"].to_numpy()
    draws = draw_cases(len(rows), bootstrap.num_draws, strata=strata, seed=zlib.crc32(group.encode("utf-8")))
    if target == "survival":
        names = ("harrell_c", "uno_c", *(f"td_auc_{month:g}m" for month in MONTHS))
    else:
        names = ("balanced_accuracy", "macro_f1", "auroc", "auprc")
    if missing.any():
        reason = rows["reason"].to_numpy()[missing][0]
        names = names[:1] if is_main_only else names
        return [Measured(name, Estimate.missing(reason, len(rows)), np.zeros(0)) for name in names]
    if target == "survival":
        main = _harrell(rows, draws)
        return [main] if is_main_only else [main, *survival_measures(rows, train, draws)]
    return class_measures(rows, draws)[: 1 if is_main_only else None]


def class_measures(rows: pd.DataFrame, draws: Integer[np.ndarray, "draws n"]) -> list[Measured]:
    """Balanced accuracy, macro-F1, and AUROC and AUPRC where there are probabilities."""
    labels, predicted = rows["label"].to_numpy(np.int64), rows["predicted"].to_numpy(np.int64)
    scores, drawn = probabilities(rows), class_draws.times_drawn(draws, len(rows))
    num_classes = int(max(labels.max(initial=0), predicted.max(initial=0))) + 1
    confusion = class_draws.confusion_of_draws(labels, predicted, num_classes, drawn)
    accuracy = classification.balanced_accuracy(labels, predicted)
    f1 = classification.macro_f1(labels, predicted)
    measured = [
        Measured("balanced_accuracy", accuracy, class_draws.balanced_accuracy_of_draws(confusion)),
        Measured("macro_f1", f1, class_draws.macro_f1_of_draws(confusion)),
    ]
    if scores.shape[1] and len(rows):
        area, precision = classification.auroc(labels, scores), classification.auprc(labels, scores)
        measured += [
            Measured("auroc", area, class_draws.auroc_of_draws(labels, scores, drawn)),
            Measured("auprc", precision, class_draws.auprc_of_draws(labels, scores, drawn)),
        ]
    return measured


def _harrell(rows: pd.DataFrame, draws: Integer[np.ndarray, "draws n"]) -> Measured:
    risk, time = rows["predicted"].to_numpy(np.float64), rows["time"].to_numpy(np.float64)
    event = rows["event"].to_numpy(np.int64)
    estimate = survival.harrell_c(risk, time, event)
    return Measured("harrell_c", estimate, concordance_of_draws(risk, time, event, draws))


def survival_measures(
    rows: pd.DataFrame, train: pd.DataFrame, draws: Integer[np.ndarray, "draws n"]
) -> list[Measured]:
    """Uno's concordance, AUC by month, and Brier score and calibration of probabilities."""
    risk, time = rows["predicted"].to_numpy(np.float64), rows["time"].to_numpy(np.float64)
    event = rows["event"].to_numpy(np.int64)
    follow_up = train["time"].to_numpy(np.float64), train["event"].to_numpy(np.int64)
    tau = max(MONTHS)
    uno, of_uno = survival.uno_c(risk, time, event, *follow_up, tau=tau), np.zeros(0)
    if uno.is_estimable:
        weights = survival.uno_weights(time, event, *follow_up, tau=tau)
        of_uno = concordance_of_draws(risk, time, event, draws, weights)
    measured = [Measured("uno_c", uno, of_uno)]
    areas = survival.time_dependent_auc(risk, time, event, *follow_up, np.asarray(MONTHS))
    for month, area in zip(MONTHS, areas, strict=True):
        of_area = np.zeros(0)
        if area.is_estimable:
            of_area = _auc_of_draws(risk, time, event, Censoring(*follow_up), month, draws)
        measured.append(Measured(f"td_auc_{month:g}m", area, of_area))
    return [*measured, *_of_probabilities(rows, time, event, follow_up, draws)]


def _auc_of_draws(
    risk: np.ndarray,
    time: np.ndarray,
    event: np.ndarray,
    censoring: Censoring,
    month: float,
    draws: Integer[np.ndarray, "draws n"],
) -> Float[np.ndarray, "draws"]:
    """A concordance too, of those who have died, as if at month 0, and those alive, as if censored at 1."""
    has_died = (event == 1) & (time <= month)
    stage = np.where(has_died, 0.0, np.where(time > month, 1.0, -1.0))
    weight = np.zeros(len(time))
    weight[has_died] = 1.0 / censoring.at(time[has_died], "a death at month")
    return concordance_of_draws(risk, stage, has_died.astype(np.int64), draws, weight)


def _of_probabilities(
    rows: pd.DataFrame,
    time: np.ndarray,
    event: np.ndarray,
    follow_up: tuple[np.ndarray, np.ndarray],
    draws: Integer[np.ndarray, "draws n"],
) -> list[Measured]:
    probability = rows[list(survival_columns())].to_numpy(np.float64)
    unknown = np.isnan(probability).any(axis=0)
    if unknown.all():
        return []
    months = np.asarray(MONTHS)
    if unknown.any():
        reason = f"survival at month {months[unknown][0]:g} is not known"
        return [Measured("integrated_brier", Estimate.missing(reason, len(rows)), np.zeros(0))]
    estimate, of_draws = integrated_brier(probability, months, time, event, *follow_up), np.zeros(0)
    if estimate.is_estimable:
        by_case = integrated_brier_by_case(probability, months, time, event, Censoring(*follow_up))
        of_draws = by_case[draws].mean(axis=1)
    errors = [
        calibration(column, time, event, month, NUM_CALIBRATION_GROUPS).error
        for month, column in zip(MONTHS, probability.T, strict=True)
    ]
    # No interval: what sampling adds to an error, drawing again adds a second time.
    names = [f"calibration_error_{month:g}m" for month in MONTHS]
    return [
        Measured("integrated_brier", estimate, of_draws),
        *(Measured(name, error, np.zeros(0)) for name, error in zip(names, errors, strict=True)),
    ]

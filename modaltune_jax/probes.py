"""What frozen embeddings know: linear probes of subtype, survival, site (ModalTune, Ramanathan et al. 2025).

Probes are fitted on training cases and scored on the others; nothing else of a validation or test case is
ever looked at.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pandas as pd
from jaxtyping import Float, Integer, Shaped

from modaltune_jax.ridge_cox import FitError, RidgeCox, fit_ridge_cox
from modaltune_jax.scores import (
    PROBE,
    TARGET_TASKS,
    Classes,
    ClassProbabilities,
    Predicted,
    Predictions,
    Truth,
    cases_by_site,
    check_table,
    has_survival,
    score_name,
    score_table,
    task_of,
    truth_of,
)
from modaltune_jax.types import TASKS, InputError

MAX_ITERATIONS = 1000
"""Of the logistic regression."""


def subtype_probe(embeddings: Float[np.ndarray, "n e"], labels: Integer[np.ndarray, "n"]) -> Any:
    """Logistic regression (liblinear, one against the rest, C = 1) on the cases with a label.

    Embeddings are standardised on the training cases: the loss leaves their scale free, and the penalty
    would otherwise depend on it.

    Args:
      embeddings: of the training cases.
      labels: class of each case; cases with a negative label are left out.

    Returns:
      A fitted scikit-learn classifier; `.predict(embeddings)` gives classes.

    Raises:
      FitError: fewer than two classes, embeddings that are not finite, or no convergence.
    """
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.linear_model import LogisticRegression
    from sklearn.multiclass import OneVsRestClassifier
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    embeddings, labels = embeddings[labels >= 0], labels[labels >= 0]
    if len(np.unique(labels)) < 2:
        raise FitError("one class only in training" if len(labels) else "no training case")
    if not np.isfinite(embeddings).all():
        raise FitError("embeddings of training cases are not finite")
    # scikit-learn 1.8 and later refuses several classes with liblinear itself.
    logistic = LogisticRegression(solver="liblinear", max_iter=MAX_ITERATIONS)
    probe = make_pipeline(StandardScaler(), OneVsRestClassifier(logistic))
    with warnings.catch_warnings():
        warnings.simplefilter("error", ConvergenceWarning)
        try:
            return probe.fit(embeddings, labels)
        except ConvergenceWarning as warning:
            raise FitError(f"logistic regression did not converge: {warning}") from warning


def survival_probe(
    embeddings: Float[np.ndarray, "n e"],
    time: Float[np.ndarray, "n"],
    event: Shaped[np.ndarray, "n"],
    *,
    penalty: float = 0.1,
) -> RidgeCox:
    """Ridge-penalised Cox regression on the cases with known survival; a higher `.risk(embeddings)` is worse.

    Args:
      embeddings: of the training cases; standardised on them.
      time: months; cases with NaN are left out, cases with 0 are kept.
      event: 1 death seen, 0 censored; cases with -1 (unknown) are left out.
      penalty: as in `fit_ridge_cox`.

    Raises:
      FitError: see `fit_ridge_cox`.
    """
    known = has_survival(time, event)
    return fit_ridge_cox(embeddings[known], time[known], event[known], penalty)


def probe_table(
    embeddings: Float[np.ndarray, "n t e"],
    table: pd.DataFrame,
    sites: Sequence[str],
    splits: Sequence[str] = ("val", "test"),
    targets: Sequence[str] = tuple(TARGET_TASKS),
) -> pd.DataFrame:
    """Fits the probes of `targets` on the train split and scores them on `splits`.

    Each target is probed on the embedding of its own task (`TARGET_TASKS`); embeddings with one task only
    (t = 1, as from a baseline) serve all targets. Rows per split:

    - subtype and survival of each site, by a probe fitted on that site;
    - `pooled`: one probe fitted and scored on the cases of all sites. Subtypes of different sites then
      are different classes; survival is one Cox model and one concordance index;
    - `overall`: the mean of the per-site values, over the sites that could be estimated;
    - site: `overall` only, one probe on the cases of all sites.

    Args:
      embeddings: one row per row of `table`.
      table: columns split, site, subtype (-1 none), time (months, NaN unknown), event (1, 0, -1 unknown).
      sites: sites to probe; cases of other sites are ignored.
      splits: splits to score.
      targets: what to probe.

    Returns:
      `scores.COLUMNS`, with method "probe". What cannot be estimated has value NaN and a reason.

    Raises:
      InputError: a missing column, not one embedding per row, or an unexpected number of tasks.
    """
    return score_table(probe_predictions(embeddings, table, sites, targets), table, splits)


def probe_predictions(
    embeddings: Float[np.ndarray, "n t e"],
    table: pd.DataFrame,
    sites: Sequence[str],
    targets: Sequence[str] = tuple(TARGET_TASKS),
) -> list[Predicted]:
    """What `probe_table` scores: fits the probes on the train split and applies them to all cases.

    Args:
      embeddings: as for `probe_table`.
      table: as for `probe_table`.
      sites: as for `probe_table`.
      targets: as for `probe_table`.

    Raises:
      InputError: as for `probe_table`.
    """
    check_table(table, [("embeddings", embeddings)])
    if embeddings.shape[1] not in (1, len(TASKS)):
        raise InputError(f"embeddings have {embeddings.shape[1]} tasks: expected 1 or {len(TASKS)}")
    is_train = (table["split"] == "train").to_numpy()
    predicted = []
    for target in targets:
        task, truth = task_of(target, embeddings.shape[1]), truth_of(target, table, sites)
        x, cases = embeddings[:, TASKS.index(task)], cases_by_site(target, truth, table, sites)
        predictions: dict[str, Predictions] = {}
        probabilities: dict[str, ClassProbabilities] = {}
        for site, rows in cases.items():
            probe = _fit(truth, x, rows[is_train[rows]])
            predictions[site] = probe if isinstance(probe, str) else _applied(_point(probe), x)
            if isinstance(truth, Classes) and not isinstance(probe, str):
                probabilities[site] = _probabilities(probe, x, np.unique(truth.labels[rows]))
        predicted.append(Predicted(target, task, PROBE, truth, cases, predictions, probabilities))
    return predicted


def _fit(truth: Truth, x: Float[np.ndarray, "n e"], train: Integer[np.ndarray, "m"]) -> Any:
    """A probe fitted on some rows, or why there is none."""
    try:
        if isinstance(truth, Classes):
            return subtype_probe(x[train], truth.labels[train])
        return survival_probe(x[train], truth.time[train], truth.event[train])
    except FitError as error:
        return str(error)


def _point(probe: Any) -> Callable[[np.ndarray], np.ndarray]:
    """The class or risk that a probe gives a case."""
    return probe.risk if isinstance(probe, RidgeCox) else probe.predict


def _applied(
    probe: Callable[[np.ndarray], np.ndarray], x: Float[np.ndarray, "n e"]
) -> Float[np.ndarray, "n *k"]:
    """What a probe says of every case, NaN for embeddings that are not finite."""
    finite = np.isfinite(x).all(axis=1)
    said = probe(x[finite])
    predicted = np.full((len(x), *said.shape[1:]), np.nan)
    predicted[finite] = said
    return predicted


def _probabilities(
    probe: Any, x: Float[np.ndarray, "n e"], classes: Integer[np.ndarray, "k"]
) -> ClassProbabilities:
    """Those of a class that no training case has are 0."""
    fitted = _applied(probe.predict_proba, x)
    values = np.where(np.isnan(fitted[:, :1]), np.nan, np.zeros(len(classes)))
    values[:, np.searchsorted(classes, probe.classes_)] = fitted
    return ClassProbabilities(classes, values)


def format_table(table: pd.DataFrame) -> str:
    """A table from `probe_table` as text: a block per target, a line per site, a column per split.

    Rows of heads, if there are any, make blocks of their own. A cell holds the value and in brackets the
    number of cases (and deaths); `-` stands for what could not be estimated. Reasons and remarks follow
    below the blocks.
    """
    lines = []
    keys = ["target", "task", "method", "metric"]
    for (target, task, method, metric), block in table.groupby(keys, sort=False):
        with_deaths = metric == "harrell_c"
        cells = block.assign(cell=[_cell(row, with_deaths) for row in block.itertuples()])
        wide = cells.pivot(index="site", columns="split", values="cell")
        wide = wide.loc[cells["site"].unique(), cells["split"].unique()]
        by = "probes" if method == PROBE else f"the {method} head"
        lines.append(f"{target}: {metric} of {by} on the {task} embedding, (cases{', deaths' * with_deaths})")
        lines += [
            f"  {line}" for line in _align([["", *wide.columns], *wide.reset_index().to_numpy().tolist()])
        ]
        lines.append("")
    for row in table[table["reason"] != ""].itertuples():
        lines.append(f"{score_name(row.target, row.method)}, {row.site}, {row.split}: {row.reason}")
    return "\n".join(lines).rstrip() + "\n"


def _cell(row: Any, with_deaths: bool) -> str:
    if math.isnan(row.value):
        return "-"
    return f"{row.value:.3f} ({row.num}{f', {row.num_events}' * with_deaths})"


def _align(rows: list[list[str]]) -> list[str]:
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return [
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows
    ]

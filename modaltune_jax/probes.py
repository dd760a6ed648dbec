"""What frozen embeddings know: linear probes of subtype, survival, site (ModalTune, Ramanathan et al. 2025).

Probes are fitted on training cases and scored on the others; nothing else of a validation or test case is
ever looked at.
"""

from __future__ import annotations

import dataclasses
import math
import warnings
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from jaxtyping import Bool, Float, Integer, Shaped

from modaltune_jax.metrics.classification import balanced_accuracy
from modaltune_jax.metrics.estimate import Estimate
from modaltune_jax.metrics.survival import harrell_c
from modaltune_jax.ridge_cox import FitError, RidgeCox, fit_ridge_cox
from modaltune_jax.types import TASKS, InputError

TARGET_TASKS = {"subtype": "diagnosis", "survival": "survival", "site": "general"}
"""The task whose embedding is probed for each target."""

MAX_ITERATIONS = 1000
"""Of the logistic regression."""

POOLED, OVERALL = "pooled", "overall"
"""In place of a site: one probe for all sites together; the headline of a target, the mean over sites."""


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
    known = _has_survival(time, event)
    return fit_ridge_cox(embeddings[known], time[known], event[known], penalty)


def probe_table(
    embeddings: Float[np.ndarray, "n t e"],
    table: pd.DataFrame,
    sites: Sequence[str],
    splits: Sequence[str] = ("val", "test"),
) -> pd.DataFrame:
    """Fits all probes on the train split and scores them on `splits`.

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

    Returns:
      Columns split, site, target, task (its embedding), metric, value, num, num_events, reason. What
      cannot be estimated has value NaN and a reason.

    Raises:
      InputError: a missing column, not one embedding per row, or an unexpected number of tasks.
    """
    _check(embeddings, table)
    columns = {name: table[name].to_numpy() for name in ("split", "site", "subtype", "time", "event")}
    rows = []
    for target, task in TARGET_TASKS.items():
        index = TASKS.index(task) if embeddings.shape[1] > 1 else 0
        x = embeddings[:, index]
        problem = _problem(target, columns, sites)
        results = _per_site(problem, x, columns, sites, splits, with_sites=target != "site")
        rows += [
            {"split": split, "site": site, "target": target, "task": TASKS[index], "metric": problem.metric}
            | dataclasses.asdict(estimate)
            for (split, site), estimate in results.items()
        ]
    return pd.DataFrame(rows)[
        ["split", "site", "target", "task", "metric", "value", "num", "num_events", "reason"]
    ]


def format_table(table: pd.DataFrame) -> str:
    """A table from `probe_table` as text: a block per target, a line per site, a column per split.

    A cell holds the value and in brackets the number of cases (and deaths); `-` stands for what could not
    be estimated. Reasons and remarks follow below the blocks.
    """
    lines = []
    for (target, task, metric), block in table.groupby(["target", "task", "metric"], sort=False):
        with_deaths = metric == "harrell_c"
        cells = block.assign(cell=[_cell(row, with_deaths) for row in block.itertuples()])
        wide = cells.pivot(index="site", columns="split", values="cell")
        wide = wide.loc[cells["site"].unique(), cells["split"].unique()]
        lines.append(
            f"{target}: {metric} of probes on the {task} embedding, (cases{', deaths' * with_deaths})"
        )
        lines += [
            f"  {line}" for line in _align([["", *wide.columns], *wide.reset_index().to_numpy().tolist()])
        ]
        lines.append("")
    noted = table[table["reason"] != ""]
    lines += [f"{row.target}, {row.site}, {row.split}: {row.reason}" for row in noted.itertuples()]
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


class _Classes(NamedTuple):
    """Classes to predict: a label per case of the table, a fit on some rows, a score on others."""

    labels: Integer[np.ndarray, "n"]
    metric: str = "balanced_accuracy"

    def known(self) -> Bool[np.ndarray, "n"]:
        return self.labels >= 0

    def fit(self, x: np.ndarray, rows: np.ndarray) -> Any:
        return subtype_probe(x[rows], self.labels[rows])

    def score(self, model: Any, x: np.ndarray, rows: np.ndarray) -> Estimate:
        return balanced_accuracy(self.labels[rows], model.predict(x[rows]))


class _Survival(NamedTuple):
    """Survival to predict, with the same interface."""

    time: Float[np.ndarray, "n"]
    event: Shaped[np.ndarray, "n"]
    metric: str = "harrell_c"

    def known(self) -> Bool[np.ndarray, "n"]:
        return _has_survival(self.time, self.event)

    def fit(self, x: np.ndarray, rows: np.ndarray) -> RidgeCox:
        return survival_probe(x[rows], self.time[rows], self.event[rows])

    def score(self, model: RidgeCox, x: np.ndarray, rows: np.ndarray) -> Estimate:
        return harrell_c(model.risk(x[rows]), self.time[rows], self.event[rows])


_Problem = _Classes | _Survival


def _problem(target: str, columns: dict[str, np.ndarray], sites: Sequence[str]) -> _Problem:
    if target == "survival":
        return _Survival(columns["time"].astype(np.float64), columns["event"])
    site = pd.Index(sites).get_indexer(columns["site"])
    if target == "site":
        return _Classes(site)
    subtype = columns["subtype"].astype(np.int64)
    return _Classes(np.where(subtype >= 0, site * (subtype.max(initial=0) + 1) + subtype, -1))


def _per_site(
    problem: _Problem,
    x: Float[np.ndarray, "n e"],
    columns: dict[str, np.ndarray],
    sites: Sequence[str],
    splits: Sequence[str],
    *,
    with_sites: bool,
) -> dict[tuple[str, str], Estimate]:
    """Estimates by (split, site | pooled | overall)."""
    members = {site: problem.known() & (columns["site"] == site) for site in sites} if with_sites else {}
    members[POOLED if with_sites else OVERALL] = problem.known() & np.isin(columns["site"], list(sites))
    results = {}
    for site, member in members.items():
        scored = {split: np.flatnonzero(member & (columns["split"] == split)) for split in splits}
        train = np.flatnonzero(member & (columns["split"] == "train"))
        for split, estimate in _fit_and_score(problem, x, train, scored).items():
            results[split, site] = estimate
    if with_sites:
        for split in splits:
            results[split, OVERALL] = _mean({site: results[split, site] for site in sites})
    return results


def _fit_and_score(
    problem: _Problem, x: Float[np.ndarray, "n e"], train: np.ndarray, scored: dict[str, np.ndarray]
) -> dict[str, Estimate]:
    try:
        model = problem.fit(x, train)
    except FitError as error:
        return {split: Estimate.missing(str(error), len(rows)) for split, rows in scored.items()}
    return {split: _score(problem, model, x, rows) for split, rows in scored.items()}


def _score(problem: _Problem, model: Any, x: Float[np.ndarray, "n e"], rows: np.ndarray) -> Estimate:
    if len(rows) == 0:
        return Estimate.missing("no case")
    if not np.isfinite(x[rows]).all():
        return Estimate.missing("embeddings are not finite", len(rows))
    return problem.score(model, x, rows)


def _mean(per_site: dict[str, Estimate]) -> Estimate:
    """Mean over the sites that could be estimated; the reason names the others."""
    good = [estimate for estimate in per_site.values() if estimate.is_estimable]
    missing = [site for site, estimate in per_site.items() if not estimate.is_estimable]
    value = math.fsum(estimate.value for estimate in good) / len(good) if good else math.nan
    return Estimate(
        value,
        sum(estimate.num for estimate in good),
        sum(estimate.num_events for estimate in good),
        f"without {', '.join(missing)}" if missing else "",
    )


def _has_survival(time: Float[np.ndarray, "n"], event: Shaped[np.ndarray, "n"]) -> Bool[np.ndarray, "n"]:
    return np.isfinite(time) & (event >= 0)


def _check(embeddings: np.ndarray, table: pd.DataFrame) -> None:
    missing = sorted({"split", "site", "subtype", "time", "event"} - set(table.columns))
    if missing:
        raise InputError(f"the table of cases lacks column(s) {', '.join(missing)}")
    if len(embeddings) != len(table):
        raise InputError(f"{len(embeddings)} embeddings for {len(table)} cases: give one row per case")
    if embeddings.shape[1] not in (1, len(TASKS)):
        raise InputError(f"embeddings have {embeddings.shape[1]} tasks: expected 1 or {len(TASKS)}")

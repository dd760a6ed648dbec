"""What the heads of the model are good for, scored as the probes are and on the same cases."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import jax.numpy as jnp
import numpy as np
import pandas as pd
import scipy.special
from jaxtyping import Float, Integer

from modaltune_jax.losses import discrete_hazard
from modaltune_jax.predictions import HeadLabels, check_outputs, nearest_class
from modaltune_jax.scores import (
    POOLED,
    Classes,
    ClassProbabilities,
    Predicted,
    Predictions,
    Truth,
    cases_by_site,
    score_table,
    site_index,
    task_of,
    truth_of,
)
from modaltune_jax.types import TASKS

HEADS = {"risk": "survival", "hazard": "survival", "classes": "subtype", "similarity": "subtype"}
"""The target of each head, by the name of its output."""


def heads_table(
    outputs: Mapping[str, np.ndarray],
    table: pd.DataFrame,
    sites: Sequence[str],
    labels: HeadLabels,
    splits: Sequence[str] = ("val", "test"),
) -> pd.DataFrame:
    """Scores the heads that `outputs` come from: the rows of `probe_table` for their targets.

    - risk: Harrell's c;
    - hazard: Harrell's c of minus the summed survival over the bins (`discrete_hazard.risk`). Not
      `pooled` where sites have bins of their own: the same sum then means another survival;
    - classes: balanced accuracy of the most probable class of the case's own site;
    - similarity: balanced accuracy of the most similar one.

    Args:
      outputs: as for `predictions.predict`.
      table: as for `probe_table`.
      sites: sites to score, in the order that `labels.class_site` refers to.
      labels: what the outputs stand for.
      splits: splits to score.

    Returns:
      `scores.COLUMNS`, with the head as method; no rows without a head. What cannot be estimated has value
      NaN and a reason.

    Raises:
      InputError: a missing column, or an output of another shape than table and labels say.
    """
    return score_table(head_predictions(outputs, table, sites, labels), table, splits)


def head_predictions(
    outputs: Mapping[str, np.ndarray], table: pd.DataFrame, sites: Sequence[str], labels: HeadLabels
) -> list[Predicted]:
    """What `heads_table` scores, an entry a head.

    Args:
      outputs: as for `predictions.predict`.
      table: as for `probe_table`.
      sites: as for `heads_table`.
      labels: what the outputs stand for.

    Raises:
      InputError: as for `heads_table`.
    """
    check_outputs(outputs, table, labels)
    num_tasks = outputs["embedding"].shape[1] if "embedding" in outputs else len(TASKS)
    heads = []
    for method, target in HEADS.items():
        if method not in outputs:
            continue
        truth, predicted = _truth_and_predictions(method, outputs[method], table, sites, labels)
        cases = cases_by_site(target, truth, table, sites)
        predictions: dict[str, Predictions] = dict.fromkeys(cases, predicted)
        if method == "hazard" and not _have_same_bins(sites, labels):
            predictions[POOLED] = "sites have bins of their own, in which risks cannot be compared"
        probabilities = _probabilities(outputs[method], table, sites, labels) if target == "subtype" else {}
        task = task_of(target, num_tasks)
        heads.append(Predicted(target, task, method, truth, cases, predictions, probabilities))
    return heads


def _have_same_bins(sites: Sequence[str], labels: HeadLabels) -> bool:
    edges = {labels.edges.get(site) for site in sites}
    return len(sites) == 1 or (len(edges) == 1 and None not in edges)


def _truth_and_predictions(
    method: str, output: np.ndarray, table: pd.DataFrame, sites: Sequence[str], labels: HeadLabels
) -> tuple[Truth, Float[np.ndarray, "n"]]:
    if method == "risk":
        return truth_of("survival", table, sites), output
    if method == "hazard":
        return truth_of("survival", table, sites), np.asarray(discrete_hazard.risk(jnp.asarray(output)))
    site = site_index(table, sites)
    nearest = nearest_class(output, site, labels)
    truth = Classes(_class_of(table["subtype"].to_numpy(np.int64), site, labels))
    return truth, np.where(nearest >= 0, nearest, np.nan)


def _probabilities(
    similarity: Float[np.ndarray, "n classes"],
    table: pd.DataFrame,
    sites: Sequence[str],
    labels: HeadLabels,
) -> dict[str, ClassProbabilities]:
    """Softmax over the classes of each case's own site; those of other sites are 0."""
    own = labels.is_own(site_index(table, sites))
    values = np.full(similarity.shape, np.nan)
    known = own.any(axis=1) & np.all(np.isfinite(similarity) | ~own, axis=1)
    logits = np.where(own, similarity, -np.inf)[known].astype(np.float64)
    values[known] = scipy.special.softmax(logits, axis=1)
    by_site = {}
    for position, site in enumerate(sites):
        columns = np.flatnonzero(np.equal(labels.class_site, position))
        by_site[site] = ClassProbabilities(columns, values[:, columns])
    return by_site | {POOLED: ClassProbabilities(np.arange(len(labels.class_names)), values)}


def _class_of(
    subtype: Integer[np.ndarray, "n"], site: Integer[np.ndarray, "n"], labels: HeadLabels
) -> Integer[np.ndarray, "n"]:
    """Position of each case's class among those of all sites, from its number at its own; -1 for none."""
    own = labels.is_own(site)
    is_class = own & (np.cumsum(own, axis=1) - 1 == subtype[:, None])
    return np.where(is_class.any(axis=1), is_class.argmax(axis=1), -1)

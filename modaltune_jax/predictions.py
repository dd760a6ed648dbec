"""What the heads say about each case: risk, survival in months, class."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import jax.numpy as jnp
import numpy as np
import pandas as pd
import scipy.special
from jaxtyping import Bool, Float, Integer

from modaltune_jax.breslow import fit_breslow
from modaltune_jax.losses import discrete_hazard
from modaltune_jax.scores import check_table, has_survival, site_index
from modaltune_jax.types import InputError


@dataclasses.dataclass(frozen=True)
class HeadLabels:
    """What the outputs of the heads stand for.

    Attributes:
      edges: site -> c - 1 interior edges of its survival bins in months; sites without bins are left out.
      horizons: site -> month at which its last bin ends, the longest follow-up of its train cases.
      class_names: all C classes of all sites, those of a site in the order of its subtypes.
      class_site: position in the list of sites of each class's site.
    """

    edges: Mapping[str, tuple[float, ...]]
    horizons: Mapping[str, float]
    class_names: tuple[str, ...]
    class_site: tuple[int, ...]

    def is_own(self, site: Integer[np.ndarray, "n"]) -> Bool[np.ndarray, "n classes"]:
        """Which classes belong to each site, given as position in the list of sites; none to -1."""
        return site[:, None] == np.asarray(self.class_site, np.int64)


def predict(
    outputs: Mapping[str, np.ndarray],
    table: pd.DataFrame,
    sites: Sequence[str],
    labels: HeadLabels,
    *,
    months: Sequence[float] = (12.0, 36.0, 60.0),
) -> pd.DataFrame:
    """One row a case that was embedded, with columns for the heads that there are.

    - case_id, site, split;
    - risk, of the risk head: log hazard ratio, higher is worse;
    - survival_12m, ...: probability to live that many months. By the hazard head; without one by the risk
      head, with the baseline hazard of the train cases of the case's site (`fit_breslow`). That of a risk
      head trained to rank has no scale, and then neither have these probabilities;
    - median_survival_months, by the same;
    - class: the most probable one of the case's own site, by the class head, without one by similarity; "" if
      it has none;
    - p_<class>: softmax over the classes of the case's own site, by the same.

    Args:
      outputs: of the model, a row a case, NaN for cases that were not embedded. Of these keys: "embedding"
        [n, t, e], "risk" [n], "hazard" [n, c] logits in the bins of the case's site, "classes" and
        "similarity" [n, C] logits over the classes of all sites.
      table: columns case_id, site, split, subtype, time (months, NaN unknown), event (1, 0, -1 unknown).
      sites: order of the sites that `labels.class_site` refers to.
      labels: what the outputs stand for.
      months: times to give survival for.

    Returns:
      Rows in the order of `table`. NaN is what cannot be estimated: survival beyond the longest follow-up of
      the site's train cases or at a site without train deaths, a median that is not reached by then, and
      the probability of another site's class.

    Raises:
      InputError: a missing column, or an output of another shape than table and labels say.
    """
    check_outputs(outputs, table, labels)
    rows = np.flatnonzero(_is_embedded(outputs, len(table)))
    outputs = {name: values[rows] for name, values in outputs.items()}
    table = table.iloc[rows].reset_index(drop=True)
    columns: dict[str, Any] = {name: table[name] for name in ("case_id", "site", "split")}
    if "risk" in outputs:
        columns["risk"] = outputs["risk"]
    if "risk" in outputs or "hazard" in outputs:
        survival, median = _survival(outputs, table, labels, np.asarray(months, np.float64))
        for month, column in zip(months, survival.T, strict=True):
            columns[f"survival_{month:g}m"] = column
        columns["median_survival_months"] = median
    if "classes" in outputs or "similarity" in outputs:
        logits, site = outputs["classes" if "classes" in outputs else "similarity"], site_index(table, sites)
        names = np.array([*labels.class_names, ""], object)
        columns["class"] = names[nearest_class(logits, site, labels)]
        columns |= _class_probabilities(logits, site, labels)
    return pd.DataFrame(columns)


def check_outputs(outputs: Mapping[str, np.ndarray], table: pd.DataFrame, labels: HeadLabels) -> None:
    """Checks what `predict` and `heads_table` are given.

    Raises:
      InputError: a missing column, or an output of another shape than table and labels say.
    """
    check_table(table, outputs.items())
    for name in sorted({"classes", "similarity"} & set(outputs)):
        if outputs[name].shape[1] != len(labels.class_names):
            raise InputError(
                f"{name} has logits of {outputs[name].shape[1]} classes, of which {len(labels.class_names)} "
                "have a name: give the classes that the model was built with"
            )
    for site, edges in labels.edges.items():
        if "hazard" in outputs and outputs["hazard"].shape[1] != len(edges) + 1:
            raise InputError(
                f"hazards of {outputs['hazard'].shape[1]} bins, but {site} has {len(edges) + 1}: give the "
                "edges that the model was trained with"
            )


def nearest_class(
    logits: Float[np.ndarray, "n classes"], site: Integer[np.ndarray, "n"], labels: HeadLabels
) -> Integer[np.ndarray, "n"]:
    """Position of the likeliest class of each case's own site; -1 without one, or if one is not finite."""
    own = labels.is_own(site)
    known = own.any(axis=1) & np.all(np.isfinite(logits) | ~own, axis=1)
    nearest = np.full(len(site), -1)
    nearest[known] = np.argmax(np.where(own, logits, -np.inf)[known], axis=1)
    return nearest


def _class_probabilities(
    logits: Float[np.ndarray, "n classes"], site: Integer[np.ndarray, "n"], labels: HeadLabels
) -> dict[str, Float[np.ndarray, "n"]]:
    """A column a class name; sites that have a class of the same name share one."""
    columns = {f"p_{name}": np.full(len(site), np.nan) for name in labels.class_names}
    for position in sorted(set(labels.class_site)):
        own = np.flatnonzero(np.equal(labels.class_site, position))
        rows = np.flatnonzero(site == position)
        probabilities = scipy.special.softmax(logits[np.ix_(rows, own)].astype(np.float64), axis=1)
        for c, values in zip(own, probabilities.T, strict=True):
            columns[f"p_{labels.class_names[c]}"][rows] = values
    return columns


def _is_embedded(outputs: Mapping[str, np.ndarray], num_cases: int) -> Bool[np.ndarray, "n"]:
    is_embedded = np.zeros(num_cases, bool)
    for values in outputs.values():
        is_embedded |= ~np.isnan(values.reshape(num_cases, -1)).all(axis=1)
    return is_embedded


def _survival(
    outputs: Mapping[str, np.ndarray],
    table: pd.DataFrame,
    labels: HeadLabels,
    months: Float[np.ndarray, "m"],
) -> tuple[Float[np.ndarray, "n m"], Float[np.ndarray, "n"]]:
    """Survival at `months` and median survival, site by site."""
    survival, median = np.full((len(table), len(months)), np.nan), np.full(len(table), np.nan)
    for site, rows in table.groupby("site").indices.items():
        if "hazard" not in outputs:
            predicted = _by_risk(outputs["risk"][rows], table.iloc[rows], months)
        elif site in labels.edges:
            predicted = _by_hazard(outputs["hazard"][rows], labels.edges[site], labels.horizons[site], months)
        else:
            continue
        survival[rows], median[rows] = predicted
    return survival, median


def _by_hazard(
    logits: Float[np.ndarray, "n c"],
    edges: tuple[float, ...],
    horizon: float,
    months: Float[np.ndarray, "m"],
) -> tuple[Float[np.ndarray, "n m"], Float[np.ndarray, "n"]]:
    inner = np.asarray(edges, np.float64)
    # All deaths of the last bin may lie on its left edge: then it has no length.
    end = None if edges and np.float32(horizon) <= np.float32(edges[-1]) else horizon
    on_device = jnp.asarray(logits)
    survival = discrete_hazard.survival_at(on_device, inner, months, horizon=end)
    median = discrete_hazard.median_survival(on_device, inner, horizon=end)
    return np.asarray(survival, np.float64), np.asarray(median, np.float64)


def _by_risk(
    risk: Float[np.ndarray, "n"], table: pd.DataFrame, months: Float[np.ndarray, "m"]
) -> tuple[Float[np.ndarray, "n m"], Float[np.ndarray, "n"]]:
    time, event = table["time"].to_numpy(np.float64), table["event"].to_numpy()
    train = (table["split"] == "train").to_numpy() & has_survival(time, event)
    if not np.any(event[train]):
        return np.full((len(risk), len(months)), np.nan), np.full(len(risk), np.nan)
    baseline = fit_breslow(risk[train], time[train], event[train])
    return baseline.survival(risk, months), baseline.median(risk)

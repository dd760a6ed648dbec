"""What a run knows of a cohort that it was not trained on, by two protocols.

"refitted": the model is frozen, and probes are fitted on the new cohort's own training cases, as ModalTune's
paper does (Ramanathan et al. 2025). "as trained": nothing is fitted on the new cohort; the probes fitted on
the run's own training cases and the heads are applied as they are.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd

from modaltune_jax import case_scores
from modaltune_jax.evaluation.survival_columns import with_survival
from modaltune_jax.heads_table import head_predictions
from modaltune_jax.inputs.records import Records
from modaltune_jax.predictions import HeadLabels
from modaltune_jax.probes import probe_predictions
from modaltune_jax.scores import judged_cases

REFITTED, AS_TRAINED = "refitted", "as trained"


def refitted_scores(embeddings: np.ndarray, other: Records, modalities: Sequence[str]) -> pd.DataFrame:
    """Case scores of probes that are fitted on the training cases of the other cohort.

    Args:
      embeddings: `[n, t, e]` of the other cohort.
      other: the cohort.
      modalities: what the model is shown; cases without any are neither fitted on nor scored.
    """
    table = judged_cases(other.table, modalities)
    predicted = probe_predictions(embeddings, table, other.sites)
    return with_survival(case_scores.of_predicted(predicted, table))


def same_classes(own: Records, other: Records) -> dict[str, str]:
    """Site of the other cohort -> site of the run with the same classes in the same order, if there is one.

    Among several, the one of the same name, else the first.
    """
    classes = {spec.name: spec.classes for spec in own.specs if spec.classes}
    found = {}
    for spec in other.specs:
        alike = [name for name, names in classes.items() if names == spec.classes]
        if alike:
            found[spec.name] = spec.name if spec.name in alike else alike[0]
    return found


def as_trained_scores(
    own: Records,
    own_outputs: Mapping[str, np.ndarray],
    other: Records,
    outputs: Mapping[str, np.ndarray],
    labels: HeadLabels,
    modalities: Sequence[str],
) -> pd.DataFrame:
    """Case scores of probes fitted on the run's training cases, and of its heads, for another cohort.

    Survival is predicted by what was fitted on all sites of the run ("pooled"). Classes are predicted only
    for sites whose classes a site of the run has too, by what was fitted there. The run's training cases are
    among the rows, with split "train": they say how long cases were followed and what risks are high.

    Args:
      own: cases of the run.
      own_outputs: what the model says of them, at least of the training cases.
      other: the other cohort, which shares no case with the training cases.
      outputs: the same of it.
      labels: what outputs of the heads stand for.
      modalities: what the model is shown; cases without any are neither fitted on nor scored.
    """
    matched = same_classes(own, other)
    train = own.rows("train")
    table = judged_cases(_joined(own.table.iloc[train], other.table, matched), modalities)
    said = {name: np.concatenate([own_outputs[name][train], values]) for name, values in outputs.items()}
    # Cases of sites without a match keep a place, for their survival, and belong to no site of the run.
    sites = (*own.sites, *sorted(set(table["site"]) - set(own.sites)))
    predicted = [
        *probe_predictions(said["embedding"], table, sites, ("subtype", "survival")),
        *head_predictions(said, table, sites, _with_bins(labels, own.sites, sites)),
    ]
    scores = case_scores.of_predicted(predicted, table)
    is_pooled = scores["scope"] == "pooled"
    keep = np.where(scores["target"] == "survival", is_pooled, scores["scope"].isin(matched.values()))
    scores = scores[keep].reset_index(drop=True)
    real = dict(zip(other.table["case_id"], other.table["site"], strict=True))
    is_other = scores["split"] != "train"
    scores.loc[is_other, "site"] = scores.loc[is_other, "case_id"].map(real)
    return with_survival(scores)


def _with_bins(labels: HeadLabels, own: Sequence[str], sites: Sequence[str]) -> HeadLabels:
    """Where all sites of the run share their bins, risks of further sites are on the same scale."""
    edges = {labels.edges.get(site) for site in own}
    (common,) = edges if len(edges) == 1 else (None,)
    if common is None:
        return labels
    return dataclasses.replace(labels, edges=dict.fromkeys(sites, common))


def _joined(train: pd.DataFrame, other: pd.DataFrame, matched: Mapping[str, str]) -> pd.DataFrame:
    """Training cases of the run and all cases of the other cohort, none of which is a training case here."""
    site, subtype = other["site"].map(matched), other["subtype"].where(other["site"].isin(matched), -1)
    moved = other.assign(
        # A site of the same name with other classes is another site.
        site=site.fillna("other " + other["site"]),
        subtype=subtype,
        split=other["split"].replace("train", "new train"),
    )
    return pd.concat([train, moved], ignore_index=True)

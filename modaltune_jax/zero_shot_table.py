"""Scores of slides against words: a CSV with one row a case, and a short table by site."""

from __future__ import annotations

import os
import textwrap
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd
import scipy.special
from jaxtyping import Float

from modaltune_jax.class_bank import ClassBank
from modaltune_jax.inputs.cohort import CohortSpec
from modaltune_jax.metrics.classification import balanced_accuracy

CASE_COLUMNS = ("case_id", "site", "split", "best")
"""In front of the columns of the classes."""


def score_table(
    bank: ClassBank,
    embeddings: Float[np.ndarray, "c d"],
    cases: pd.DataFrame,
    temperature: float | None = None,
) -> pd.DataFrame:
    """`CASE_COLUMNS` and a column a class, one row a case.

    Args:
      bank: the classes.
      embeddings: of the cases, in the space of the classes.
      cases: columns case_id, site and split.
      temperature: None leaves cosine similarities; a number makes them probabilities, their softmax after
        division by it.

    Raises:
      InputError: see `ClassBank.scores`.
    """
    scores = bank.scores(embeddings)
    best = np.asarray(bank.names)[scores.argmax(axis=1)]
    if temperature is not None:
        scores = scipy.special.softmax(scores.astype(np.float64) / temperature, axis=1)
    table = cases[["case_id", "site", "split"]].assign(best=best)
    return table.join(pd.DataFrame(scores, table.index, list(bank.names)))


def write(table: pd.DataFrame, path: Path) -> None:
    """Writes the table as CSV, whole or not at all, into a folder that is there."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    temporary.write_text(table.to_csv(index=False), encoding="utf-8")
    os.replace(temporary, path)


def to_text(
    table: pd.DataFrame, classes: Sequence[str], cases: pd.DataFrame, specs: Sequence[CohortSpec]
) -> str:
    """How many cases of each site have which best class.

    Where the classes are those of the site's cohort definition, the balanced accuracy over its labelled cases
    stands beside it.

    Args:
      table: from `score_table`.
      classes: names of all classes.
      cases: the same cases, with column subtype (-1 none).
      specs: cohort definitions of all sites.
    """
    spec_of = {spec.name: spec for spec in specs}
    counts = pd.crosstab(table["site"], table["best"]).reindex(
        index=table["site"].unique(), columns=list(classes), fill_value=0
    )
    counts["balanced accuracy"] = [
        _accuracy(table.loc[table["site"] == site, "best"], cases["subtype"], spec_of[site], classes)
        for site in counts.index
    ]
    lines = counts.rename_axis(index=None, columns=None).to_string()
    return f"best class of {len(table)} cases by site:\n\n{textwrap.indent(lines, '  ')}"


def _accuracy(best: pd.Series, subtype: pd.Series, spec: CohortSpec, classes: Sequence[str]) -> str:
    if set(classes) != set(spec.classes):
        return "-"
    labels = subtype.loc[best.index]
    predicted = best.map({name: i for i, name in enumerate(spec.classes)})[labels >= 0]
    estimate = balanced_accuracy(labels[labels >= 0].to_numpy(np.int64), predicted.to_numpy(np.int64))
    if not estimate.is_estimable:
        return f"- ({estimate.reason})"
    return f"{estimate.value:.3f} of {estimate.num} cases"

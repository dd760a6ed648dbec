r"""Labels as sentences: what the text encoder reads (ModalTune, Ramanathan et al. 2025).

The wording, down to the spaces, is that of the published training targets; a missing piece leaves its space.

>>> from modaltune_jax.inputs.cohort import CohortSpec
>>> brain = CohortSpec(name="gbmlgg", title="Glioma", organ="brain")
>>> labels = Labels(diagnosis="glioblastoma", time=12.0, event=1)
>>> general, diagnosis, stage, survival = sentences(labels, brain, (0.0, 8.4, 16.8, 31.2, 211.0))
>>> print(*general.split("; "), sep="\n")
Cancer location: brain
Cancer diagnosis: glioblastoma
    Survival status: The patient died between 8 and 17 months
>>> diagnosis
'Cancer location: brain; Cancer diagnosis: glioblastoma;'
>>> stage
'Cancer location: brain;    '
>>> survival
'Cancer location: brain;     Survival status: The patient died between 8 and 17 months'
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from modaltune_jax.inputs.ajcc import IN_SITU, UNASSESSED, ajcc_category
from modaltune_jax.inputs.cohort import CohortSpec
from modaltune_jax.inputs.transforms import time_bin
from modaltune_jax.types import Labels

# "stage zero" and the in-situ words have no published example.
_STAGING = {
    "stage": (
        "Overall stage",
        {
            "0": "stage zero",
            IN_SITU: "stage zero",
            "1": "stage one",
            "2": "stage two",
            "3": "stage three",
            "4": "stage four",
            UNASSESSED: "stage cannot be determined",
        },
    ),
    "t": (
        "Tumor stage status",
        {
            "0": "no tumor detected",
            IN_SITU: "tumor is not invasive",
            "1": "tumor stage one",
            "2": "tumor stage two",
            "3": "tumor stage three",
            "4": "tumor stage four",
            UNASSESSED: "tumor stage cannot be assessed",
        },
    ),
    "n": (
        "Lymph node status",
        {
            "0": "cancer has not spread to lymph nodes",
            "1": "node stage one",
            "2": "node stage two",
            "3": "node stage three",
            UNASSESSED: "node spread cannot be assessed",
        },
    ),
    "m": (
        "Distant metastasis status",
        {
            "0": "no metastasis detected",
            "1": "cancer has spread to distant organs",
            UNASSESSED: "metastasis status cannot be assessed",
        },
    ),
}


def sentences(labels: Labels, spec: CohortSpec, edges: Sequence[float] | None) -> tuple[str, str, str, str]:
    """The four sentences of a case: general, diagnosis, stage, survival.

    Args:
      labels: diagnosis cleaned, stage codes as in the source.
      spec: gives the organ.
      edges: survival bin edges of the case's site in months (`Transforms.survival_edges`); None, for a site
        without bins, leaves survival unsaid, as an unknown time or event does.

    Raises:
      InputError: a stage code that cannot be read.
    """
    location = f"Cancer location: {spec.organ};"
    diagnosis = f"Cancer diagnosis: {labels.diagnosis};" if labels.diagnosis else ""
    staging = [_staging_piece(field, getattr(labels, field)) for field in _STAGING]
    survival = _survival_piece(labels, edges)
    return (
        " ".join([location, diagnosis, *staging, survival]),
        " ".join([location, diagnosis]),
        " ".join([location, *staging]),
        " ".join([location, *staging, survival]),
    )


def task_sentences(labels: Labels, spec: CohortSpec, edges: Sequence[float] | None) -> tuple[str, str, str]:
    """The sentences that the tasks are trained on, in the order of `TASKS`; arguments as for `sentences`."""
    general, diagnosis, _, survival = sentences(labels, spec, edges)
    return general, diagnosis, survival


def survival_words(time: float, edges: Sequence[float]) -> str:
    """Where a time falls among the bins, in whole months.

    >>> edges = (0.0, 14.7, 27.2, 55.0, 282.7)
    >>> survival_words(3.0, edges), survival_words(14.7, edges), survival_words(300.0, edges)
    ('before 15 months', 'between 15 and 27 months', 'after 283 months')
    """
    index = time_bin(time, edges)
    if index == 0:
        return f"before {round(edges[1])} months"
    if index == len(edges) - 1:
        return f"after {round(edges[-1])} months"
    return f"between {round(edges[index])} and {round(edges[index + 1])} months"


def _staging_piece(field: str, code: str) -> str:
    category = ajcc_category(field, code)
    if not category:
        return ""
    title, words = _STAGING[field]
    return f"{title}: {words[category]};"


def _survival_piece(labels: Labels, edges: Sequence[float] | None) -> str:
    if edges is None or labels.event == -1 or math.isnan(labels.time):
        return ""
    outcome = "died" if labels.event == 1 else "was censored"
    return f"Survival status: The patient {outcome} {survival_words(labels.time, edges)}"

"""What a cohort has and lacks: modalities, classes, follow-up, genes and pathways, by site and split."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd
from jaxtyping import Float, Shaped

from modaltune_jax.inputs import ajcc
from modaltune_jax.inputs.cohort import CohortSpec
from modaltune_jax.inputs.genesets import GeneSets, read_gene_sets
from modaltune_jax.inspection.cohort_table import KNOWN, CohortTable, is_assessed


class Missing(NamedTuple):
    """How many cases of a site and split lack what."""

    site: str
    split: str
    num_cases: int
    num_slides: int
    missing: dict[str, int]


class ClassCount(NamedTuple):
    """How many cases of each split are of a class; the class "none" is of those without."""

    site: str
    name: str
    cases: dict[str, int]


class FollowUp(NamedTuple):
    """How long a site's cases were followed.

    Attributes:
      num_known: cases with time and event.
      num_events: deaths among them.
      median_months: median follow-up by the reverse Kaplan-Meier estimate, None if it is not reached.
      longest_months: the longest time.
      num_zero: cases with a time of 0.
    """

    site: str
    num_known: int
    num_events: int
    median_months: float | None
    longest_months: float | None
    num_zero: int


class GeneCoverage(NamedTuple):
    """What was measured at a site.

    Attributes:
      num_cases: with expression.
      num_genes: measured in at least one of them.
      num_all_genes: in the data set.
      share_missing: of the values of those genes in those cases.
    """

    site: str
    num_cases: int
    num_genes: int
    num_all_genes: int
    share_missing: float


class SetCoverage(NamedTuple):
    """How many genes a gene set has, None where records do not tell, and how many the data set has."""

    name: str
    num_genes: int | None
    num_measured: int


class Variable(NamedTuple):
    """A clinical value, of the labels or a further one.

    Attributes:
      kind: "code", "number" or "category".
      num_missing: cases without it; not assessable ("NX") counts as missing.
      values: up to eight categories with their counts, most frequent first; of a number least, median, most.
    """

    name: str
    kind: str
    num_missing: int
    values: Mapping[str, float]


@dataclasses.dataclass(frozen=True)
class CohortFacts:
    """A cohort in numbers."""

    num_cases: int
    slides_per_case: dict[int, int]
    missing: tuple[Missing, ...]
    classes: tuple[ClassCount, ...]
    follow_up: tuple[FollowUp, ...]
    genes: tuple[GeneCoverage, ...]
    gene_sets: tuple[SetCoverage, ...]
    variables: tuple[Variable, ...]


def cohort_facts(table: CohortTable, gene_sets: Sequence[SetCoverage] = ()) -> CohortFacts:
    """Counts everything by site, in the order of the definitions, and by split."""
    cases = table.cases
    by_site = [(spec, cases[cases["site"] == spec.name]) for spec in table.specs]
    num_slides, num_cases = np.unique(cases["num_slides"].to_numpy(int), return_counts=True)
    return CohortFacts(
        num_cases=len(cases),
        slides_per_case=dict(zip(num_slides.tolist(), num_cases.tolist(), strict=True)),
        missing=tuple(row for spec, block in by_site for row in _missing(spec.name, block)),
        classes=tuple(row for spec, block in by_site for row in _class_counts(spec, block)),
        follow_up=tuple(_follow_up(spec.name, block) for spec, block in by_site),
        genes=tuple(
            _gene_coverage(spec.name, table.expression[block.index[block["expression"]]])
            for spec, block in by_site
            if table.genes
        ),
        gene_sets=tuple(gene_sets),
        variables=_variables(table),
    )


def set_coverage(path: Path, genes: Sequence[str]) -> tuple[SetCoverage, ...]:
    """How much of each gene set of a file is among `genes`.

    Raises:
      InputError: as `read_gene_sets`.
    """
    measured = read_gene_sets(path, genes)
    # Every word of the file as a gene, so that the groups are whole.
    words = pd.read_csv(path, dtype=str, keep_default_na=False).to_numpy().ravel()
    whole = read_gene_sets(path, list(dict.fromkeys(words)))
    return tuple(
        SetCoverage(name, len(all_genes), len(found))
        for name, all_genes, found in zip(whole.names, whole.groups, measured.groups, strict=True)
    )


def packed_coverage(gene_sets: GeneSets) -> tuple[SetCoverage, ...]:
    """The gene sets of records, which keep of each set only the genes that the data set has."""
    return tuple(
        SetCoverage(name, None, len(group))
        for name, group in zip(gene_sets.names, gene_sets.groups, strict=True)
    )


def median_follow_up(time: Float[np.ndarray, "n"], event: Shaped[np.ndarray, "n"]) -> float | None:
    """Median follow-up in months by the reverse Kaplan-Meier estimate (Schemper and Smith 1996).

    The Kaplan-Meier estimate of the time to censoring, deaths counting as censored: short lives do not
    make the follow-up look short. None if fewer than half would have been censored by the last time.
    """
    still_followed = 1.0
    for moment in np.unique(time[event == 0]):
        num_at_risk = int((time >= moment).sum())
        still_followed *= 1 - int(((time == moment) & (event == 0)).sum()) / num_at_risk
        if still_followed <= 0.5:
            return float(moment)
    return None


def _missing(site: str, block: pd.DataFrame) -> list[Missing]:
    return [
        Missing(
            site,
            split,
            num_cases=len(rows),
            num_slides=int(rows["num_slides"].sum()),
            missing={name: int((~rows[name].astype(bool)).sum()) for name in KNOWN},
        )
        for split, rows in _by_split(block)
    ]


def _by_split(block: pd.DataFrame) -> list[tuple[str, pd.DataFrame]]:
    order = {"train": 0, "val": 1, "test": 2}
    splits = sorted(block["split"].unique(), key=lambda split: (order.get(split, 3), split))
    return [(split, block[block["split"] == split]) for split in splits]


def _class_counts(spec: CohortSpec, block: pd.DataFrame) -> list[ClassCount]:
    names = {i: name for i, name in enumerate(spec.classes)} | {-1: "none"}
    return [
        ClassCount(
            spec.name, name, {split: int((rows["subtype"] == i).sum()) for split, rows in _by_split(block)}
        )
        for i, name in names.items()
    ]


def _follow_up(site: str, block: pd.DataFrame) -> FollowUp:
    known = block[block["survival"].astype(bool)]
    time, event = known["time"].to_numpy(np.float64), known["event"].to_numpy(int)
    return FollowUp(
        site,
        num_known=len(known),
        num_events=int((event == 1).sum()),
        median_months=median_follow_up(time, event),
        longest_months=float(time.max()) if len(time) else None,
        num_zero=int((time == 0).sum()),
    )


def _gene_coverage(site: str, expression: Float[np.ndarray, "n g"]) -> GeneCoverage:
    is_measured = np.isfinite(expression)
    of_gene = is_measured.any(axis=0)
    values = is_measured[:, of_gene]
    return GeneCoverage(
        site,
        num_cases=len(expression),
        num_genes=int(of_gene.sum()),
        num_all_genes=expression.shape[1],
        share_missing=float(1 - values.mean()) if values.size else 0.0,
    )


def _variables(table: CohortTable) -> tuple[Variable, ...]:
    cases = table.cases
    codes = [_code_variable(field, cases[field]) for field in ajcc.FIELDS]
    further = sorted({name for values in table.variables for name in values})
    columns = [[values.get(name) for values in table.variables] for name in further]
    return (
        *codes,
        _number_variable("age", cases["age"].to_numpy(np.float64)),
        *(_variable(name, values) for name, values in zip(further, columns, strict=True)),
    )


def _code_variable(field: str, codes: pd.Series) -> Variable:
    is_known = np.array([is_assessed(field, code) for code in codes], bool)
    return Variable(field, "code", int((~is_known).sum()), _most_common(codes[is_known]))


def _variable(name: str, values: list[float | str | None]) -> Variable:
    if any(isinstance(value, str) for value in values):
        words = pd.Series([value for value in values if value is not None], dtype=object)
        return Variable(name, "category", len(values) - len(words), _most_common(words))
    return _number_variable(name, np.array([math.nan if v is None else v for v in values], np.float64))


def _number_variable(name: str, values: Float[np.ndarray, "n"]) -> Variable:
    known = values[np.isfinite(values)]
    summary = {}
    if len(known):
        summary = {"least": known.min(), "median": np.median(known), "most": known.max()}
    return Variable(
        name, "number", len(values) - len(known), {key: float(value) for key, value in summary.items()}
    )


def _most_common(words: pd.Series) -> dict[str, int]:
    return {str(word): int(count) for word, count in words.value_counts().head(8).items()}

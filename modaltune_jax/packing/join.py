"""Slides, labels, expression and splits of a cohort joined into cases, with a count of every step.

A case of the cohort is packed or quarantined with a reason; nothing else can happen to it::

    what a case has             labels were given     no labels were given
    slides, no row of labels    quarantined           a case with unknown labels
    slides or expression        a case                a case
    labels alone                quarantined           -

Cases that a source gives to a project of no cohort asked for are not of the cohort: they are counted, not
quarantined. So is expression of cases that have neither slides nor labels here.
"""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from modaltune_jax.inputs.cohort import CohortSpec, check_cases, clean_diagnosis
from modaltune_jax.inputs.counts import Count, some
from modaltune_jax.inputs.genesets import GeneSets, read_gene_sets
from modaltune_jax.inputs.readers.slide_file import SlideFile, SlideOptions
from modaltune_jax.inputs.splits import Splits
from modaltune_jax.inputs.tables.read import ExpressionTable, LabelTable
from modaltune_jax.packing.near_misses import NearMisses
from modaltune_jax.packing.planned_case import PlannedCase, Quarantined
from modaltune_jax.types import InputError, Labels

_TEXTS = ("stage", "t", "n", "m")


@dataclasses.dataclass(frozen=True, eq=False)
class CohortSource:
    """Everything that is known of a cohort before it is joined.

    Attributes:
      specs: one a site.
      slides: feature files, of different ids.
      options: how they are read.
      labels, expression: tables by case; None if not given.
      gene_sets_path: CSV of pathways; None if not given.
      splits: split of every case; None takes them from the labels where these have any.
      case_of: slide id -> case id; `LabelTable.slides` decides where it lists the slide.
    """

    specs: tuple[CohortSpec, ...]
    slides: tuple[SlideFile, ...]
    options: SlideOptions
    labels: LabelTable | None
    expression: ExpressionTable | None
    gene_sets_path: Path | None
    splits: Splits | None
    case_of: Callable[[str], str]


@dataclasses.dataclass(frozen=True, eq=False)
class Joined:
    """Cases to pack, in the order of their ids; what is left out; what every step did.

    Attributes:
      cases, quarantined, counts: as said; every case of the cohort is in exactly one of the first two.
      genes: names in the order of `PlannedCase.expression`.
      gene_sets: groups of `genes`; none if no file of them was given.
      variables: name -> "number" or "category", of the labels' further columns.
    """

    cases: tuple[PlannedCase, ...]
    quarantined: tuple[Quarantined, ...]
    counts: tuple[Count, ...]
    genes: tuple[str, ...]
    gene_sets: GeneSets
    variables: Mapping[str, str]


def join(source: CohortSource) -> Joined:
    """Joins what belongs to one case by its id.

    Raises:
      InputError: a wrong gene set file, or no case is left; the message shows ids of all sides.
    """
    steps = _Steps(source)
    slides = steps.slides_of_cases()
    expression, genes, gene_sets = steps.expression_of_cases(slides)
    ids = steps.cases_of_cohort(slides, expression)
    cases = [case for id in ids if (case := steps.case(id, slides.get(id, ()), expression.get(id)))]
    steps.count_labels(cases)
    steps.count(
        "cases of the cohort to cases to pack", ids, [case.id for case in cases], "the others are quarantined"
    )
    if not cases:
        raise InputError(steps.nothing_left(slides, expression))
    return Joined(
        tuple(cases), tuple(steps.quarantined), tuple(steps.counts), genes, gene_sets, _kinds(source.labels)
    )


class _Steps:
    """The steps of one join, and the lists they add to."""

    def __init__(self, source: CohortSource):
        self.source = source
        self.frame = pd.DataFrame() if source.labels is None else source.labels.frame
        self.rows = self.frame.to_dict("index")
        self.variables = {} if source.labels is None else source.labels.variables.to_dict("index")
        self.counts: list[Count] = [
            *([] if source.labels is None else source.labels.counts),
            *([] if source.expression is None else source.expression.counts),
        ]
        self.quarantined: list[Quarantined] = []
        self.site_of = {project: spec.name for spec in source.specs for project in spec.projects}
        self.spec_of = {spec.name: spec for spec in source.specs}
        self.splits = source.splits.of if source.splits is not None else _column(self.frame, "split")
        self.classless: dict[str, str] = {}
        self._near_labels, self._near_splits = NearMisses(self.rows), NearMisses(self.splits)

    def slides_of_cases(self) -> dict[str, list[SlideFile]]:
        """Slides by case; those whose name tells no case are quarantined."""
        labels = self.source.labels
        cases: dict[str, list[SlideFile]] = {}
        nameless = []
        for slide in self.source.slides:
            try:
                case_id = (labels and labels.case_of(slide.id)) or self.source.case_of(slide.id)
            except InputError as error:
                nameless.append(slide.id)
                self.quarantined.append(Quarantined("", slide.id, str(slide.path), str(error)))
            else:
                cases.setdefault(case_id, []).append(slide)
        after = len(self.source.slides) - len(nameless)
        reason = "the others have names that tell no case" if nameless else ""
        self.counts.append(
            Count("slides to slides with a case", len(self.source.slides), after, reason, some(nameless))
        )
        self.counts.append(Count("slides with a case to cases with slides", after, len(cases)))
        return cases

    def expression_of_cases(
        self, slides: Mapping[str, object]
    ) -> tuple[dict[str, np.ndarray | None], tuple[str, ...], GeneSets]:
        """Expression by case, None where no gene was measured; its genes, and their groups."""
        if self.source.expression is None:
            return {}, (), GeneSets((), ())
        frame = self.source.expression.frame
        if self.source.labels is not None:
            here = [id for id in frame.index if id in self.rows or id in slides]
            reason = "the others have neither slides nor labels here"
            self.count("cases with expression to those with slides or labels", frame.index, here, reason)
            frame = frame.loc[here]
        gene_sets = GeneSets((), ())
        if self.source.gene_sets_path is not None:
            gene_sets = read_gene_sets(self.source.gene_sets_path, list(frame.columns))
            used = np.unique(np.concatenate(gene_sets.groups))
            reason = "the others are in no gene set"
            self.count("genes to genes of gene sets", frame.columns, frame.columns[used], reason)
            frame = frame.iloc[:, used]
            groups = tuple(np.searchsorted(used, group).astype(np.int32) for group in gene_sets.groups)
            gene_sets = GeneSets(gene_sets.names, groups)
        values = frame.to_numpy(np.float32)
        measured = ~np.isnan(values).all(axis=1)
        reason = "the others have no measured gene"
        self.count(
            "cases with expression to those with measured genes", frame.index, frame.index[measured], reason
        )
        of = {
            id: row if known else None for id, row, known in zip(frame.index, values, measured, strict=True)
        }
        return of, tuple(frame.columns), gene_sets

    def cases_of_cohort(self, slides: Mapping[str, object], expression: Mapping[str, object]) -> list[str]:
        """Ids of all cases, without those of projects that no cohort asked for takes."""
        ids = sorted({*self.rows, *slides, *expression})
        if not self.site_of:
            return ids
        others: dict[str, str] = {}
        for id in ids:
            project = self.rows.get(id, {}).get("project", "")
            if project and project not in self.site_of:
                others[id] = project
        names = ", ".join(spec.name for spec in self.source.specs)
        reason = (
            f"the others are of projects ({', '.join(some(sorted(set(others.values()))))}) not of {names}"
        )
        chosen = [id for id in ids if id not in others]
        self.count("cases to cases of the cohort's projects", ids, chosen, reason)
        return chosen

    def case(self, id: str, slides: Iterable[SlideFile], expression: np.ndarray | None) -> PlannedCase | None:
        """The case, or None after its reason went into quarantine."""
        slides = tuple(slides)
        row = self.rows.get(id, {})
        try:
            if not slides and expression is None:
                raise InputError("has neither slides nor expression, so there is nothing to see")
            if self.source.labels is not None and not row:
                raise InputError(f"is not in the labels{self._near_labels.hint(id)}")
            site, split = self._site(row), self._split(id)
            case = PlannedCase(
                id, site, split, slides, self._labels(id, row, site), self._variables(id), expression
            )
            check_cases(
                [dataclasses.replace(case, split=split or "train").with_slides(())], self.source.specs
            )
        except InputError as error:
            reason = str(error).removeprefix(f"case {id}: ")
            self.quarantined.append(Quarantined(id, "", "", reason))
            return None
        return case

    def count(self, step: str, before: Iterable[str], after: Iterable[str], reason: str) -> None:
        """Notes a step from ids to some of them; the reason and the examples are of those left out."""
        before, after = list(before), set(after)
        lost = [id for id in before if id not in after]
        self.counts.append(Count(step, len(before), len(after), reason if lost else "", some(lost)))

    def count_labels(self, cases: list[PlannedCase]) -> None:
        """Notes how many cases have which label."""
        if self.source.labels is None:
            return
        given = [case.id for case in cases if case.labels.diagnosis]
        classed = [case.id for case in cases if case.labels.subtype >= 0]
        words = sorted({words for id, words in self.classless.items() if id in set(given)})
        reason = "the others have diagnoses without a class: " + "; ".join(repr(w) for w in words)
        self.count("cases with a diagnosis to cases with a class", given, classed, reason)
        timed = [case.id for case in cases if case.labels.event >= 0]
        self.count(
            "cases to cases with an outcome",
            [case.id for case in cases],
            timed,
            "the others have no known time and event",
        )
        if self.source.splits is not None:
            known = {*self.rows, *(case.id for case in cases)}
            reason = "the others are in the splits but nowhere else"
            self.count("cases of the splits to cases known", self.splits, known & set(self.splits), reason)

    def nothing_left(self, slides: Iterable[str], expression: Iterable[str]) -> str:
        """Why no case is left, with ids of all sides."""
        sides = {
            "slides": [slide.id for slide in self.source.slides],
            "slides give cases": slides,
            "labels": self.rows,
            "expression": expression,
            "splits": self.splits,
        }
        shown = "; ".join(f"{side} {', '.join(some(ids)) or 'none'}" for side, ids in sides.items())
        emptied = (str(count) for count in self.counts if count.before and not count.after)
        reasons = Counter(line.reason for line in self.quarantined).most_common(1)
        why = reasons[0][0] if reasons else next(emptied, "nothing was given")
        return (
            f"no case is left after the join: {why}; make the ids agree, with --case-of-slide for the slides"
            f" ({shown})"
        )

    def _site(self, row: Mapping[str, str]) -> str:
        if len(self.spec_of) == 1:
            return next(iter(self.spec_of))
        project = row.get("project", "")
        if project not in self.site_of:
            raise InputError(
                f"has no project, so it may be of any of {', '.join(self.spec_of)};"
                " give a column project, or pack one cohort at a time"
            )
        return self.site_of[project]

    def _split(self, id: str) -> str:
        if not self.splits:
            return ""
        if not self.splits.get(id):
            raise InputError(f"is in no split{self._near_splits.hint(id)}")
        return self.splits[id]

    def _labels(self, id: str, row: Mapping[str, Any], site: str) -> Labels:
        if not row:
            return Labels()
        spec = self.spec_of[site]
        raw = str(row.get("diagnosis", ""))
        diagnosis = clean_diagnosis(raw, spec, str(row.get("project", "")))
        subtype = spec.subtype(diagnosis)
        if diagnosis and subtype < 0:
            self.classless[id] = diagnosis
        return Labels(
            diagnosis=diagnosis,
            subtype=subtype,
            time=float(row.get("time", np.nan)),
            event=int(row.get("event", -1)),
            age=float(row.get("age", np.nan)),
            **{name: str(row.get(name, "")) for name in _TEXTS},
        )

    def _variables(self, id: str) -> dict[str, float | str]:
        return {str(name): value for name, value in self.variables.get(id, {}).items() if not pd.isna(value)}


def _column(frame: pd.DataFrame, name: str) -> dict[str, str]:
    """Case -> value where there is one."""
    if name not in frame:
        return {}
    return {str(id): value for id, value in frame[name].items() if value}


def _kinds(labels: LabelTable | None) -> dict[str, str]:
    """Which further columns are numbers and which categories."""
    if labels is None:
        return {}
    return {
        str(name): "number" if pd.api.types.is_numeric_dtype(column) else "category"
        for name, column in labels.variables.items()
    }

"""Slides, labels, expression and splits of a cohort joined into cases, with a count of every step.

A case of the cohort is packed or quarantined with a reason; nothing else can happen to it::

    what a case has             labels were given     no labels were given
    slides, no row of labels    quarantined           a case with unknown labels
    slides or expression        a case                a case
    labels alone                quarantined           -

Cases that a source gives to a project of no cohort asked for are not of the cohort: they are counted, not
quarantined. So is expression of cases that have neither slides nor labels here. A project that is only
spelled otherwise than the cohort's is taken for a mistake, and its cases are quarantined.
"""

from __future__ import annotations

import contextlib
import dataclasses
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from modaltune_jax.inputs.barcodes import is_normal_tissue
from modaltune_jax.inputs.cohort import CohortSpec, check_cases, clean_diagnosis
from modaltune_jax.inputs.counts import Count, some
from modaltune_jax.inputs.genesets import GeneSets, read_gene_sets
from modaltune_jax.inputs.readers.slide_file import SlideFile, SlideOptions
from modaltune_jax.inputs.splits import Splits
from modaltune_jax.inputs.tables.read import ExpressionTable, LabelTable
from modaltune_jax.packing.case_counts import (
    count_of,
    filled_split_counts,
    given_split_counts,
    label_counts,
)
from modaltune_jax.packing.near_misses import NearMisses
from modaltune_jax.packing.planned_case import PlannedCase, Quarantined
from modaltune_jax.types import InputError, Labels

_TEXTS = ("stage", "t", "n", "m")
_OF_NO_CASE = "cases with expression to those with slides or labels"
_OF_OTHER_PROJECTS = "cases to cases of the cohort's projects"


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
      is_rule_given: the user chose `case_of`, so that labels that say otherwise are an error.
    """

    specs: tuple[CohortSpec, ...]
    slides: tuple[SlideFile, ...]
    options: SlideOptions
    labels: LabelTable | None
    expression: ExpressionTable | None
    gene_sets_path: Path | None
    splits: Splits | None
    case_of: Callable[[str], str]
    is_rule_given: bool = False


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

    @property
    def unlisted(self) -> tuple[Count, ...]:
        """The counts of cases that were left out without being of the cohort, and so without a quarantine."""
        steps = (_OF_NO_CASE, _OF_OTHER_PROJECTS)
        return tuple(count for count in self.counts if count.step in steps and count.after < count.before)


def join(source: CohortSource) -> Joined:
    """Joins what belongs to one case by its id.

    Raises:
      InputError: a wrong gene set file, slides whose case the labels and the rule given see differently, or
        no case is left; the message shows ids of all sides.
    """
    steps = _Steps(source)
    slides = steps.slides_of_cases()
    expression, genes, gene_sets = steps.expression_of_cases(slides)
    ids = steps.cases_of_cohort(slides, expression)
    cases = [case for id in ids if (case := steps.case(id, slides.get(id, ()), expression.get(id)))]
    steps.count_labels(cases)
    steps.count_splits(cases)
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
        self._near_seen = NearMisses(())
        self.splits = source.splits.of if source.splits is not None else _column(self.frame, "split")
        self.classless: dict[str, str] = {}
        self._near_labels, self._near_splits = NearMisses(self.rows), NearMisses(self.splits)
        self._near_projects = NearMisses(self.site_of)

    def slides_of_cases(self) -> dict[str, list[SlideFile]]:
        """Slides by case; those whose name tells no case are quarantined."""
        self._check_owners()
        cases: dict[str, list[SlideFile]] = {}
        nameless = []
        for slide in self.source.slides:
            try:
                case_id = self._listed_case(slide.id) or self.source.case_of(slide.id)
            except InputError as error:
                nameless.append(slide.id)
                reason = str(error).removeprefix(f"slide {slide.id}: ")
                reason = reason.removeprefix(f"slide or case {slide.id!r}: ")
                self.quarantined.append(Quarantined("", slide.id, str(slide.path), reason))
            else:
                cases.setdefault(case_id, []).append(slide)
        after = len(self.source.slides) - len(nameless)
        self._leave_out_normal_tissue(cases)
        reason = f"the others have names that tell no case{self._meant_rule(nameless)}"
        slides = [slide.id for slide in self.source.slides]
        with_case = set(slides).difference(nameless)
        self.count("slides to slides with a case", slides, with_case, reason, suspect=after < len(nameless))
        self.counts.append(
            Count("slides with a case to cases with slides", after, sum(map(bool, cases.values())))
        )
        return cases

    def _leave_out_normal_tissue(self, cases: dict[str, list[SlideFile]]) -> None:
        """TCGA has slides of normal tissue of many patients; what they show is not the patient's tumour."""
        everything = [slide for slides in cases.values() for slide in slides]
        kept = []
        for case_id, slides in cases.items():
            normal = [slide for slide in slides if is_normal_tissue(slide.id)]
            reason = "its barcode says normal tissue (sample type 10 to 19); leave it out, or rename it"
            self.quarantined += [Quarantined(case_id, slide.id, str(slide.path), reason) for slide in normal]
            cases[case_id] = [slide for slide in slides if slide not in normal]
            kept += [slide.id for slide in cases[case_id]]
        if len(kept) < len(everything):
            reason = "the others are of normal tissue and quarantined"
            self.count("slides to slides of tumours", [slide.id for slide in everything], kept, reason)

    def _meant_rule(self, nameless: Collection[str]) -> str:
        if any(id in self.rows for id in nameless):
            return "; they are cases of the labels, so say --case-of-slide name"
        return ""

    def _listed_case(self, slide_id: str) -> str:
        return "" if self.source.labels is None else self.source.labels.case_of(slide_id)

    def _check_owners(self) -> None:
        """Compares what the labels and what the rule say of a slide's case: the labels decide."""
        listed = {slide.id: case for slide in self.source.slides if (case := self._listed_case(slide.id))}
        others = {}
        for id, case in listed.items():
            # A rule that knows nothing of a slide does not contradict its labels.
            with contextlib.suppress(InputError):
                if (other := self.source.case_of(id)) != case:
                    others[id] = f"{id}: {case}, not {other}"
        if others and self.source.is_rule_given:
            raise InputError(
                "the labels give slides another case than --case-of-slide does"
                f" ({'; '.join(some(others.values()))}; {len(others)} in all): leave --case-of-slide out to"
                " follow the labels, or take the labels without their slides to follow the rule"
            )
        if listed:
            reason = "the names of the others give another case; the labels decide" if others else ""
            agree = [id for id in listed if id not in others]
            step = "slides whose case the labels list to those whose name says the same"
            self.counts.append(
                Count(step, len(listed), len(agree), reason, some(others.values()), suspect=bool(others))
            )

    def expression_of_cases(
        self, slides: Mapping[str, object]
    ) -> tuple[dict[str, np.ndarray | None], tuple[str, ...], GeneSets]:
        """Expression by case, None where no gene was measured; its genes, and their groups."""
        if self.source.expression is None:
            return {}, (), GeneSets((), ())
        frame = self.source.expression.frame
        if self.source.labels is not None:
            here = [id for id in frame.index if id in self.rows or id in slides]
            reason, nearly = _strangers(frame, {*self.rows, *slides})
            self.count(_OF_NO_CASE, frame.index, here, reason, suspect=nearly or not here)
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
        self._near_seen = NearMisses([*slides, *expression])
        if not self.site_of:
            return ids
        others: dict[str, str] = {}
        for id in ids:
            project = self.rows.get(id, {}).get("project", "")
            if project and project not in self.site_of and not self._near_projects.hint(project):
                others[id] = project
        names = ", ".join(spec.name for spec in self.source.specs)
        reason = (
            f"the others are of projects ({', '.join(some(sorted(set(others.values()))))}) not of {names}"
        )
        chosen = [id for id in ids if id not in others]
        # Expression often is of all cancers, but slides are gathered for a purpose.
        seen = [id for id in others if id in slides]
        if seen:
            reason += f"; with slides here: {len(seen)} of them"
        self.count(_OF_OTHER_PROJECTS, ids, chosen, reason, suspect=bool(seen))
        return chosen

    def case(self, id: str, slides: Iterable[SlideFile], expression: np.ndarray | None) -> PlannedCase | None:
        """The case, or None after its reason went into quarantine."""
        slides = tuple(slides)
        row = self.rows.get(id, {})
        try:
            if not slides and expression is None:
                hint = self._near_seen.hint(id)
                raise InputError(f"has neither slides nor expression, so there is nothing to see{hint}")
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

    def count(
        self, step: str, before: Iterable[str], after: Iterable[str], reason: str, *, suspect: bool = False
    ) -> None:
        """Notes a step from ids to some of them; the reason and the examples are of those left out."""
        self.counts.append(count_of(step, before, after, reason, suspect=suspect))

    def count_labels(self, cases: list[PlannedCase]) -> None:
        """Notes how many cases have which label."""
        if self.source.labels is not None:
            self.counts += label_counts(cases, self.source.specs, self.classless)

    def count_splits(self, cases: list[PlannedCase]) -> None:
        """Notes what the splits leave over, whom the labels put elsewhere, and splits without cases."""
        if self.source.splits is not None:
            known = {*self.rows, *(case.id for case in cases)}
            self.counts += given_split_counts(self.splits, known, _column(self.frame, "split"))
        self.counts += filled_split_counts(cases)

    def nothing_left(self, slides: Iterable[str], expression: Collection[str]) -> str:
        """Why no case is left, with ids of all sides."""
        sides = {
            "slides": [slide.id for slide in self.source.slides],
            "slides give cases": slides,
            "labels": self.rows,
            "expression": () if self.source.expression is None else self.source.expression.frame.index,
            "splits": self.splits,
        }
        shown = "; ".join(f"{side} {', '.join(some(ids)) or 'none'}" for side, ids in sides.items())
        return f"no case is left after the join: {self._why_nothing(expression)} ({shown})"

    def _why_nothing(self, expression: Collection[str]) -> str:
        nameless = [line for line in self.quarantined if not line.case_id]
        # Slides that belong to nobody are why their cases seem to have none.
        if nameless and len(nameless) == len(self.source.slides):
            reason, named = nameless[0].reason, self._meant_rule([line.slide_id for line in nameless])
            reason = reason.partition(";")[0] + named if named else reason
            return f"slide {nameless[0].slide_id} (as all {len(nameless)}) {reason}"
        emptied = [count for count in self.counts if count.before and not count.after]
        strangers = [count for count in emptied if count.step == _OF_NO_CASE]
        if strangers and not expression:
            why = str(strangers[0])
        elif reasons := Counter(line.reason for line in self.quarantined if line.case_id).most_common(1):
            why = reasons[0][0]
        else:
            why = str(emptied[0]) if emptied else "nothing was given"
        return f"{why}; the ids of all sides must agree, those of slides by --case-of-slide"

    def _site(self, row: Mapping[str, str]) -> str:
        project = row.get("project", "")
        if self.site_of and project and project not in self.site_of:
            hint = self._near_projects.hint(project)
            raise InputError(f"is of project {project!r}, which no cohort asked for has{hint}")
        if len(self.spec_of) == 1:
            return next(iter(self.spec_of))
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


def _strangers(expression: pd.DataFrame, known: set[str]) -> tuple[str, bool]:
    """Why expression of some ids belongs to no known case, and whether that looks like a mistake."""
    reason = "the others have neither slides nor labels here"
    if not known.isdisjoint(expression.columns):
        return f"{reason}, but columns have names of cases: csv: takes a row a case, xena: a row a gene", True
    near = NearMisses(known.difference(expression.index))
    for id in sorted(set(expression.index) - known):
        if hint := near.hint(id):
            return f"{reason}, as {id}{hint}", True
    return reason, False


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

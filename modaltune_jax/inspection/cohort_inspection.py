"""Inspections of what there is: feature files alone, a cohort of them, packed records, the TCGA benchmark."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import pandas as pd

from modaltune_jax.inputs.cohort import CohortSpec, check_cases, find_spec
from modaltune_jax.inputs.readers import tcga_bench
from modaltune_jax.inputs.readers.slide_file import SlideFile, SlideOptions
from modaltune_jax.inputs.records import Records
from modaltune_jax.inspection.cohort_checks import (
    SetCoverage,
    cohort_facts,
    packed_coverage,
    set_coverage,
)
from modaltune_jax.inspection.cohort_table import CohortTable, tabulate
from modaltune_jax.inspection.inspection import Inspection, Looked, look, units, worst_first
from modaltune_jax.inspection.leakage import Leak, find_leaks
from modaltune_jax.inspection.packing_forecast import empty_cases, mark_misfits
from modaltune_jax.inspection.slide_sources import SlideSource, benchmark_slides, feature_files, packed_slides
from modaltune_jax.packing.join import CohortSource, join
from modaltune_jax.packing.planned_case import Quarantined
from modaltune_jax.types import Case, InputError

_SIGNATURES = "signature_groups.csv"


class Looking(NamedTuple):
    """How slides are looked at; see `inspection.look`."""

    sample: int | None = None
    workers: int | None = None
    progress: bool = False


class Inspected(NamedTuple):
    """An inspection and what pictures of it need.

    Attributes:
      looked: slides, worst first.
      source: to read them again.
      table: the cases; None where nothing but slides is known.
    """

    inspection: Inspection
    looked: list[Looked]
    source: SlideSource
    table: CohortTable | None


class _Cases(NamedTuple):
    """What is known besides slides.

    Attributes:
      projects: case id -> project, where it is known.
    """

    table: CohortTable
    gene_sets: tuple[SetCoverage, ...] = ()
    projects: Mapping[str, str] = {}


def inspect_features(
    files: Sequence[SlideFile], options: SlideOptions, paths: Sequence[str], looking: Looking
) -> Inspected:
    """Feature files of which nothing else is known."""
    note = "nothing is known of the cases: --cohort, --labels, --expression and --splits tell"
    return _inspect(
        feature_files(files, options, {}), None, looking, paths=paths, kind="features", notes=(note,)
    )


def inspect_cohort(source: CohortSource, paths: Sequence[str], looking: Looking) -> Inspected:
    """Feature files with their tables.

    Raises:
      InputError: as `join`.
    """
    joined = join(source)
    case_of = {slide.id: case.id for case in joined.cases for slide in case.slides}
    needed = []
    if not all(case.split for case in joined.cases):
        needed.append("the cases have no splits yet, give --splits FILE or --split RECIPE")
    if joined.genes and not source.gene_sets_path:
        needed.append("expression needs --gene-sets FILE, as the model sees pathways")
    cases = _Cases(
        tabulate(joined.cases, joined.genes, source.specs),
        set_coverage(source.gene_sets_path, joined.genes) if source.gene_sets_path else (),
        {} if source.labels is None else source.labels.frame["project"].to_dict(),
    )
    return _inspect(
        feature_files(source.slides, source.options, case_of),
        cases,
        looking,
        paths=paths,
        kind="features",
        counts=joined.counts,
        quarantined=joined.quarantined,
        notes=tuple(str(count) for count in joined.unlisted if not count.suspect),
        needed=tuple(needed),
    )


def inspect_records(directory: Path, looking: Looking) -> Inspected:
    """Records that were packed before; one that is damaged is a bad slide.

    Raises:
      InputError: the folder is not as it was written.
    """
    records = Records(directory)
    without_slides = (records.without_slides(row) for row in range(len(records)))
    num_slides = records.table["num_slides"].tolist()
    cases = _Cases(
        tabulate(without_slides, records.genes, records.specs, num_slides), packed_coverage(records.gene_sets)
    )
    source = packed_slides(directory, records)
    quarantine = directory / "quarantine.csv"
    left_out = len(pd.read_csv(quarantine, dtype=str)) if quarantine.is_file() else 0
    notes = (f"{left_out} slides and cases were left out when it was packed, see {quarantine}",)
    return _inspect(
        source, cases, looking, paths=(str(directory),), kind="records", notes=notes if left_out else ()
    )


def inspect_benchmark(
    root: Path, cohorts: Sequence[str], gene_sets_path: Path | None, looking: Looking
) -> Inspected:
    """The compact TCGA benchmark, all cohorts on its joint table of expression scores.

    Args:
      root: of the benchmark.
      cohorts: names; none takes all that are there.
      gene_sets_path: CSV of gene sets; None takes the benchmark's own groups of scores.

    Raises:
      InputError: as `tcga_bench.read`.
    """
    names = list(cohorts) or benchmark_cohorts(root)
    specs = [find_spec(name) for name in names]
    by_cohort: dict[str, list[Case]] = {}
    for name in names:
        by_cohort[name], genes = tcga_bench.read(root, [name])
    source = benchmark_slides(root, by_cohort)
    all_cases = [case for cases in by_cohort.values() for case in cases]
    without_slides = [dataclasses.replace(case, slides=()) for case in all_cases]
    path = gene_sets_path or root / _SIGNATURES
    cases = _Cases(
        tabulate(without_slides, genes, specs, [len(case.slides) for case in all_cases]),
        set_coverage(path, genes) if gene_sets_path or path.is_file() else (),
        _benchmark_projects(root, names),
    )
    return _inspect(
        source,
        cases,
        looking,
        paths=(str(root),),
        kind="tcga_bench",
        quarantined=_faults(without_slides, specs),
        notes=("the benchmark has no coordinates: regions lie on an invented square grid",),
    )


def benchmark_cohorts(root: Path) -> list[str]:
    """Cohorts of which a benchmark has labels and slides."""
    names = sorted(path.stem for path in (root / "splits").glob("*.csv"))
    return [name for name in names if (root / "wsi_hipt" / f"{name}.npz").is_file()]


def _benchmark_projects(root: Path, names: Sequence[str]) -> dict[str, str]:
    projects: dict[str, str] = {}
    for name in names:
        table = pd.read_csv(root / "splits" / f"{name}.csv", dtype=str, keep_default_na=False)
        if "project_id" in table:
            projects |= dict(zip(table["case_id"], table["project_id"], strict=True))
    return projects


def _faults(cases: Sequence[Case], specs: Sequence[CohortSpec]) -> list[Quarantined]:
    faults = []
    for case in cases:
        try:
            check_cases([case], specs)
        except InputError as error:
            faults.append(Quarantined(case.id, "", "", str(error)))
    return faults


def _inspect(
    source: SlideSource,
    cases: _Cases | None,
    looking: Looking,
    *,
    paths: Sequence[str],
    quarantined: Sequence[Quarantined] = (),
    **more: Any,
) -> Inspected:
    looked = look(source, **looking._asdict())
    checks = mark_misfits([slide.check for slide in looked])
    looked = [slide._replace(check=check) for slide, check in zip(looked, checks, strict=True)]
    quarantined = list(quarantined)
    if cases is not None and len(looked) == len(source.entries):
        quarantined += empty_cases(cases.table.cases, checks)
    ordered = worst_first(looked)
    inspection = Inspection(
        paths=tuple(paths),
        num_found=len(source.entries),
        slides=tuple(slide.check for slide in ordered),
        units=units(checks),
        cohort=None if cases is None else cohort_facts(cases.table, cases.gene_sets),
        num_left=None if cases is None else _num_left(cases.table, quarantined),
        quarantined=tuple(quarantined),
        leaks=tuple(_leaks(cases, looked)),
        **more,
    )
    return Inspected(inspection, ordered, source, None if cases is None else cases.table)


def _num_left(table: CohortTable, quarantined: Sequence[Quarantined]) -> int:
    left_out = {line.case_id for line in quarantined if not line.slide_id}
    return int((~table.cases["case_id"].isin(left_out)).sum())


def _leaks(cases: _Cases | None, looked: Sequence[Looked]) -> list[Leak]:
    owners = [(slide.check.slide_id, slide.check.case_id) for slide in looked]
    sketches = [slide.sketch for slide in looked if slide.sketch is not None]
    if cases is None:
        nothing = pd.DataFrame({"split": []}, index=pd.Index([], name="case_id"))
        return find_leaks(nothing, sketches=sketches)
    table = cases.table
    frame = table.cases.set_index("case_id")
    frame["project"] = [cases.projects.get(case_id, "") for case_id in frame.index]
    variables = pd.DataFrame(list(table.variables), index=frame.index)
    expression = pd.DataFrame(table.expression, index=frame.index, columns=list(table.genes))
    has_expression = frame["expression"].to_numpy(bool)
    return find_leaks(
        frame[["split", "site", "subtype", "time", "event", "project"]],
        slides=[(slide_id, case_id) for slide_id, case_id in owners if case_id],
        sketches=sketches,
        expression=expression[has_expression] if has_expression.any() else None,
        variables=variables if len(variables.columns) else None,
    )

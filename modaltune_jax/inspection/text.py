"""Inspections for people: the verdict first, then what is wrong, then everything else, in 110 columns."""

from __future__ import annotations

import textwrap
from collections.abc import Iterable, Sequence

import numpy as np

from modaltune_jax.inspection.cohort_checks import CohortFacts, SetCoverage, Variable
from modaltune_jax.inspection.cohort_table import KNOWN
from modaltune_jax.inspection.inspection import Inspection
from modaltune_jax.inspection.slide_checks import Finding, SlideCheck
from modaltune_jax.inspection.wording import plural, shortened

WIDTH = 110
SHOWN = 20
"""Lines of slides, cases or variables, unless all are asked for."""
_OK_SHOWN = 5
"""Lines of slides that are ok, for an idea of the numbers."""

_KINDS = {"features": "feature files", "records": "packed records", "tcga_bench": "TCGA benchmark"}
_MAX_ID = 30
_MIN_NAME = 12
"""Letters that are left of a name when a table is too wide."""
_VALUES_WIDTH = 50
_MANY_SLIDES = 4


def to_text(inspection: Inspection, *, show_all: bool = False) -> str:
    """The report on one inspection.

    Args:
      inspection: what to print.
      show_all: print all slides and cases, not only the first `SHOWN`.
    """
    limit = None if show_all else SHOWN
    blocks = [
        _head(inspection),
        _findings(inspection.slides),
        _leaks(inspection),
        _quarantined(inspection, limit),
        _units(inspection),
        _slides(inspection.slides, limit),
        *(_cohort(inspection.cohort, limit) if inspection.cohort else []),
        _block("joins", [str(count) for count in inspection.counts]),
    ]
    return "\n\n".join(block for block in blocks if block)


def _head(inspection: Inspection) -> str:
    found, looked = inspection.num_found, len(inspection.slides)
    slides = plural(found, "slide") + (f", {looked:,} looked at" if looked < found else "")
    if inspection.cohort:
        slides = f"{plural(inspection.cohort.num_cases, 'case')}, {slides}"
    question = "can be used" if inspection.kind == "records" else "can be packed"
    lines = [
        f"{_KINDS[inspection.kind]}: {slides}",
        f"{question}: {inspection.verdict}",
        *(f"note: {count}" for count in inspection.suspects),
        *(f"note: {note}" for note in inspection.notes),
    ]
    # Paths are never broken, so that they can be copied.
    return "\n".join([*inspection.paths, *(_wrapped(line, "", "  ") for line in lines)])


def _findings(checks: Sequence[SlideCheck]) -> str:
    """A line a kind, with how many slides have it and the sentence of the first."""
    grouped: dict[tuple[str, str], list[tuple[SlideCheck, Finding]]] = {}
    for check in checks:
        for finding in check.findings:
            grouped.setdefault((finding.severity, finding.kind), []).append((check, finding))
    lines = []
    for (severity, kind), found in sorted(grouped.items(), key=lambda item: (item[0][0], -len(item[1]))):
        check, finding = found[0]
        slides = "1 slide" if len(found) == 1 else f"{len(found):,} slides, as"
        lines.append(f"{severity:<7}  {kind:<14}  {slides} {check.slide_id}: {finding.message}")
    return _block("findings", lines, indent=27)


def _leaks(inspection: Inspection) -> str:
    lines = [
        f"{leak.severity:<7}  {leak.kind}: {leak.message}" + _in_brackets(leak.examples)
        for leak in inspection.leaks
    ]
    return _block("leakage", lines, indent=11)


def _quarantined(inspection: Inspection, limit: int | None) -> str:
    lines = [
        f"{' '.join(part for part in (line.case_id, line.slide_id) if part)}: {line.reason}"
        for line in inspection.quarantined
    ]
    return _block(f"quarantined besides bad slides: {len(lines):,}", _first(lines, limit)) if lines else ""


def _units(inspection: Inspection) -> str:
    lines = []
    for unit in inspection.units:
        if unit.slides:
            several = len(unit.slides) > 1
            values = [f"{value} ({count:,})" if several else value for value, count in unit.slides.items()]
            mixed = f"  MIXED, as {', '.join(unit.examples)}" if unit.is_mixed else ""
            lines.append(f"{unit.field:<17}  {', '.join(_first(values, 6))}{mixed}")
    return _block("units of the slides", lines, indent=21)


def _slides(checks: Sequence[SlideCheck], limit: int | None) -> str:
    num_noticed = sum(check.verdict != "ok" for check in checks)
    shown = checks if limit is None else checks[: min(limit, max(num_noticed, _OK_SHOWN))]
    if not shown:
        return ""
    head = ["slide", "verdict", "tiles", "size", "apart", "cells", "shared", "off grid", "outside"]
    rows = [[*head, "NaN", "zero", "same"]]
    for check in shown:
        outside = (check.num_negative or 0) + (check.num_beyond or 0)
        counts = (check.num_not_finite, check.num_zero, check.num_duplicate)
        size = [_count(check.patch_size_level0), _count(check.spacing), _count(check.num_cells)]
        rows.append(
            [
                *(shortened(check.slide_id, _MAX_ID), check.verdict),
                *("" if check.num_tiles is None else f"{check.num_tiles:,}", *size),
                *(_share(check.num_shared, check.num_tiles), _share(check.num_off_grid, check.num_tiles)),
                *(_count(outside), *(_count(count) for count in counts)),
            ]
        )
    title = "slides" if len(shown) == len(checks) else f"slides, worst first: {len(shown)} of {len(checks):,}"
    return _block(title, _columns(rows, num_left=2))


def _cohort(facts: CohortFacts, limit: int | None) -> list[str]:
    return [
        _block(f"{plural(facts.num_cases, 'case')} by slides", [_slides_per_case(facts)]),
        _missing(facts),
        _classes(facts),
        _follow_up(facts),
        _genes(facts),
        _block(
            "clinical values", _columns([_variable(v, facts.num_cases) for v in facts.variables][:limit], 4)
        ),
    ]


def _slides_per_case(facts: CohortFacts) -> str:
    many = sum(count for number, count in facts.slides_per_case.items() if number >= _MANY_SLIDES)
    parts = [f"{count:,} with {n}" for n, count in facts.slides_per_case.items() if n < _MANY_SLIDES]
    most = max(facts.slides_per_case, default=0)
    return ", ".join([*parts, *([f"{many:,} with {_MANY_SLIDES} to {most}"] if many else [])])


def _missing(facts: CohortFacts) -> str:
    rows = [["site", "split", "cases", "slides", *(f"no {name}" for name in KNOWN)]]
    for row in facts.missing:
        shares = [_share(row.missing[name], row.num_cases) for name in KNOWN]
        rows.append([row.site, row.split or "none", f"{row.num_cases:,}", f"{row.num_slides:,}", *shares])
    return _block("missing", _columns(rows, num_left=2))


def _classes(facts: CohortFacts) -> str:
    splits = list(dict.fromkeys(row.split for row in facts.missing))
    rows = [["site", "class", *(split or "cases" for split in splits)]]
    for row in facts.classes:
        if row.name != "none" or any(row.cases.values()):
            rows.append([row.site, row.name, *(_count(row.cases.get(split)) for split in splits)])
    return _block("classes", _columns(rows, num_left=2)) if len(rows) > 1 else ""


def _follow_up(facts: CohortFacts) -> str:
    rows = [["site", "known", "deaths", "median", "longest", "time 0"]]
    for row in facts.follow_up:
        months = [_months(row.median_months), _months(row.longest_months)]
        rows.append([row.site, f"{row.num_known:,}", _count(row.num_events), *months, _count(row.num_zero)])
    title = "follow-up in months; the median is the reverse Kaplan-Meier estimate"
    return _block(title, _columns(rows, num_left=1)) if any(row.num_known for row in facts.follow_up) else ""


def _genes(facts: CohortFacts) -> str:
    rows = [["site", "cases", "genes", "of", "values missing"]]
    for row in facts.genes:
        missing = _share(round(row.share_missing * 1e6), 10**6)
        rows.append(
            [row.site, *(f"{n:,}" for n in (row.num_cases, row.num_genes, row.num_all_genes)), missing]
        )
    lines = _columns(rows, num_left=1) if len(rows) > 1 else []
    if facts.gene_sets:
        lines.append(_gene_sets(facts.gene_sets))
    return _block("expression", lines)


def _gene_sets(sets: Sequence[SetCoverage]) -> str:
    num_empty = sum(found.num_measured == 0 for found in sets)
    line = f"{len(sets):,} gene sets, {num_empty:,} without a measured gene"
    shares = [(found.num_measured / found.num_genes, found) for found in sets if found.num_genes]
    if not shares:
        return line
    median = np.median([share for share, _ in shares])
    least = sorted((pair for pair in shares if pair[0] < 1), key=lambda pair: pair[0])[:3]
    shown = ", ".join(f"{found.name} {found.num_measured} of {found.num_genes}" for _, found in least)
    return f"{line}; half have at least {median:.0%} of their genes" + (f"; least: {shown}" if shown else "")


def _variable(variable: Variable, num_cases: int) -> list[str]:
    values = [
        f"{name} {value:g}" if variable.kind == "number" else f"{name} ({value:g})"
        for name, value in variable.values.items()
    ]
    missing = _share(variable.num_missing, num_cases)
    shown = textwrap.shorten(", ".join(values), _VALUES_WIDTH, placeholder=" ...")
    return [shortened(variable.name, _MAX_ID), variable.kind, f"{missing or 'none'} missing", shown]


def _block(title: str, lines: Iterable[str], indent: int = 4) -> str:
    wrapped = [_wrapped(line, "  ", " " * indent) if len(line) > WIDTH - 2 else f"  {line}" for line in lines]
    return "\n".join([title, *wrapped]) if wrapped else ""


def _wrapped(line: str, first: str, others: str) -> str:
    """A line of words, none of which is broken, with what goes before the first and before other lines."""
    return textwrap.fill(
        line,
        WIDTH,
        initial_indent=first,
        subsequent_indent=others,
        break_on_hyphens=False,
        break_long_words=False,
    )


def _columns(rows: Sequence[Sequence[str]], num_left: int) -> list[str]:
    """Rows as lines, the first `num_left` columns flush left, the others flush right.

    A table that is too wide loses letters of its left columns, which hold names: broken, it would be none.
    """
    if not rows:
        return []
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    excess = sum(widths) + 2 * len(widths) - WIDTH
    while excess > 0 and max(widths[:num_left]) > _MIN_NAME:
        widest = max(range(num_left), key=lambda i: widths[i])
        widths[widest] -= 1
        excess -= 1
    return [
        "  ".join(
            shortened(cell, width).ljust(width) if i < num_left else cell.rjust(width)
            for i, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in rows
    ]


def _first(lines: Sequence[str], limit: int | None) -> list[str]:
    if limit is None or len(lines) <= limit:
        return list(lines)
    return [*lines[:limit], f"and {len(lines) - limit:,} more"]


def _share(count: int | None, total: int | None) -> str:
    """In percent, empty for none; the smallest is not rounded to none nor the largest to all."""
    if not count or not total:
        return ""
    percent = 100 * count / total
    if percent < 1 or 99 < percent < 100:
        return "<1 %" if percent < 1 else ">99 %"
    return f"{percent:.0f} %"


def _count(count: int | None) -> str:
    return f"{count:,}" if count else ""


def _months(value: float | None) -> str:
    return "not reached" if value is None else f"{value:.1f}"


def _in_brackets(examples: Sequence[str]) -> str:
    return f" ({', '.join(examples)})" if examples else ""

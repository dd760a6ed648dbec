"""The comparison of methods, laid out as the paper's tables, in Markdown, CSV and LaTeX."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd

from modaltune_jax.reporting.cells import Cell, cells_of_row, difference
from modaltune_jax.reporting.published import OVERALL, SITES, published
from modaltune_jax.reporting.rows import FAMILIES, Row, Run, group_rows
from modaltune_jax.results import METRIC_NAMES
from modaltune_jax.types import InputError

METRICS = {"subtype": "balanced_accuracy", "survival": "harrell_c"}
"""Of the table of each target."""


@dataclasses.dataclass(frozen=True)
class Comparison:
    """All rows of one target.

    Attributes:
      target: "subtype" or "survival".
      split: of the cases.
      sites: columns, followed by "overall".
      cells: by row and column.
      against: the row that others are compared with.
    """

    target: str
    split: str
    sites: tuple[str, ...]
    cells: Mapping[Row, Mapping[str, Cell]]
    against: Row

    @property
    def columns(self) -> tuple[str, ...]:
        return (*self.sites, OVERALL)


def compare(
    runs: Sequence[Run],
    target: str,
    *,
    sites: Sequence[str] = (),
    split: str = "test",
    against: str = "",
    num_draws: int = 1000,
) -> Comparison | None:
    """The table of a target; None if no run was scored on it.

    Args:
      runs: from `find_runs`.
      target: "subtype" or "survival".
      sites: columns; none for all that there are, the paper's first.
      split: of the cases.
      against: label of the row that others are compared with; "" takes the last.
      num_draws: of the bootstrap.

    Raises:
      InputError: a site or a row that does not exist, or runs that do not go together.
    """
    grouped = group_rows(runs, target)
    if not grouped:
        return None
    known = {site for places in grouped.values() for site in places}
    if unknown := [site for site in sites if site not in known]:
        raise InputError(f"no run has {', '.join(unknown)}; there are {', '.join(sorted(known))}")
    columns = tuple(sites or sorted(known, key=lambda site: (site not in SITES, site)))
    rows = {
        row: cells_of_row(places, target, row.head, columns, split=split, num_draws=num_draws)
        for row, places in grouped.items()
        if any(site in places for site in columns)
    }
    return Comparison(target, split, columns, rows, _find(against, list(rows)))


def to_frame(table: Comparison) -> pd.DataFrame:
    """One line a row and column: value, spread, interval, numbers, difference, and what the paper says."""
    lines = []
    for row, cells in table.cells.items():
        for column, cell in cells.items():
            gap = difference(cell, table.cells[table.against][column]) if column in _shared(table) else None
            low, high = cell.interval
            lines.append(
                {
                    **{"target": table.target, "metric": METRICS[table.target], "split": table.split},
                    **{"family": row.family, "method": row.label, "site": column},
                    **{"mean": cell.mean, "sd": cell.sd, "low": low, "high": high},
                    **{"num_seeds": len(cell.values), "num_cases": len(cell.cases)},
                    "num_events": cell.num_events,
                    "published": _published(table, row, column),
                    "less": table.against.label,
                    "difference": gap.value if gap else np.nan,
                    "difference_low": gap.low if gap else np.nan,
                    "difference_high": gap.high if gap else np.nan,
                    "reason": cell.reason,
                }
            )
    return pd.DataFrame(lines)


def _shared(table: Comparison) -> set[str]:
    return set(table.cells[table.against])


def to_markdown(table: Comparison, *, with_published: bool = True) -> str:
    """A block of rows a family; a cell is mean ± sd over seeds, [interval by cases] and the paper's value."""
    lines = [
        f"**{table.target}**, {METRIC_NAMES[METRICS[table.target]]} on {table.split}",
        "",
        _line(["", *table.columns]),
        "|" + "---|" * (1 + len(table.columns)),
        _line(["cases (deaths)" if table.target == "survival" else "cases", *_sizes(table)]),
    ]
    for family, rows in itertools.groupby(table.cells, key=lambda row: row.family):
        lines.append(_line([f"**{FAMILIES[family]}**", *[""] * len(table.columns)]))
        for row in rows:
            cells = [_cell(table, row, column, with_published) for column in table.columns]
            lines.append(_line([row.label, *cells]))
    return "\n".join(lines)


def legend(table: Comparison, *, with_published: bool = True) -> str:
    """What the marks in a table mean."""
    said = [
        "Mean ± standard deviation over seeds; in brackets its 95 % bootstrap interval over cases.",
        f"▼ ▲: below or above {table.against.label}, where the 95 % interval of the paired difference "
        "excludes 0; each comparison stands alone, so that among many some are chance.",
    ]
    if with_published:
        said.append("In parentheses what the paper reports, on other features and cases.")
    reasons = {
        f"{row.label}, {column}: {cell.reason}."
        for row, cells in table.cells.items()
        for column, cell in cells.items()
        if cell.reason and column != OVERALL
    }
    return " ".join([*said, *sorted(reasons)])


def to_latex(table: Comparison, *, with_published: bool = True) -> str:
    """The same as a `tabular` of booktabs."""
    num = 1 + len(table.columns)
    lines = [rf"\begin{{tabular}}{{l{'c' * len(table.columns)}}}", r"\toprule"]
    lines.append(_latex_line(["", *map(str.upper, table.sites), "Overall"]))
    label = "cases (deaths)" if table.target == "survival" else "cases"
    lines.append(_latex_line([label, *_sizes(table)]))
    for family, rows in itertools.groupby(table.cells, key=lambda row: row.family):
        lines += [r"\midrule", rf"\multicolumn{{{num}}}{{l}}{{\textit{{{FAMILIES[family]}}}}} \\"]
        for row in rows:
            cells = [_cell(table, row, column, with_published) for column in table.columns]
            lines.append(_latex_line([row.label, *cells]))
    return "\n".join([*lines, r"\bottomrule", r"\end{tabular}"])


def _cell(table: Comparison, row: Row, column: str, with_published: bool) -> str:
    cell, paper = table.cells[row].get(column), _published(table, row, column)
    words = ["-"]
    if cell is not None and not np.isnan(cell.mean):
        low, high = cell.interval
        spread = "" if np.isnan(cell.sd) else f" ± {cell.sd:.3f}"
        words = [f"{cell.mean:.3f}{spread}", f"[{low:.2f}, {high:.2f}]"]
        other = table.cells[table.against].get(column)
        gap = difference(cell, other) if other is not None else None
        if gap is not None and gap.is_clear:
            words[0] += " ▲" if gap.value > 0 else " ▼"
    return " ".join([*words, *([f"({paper:.3f})"] if with_published and paper is not None else [])])


def _published(table: Comparison, row: Row, column: str) -> float | None:
    """What the paper says of a column; its mean over sites is one over its own sites."""
    if column == OVERALL and set(table.sites) != set(SITES):
        return None
    return published(table.target, row.method, column)


def _sizes(table: Comparison) -> list[str]:
    """Cases, and deaths, of each column; a range where rows differ."""
    sizes = []
    for column in table.columns:
        cells = [cells[column] for cells in table.cells.values() if column in cells and cells[column].cases]
        numbers = [_range([len(cell.cases) for cell in cells])]
        if table.target == "survival":
            numbers.append(f"({_range([cell.num_events for cell in cells])})")
        sizes.append(" ".join(numbers))
    return sizes


def _range(numbers: Sequence[int]) -> str:
    if not numbers:
        return "-"
    low, high = min(numbers), max(numbers)
    return str(low) if low == high else f"{low}-{high}"


def _find(label: str, rows: Sequence[Row]) -> Row:
    if not label:
        return rows[-1]
    found = [row for row in rows if row.label == label]
    if not found:
        raise InputError(f"no row is called {label!r}; there are {', '.join(row.label for row in rows)}")
    return found[0]


def _line(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"


_LATEX = {
    "±": r"$\pm$",
    "▲": r"$\blacktriangle$",
    "▼": r"$\blacktriangledown$",
    "_": r"\_",
    "%": r"\%",
    "&": r"\&",
}


def _latex_line(cells: Sequence[str]) -> str:
    escaped = ["".join(_LATEX.get(letter, letter) for letter in cell) for cell in cells]
    return " & ".join(escaped) + r" \\"

"""Results as Markdown: a block a protocol, split and method, a line a site, a column a metric."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import Any

import pandas as pd

_NAMES = {
    "harrell_c": "Harrell's c",
    "uno_c": "Uno's c",
    "integrated_brier": "integrated Brier",
    "balanced_accuracy": "balanced accuracy",
    "macro_f1": "macro-F1",
    "auroc": "AUROC",
    "auprc": "AUPRC",
}
_BLOCK = ["protocol", "split", "target", "task", "method"]


def to_markdown(table: pd.DataFrame) -> str:
    """All results but those of subgroups, and below each block why a cell is empty.

    A cell holds the mean over runs, ± their standard deviation where there are several, and the interval.
    """
    whole = table[table["variable"] == ""]
    blocks = []
    for (protocol, split, target, task, method), block in whole.groupby(_BLOCK, sort=False):
        by = "probe" if method == "probe" else f"{method} head"
        title = f"## {protocol}, {split}: {target} by the {by} on the {task} embedding"
        blocks.append(f"{title}\n\n{_block(block, ('site', 'scope'))}")
    return "\n\n".join(blocks) + "\n"


def subgroups_to_markdown(table: pd.DataFrame) -> str:
    """The results of subgroups; empty if there are none."""
    parts = table[table["variable"] != ""]
    blocks = []
    for (protocol, split, target, task, method), block in parts.groupby(_BLOCK, sort=False):
        by = "probe" if method == "probe" else f"{method} head"
        title = f"## {protocol}, {split}: {target} by the {by} on the {task} embedding, by subgroup"
        blocks.append(f"{title}\n\n{_block(block, ('site', 'variable', 'level'))}")
    return "\n\n".join(blocks) + ("\n" if blocks else "")


def _block(block: pd.DataFrame, keys: Sequence[str]) -> str:
    metrics = list(dict.fromkeys(block["metric"]))
    has_deaths = (block["target"] == "survival").all()
    rows, reasons = [], []
    for of_line, lines in block.groupby(list(keys), sort=False):
        by_metric = {line.metric: line for line in lines.itertuples()}
        first = next(iter(by_metric.values()))
        numbers = [f"{first.num}", *([f"{first.num_events}"] if has_deaths else [])]
        rows.append([*map(str, of_line), *numbers, *(_cell(by_metric.get(metric)) for metric in metrics)])
        reasons += [
            f"- {', '.join(dict.fromkeys(map(str, of_line)))}, {_name(line.metric)}: "
            f"{'not estimable: ' if math.isnan(line.value) else ''}{line.reason}"
            for line in by_metric.values()
            if line.reason
        ]
    fitted = ["fitted on" if key == "scope" else key for key in keys]
    header = [*fitted, "cases", *(["deaths"] if has_deaths else []), *map(_name, metrics)]
    return "\n".join([*_table(header, rows), *([""] if reasons else []), *reasons])


def _cell(line: Any) -> str:
    if line is None or math.isnan(line.value):
        return "-"
    spread = "" if math.isnan(line.sd) else f" ± {line.sd:.3f}"
    interval = "" if math.isnan(line.low) else f" ({line.low:.3f} to {line.high:.3f})"
    return f"{line.value:.3f}{spread}{interval}"


def _name(metric: str) -> str:
    for prefix, words in (("td_auc_", "AUC at "), ("calibration_error_", "calibration error at ")):
        if metric.startswith(prefix):
            return words + metric.removeprefix(prefix)
    return _NAMES.get(metric, metric)


def _table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> list[str]:
    lines = [list(header), *rows]
    widths = [max(len(line[i]) for line in lines) for i in range(len(header))]
    padded = [
        "| " + " | ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)) + " |"
        for line in lines
    ]
    return [padded[0], "|" + "|".join("-" * (width + 2) for width in widths) + "|", *padded[1:]]

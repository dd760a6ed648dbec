"""Runs in, tables and figures out."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from modaltune_jax import results
from modaltune_jax.evaluation import aggregation, figures, out_of_distribution, text
from modaltune_jax.evaluation.confusion import confusion_table
from modaltune_jax.evaluation.finished_run import FinishedRun, read_run
from modaltune_jax.evaluation.groups import ALL, Group, groups_of
from modaltune_jax.evaluation.measures import Bootstrap
from modaltune_jax.evaluation.other_records import embed_other, open_other
from modaltune_jax.evaluation.subgroups import levels_of_cases, subgroups_of
from modaltune_jax.inputs.prepare import prepare
from modaltune_jax.inputs.records import Records
from modaltune_jax.targets import targets_of_config
from modaltune_jax.train import build, predict, restore_best

IN_DISTRIBUTION = "in distribution"


def evaluate(
    folders: Sequence[Path],
    other: Path | None,
    splits: tuple[str, ...],
    bootstrap: Bootstrap,
    out: Path,
    *,
    has_figures: bool = True,
) -> pd.DataFrame:
    """Scores finished runs, prints the tables and writes them.

    Args:
      folders: of the runs; their results are averaged.
      other: records of another cohort, to be scored instead of the runs' own; None for their own.
      splits: to score.
      bootstrap: of the intervals.
      out: gets `results.csv`, `.json`, `.md`, `per_run.csv`, `subgroups.md`, `confusion.csv`, `figures/`.
      has_figures: whether to draw the first run.

    Returns:
      The table of all runs.

    Raises:
      InputError: whatever is wrong with runs or records.
    """
    runs = [read_run(folder) for folder in folders]  # all of them, before hours of work on the first
    groups: list[list[Group]] = []
    confusions: list[pd.DataFrame] = []
    for run in runs:
        print(f"{run.folder}: scoring", flush=True)
        own = prepare(run.config.data)
        if other is None:
            records, found = own, groups_of(run.scores, IN_DISTRIBUTION, splits, bootstrap)
        else:
            records, found = _out_of_distribution(run, own, other, splits, bootstrap)
        parts = subgroups_of(found, levels_of_cases(records, own), bootstrap)
        if not groups and has_figures:
            figures.draw(found, own.specs if other is None else records.specs, out / "figures")
        confusions.append(confusion_table(found, own.specs if other is None else records.specs, run.name))
        groups.append([*found, *parts])
    table = aggregation.table_of_runs(groups, bootstrap)
    folds = aggregation.out_of_fold(groups, bootstrap)
    if folds:
        table = pd.concat([table, aggregation.table_of_runs([folds], bootstrap)], ignore_index=True)
    _write(out, table, aggregation.per_run(groups, [run.name for run in runs], bootstrap), confusions)
    files = "results.md, results.csv, results.json, per_run.csv, subgroups.md, confusion.csv"
    print(f"\n{text.to_markdown(table)}\nresults in {out}/: {files}{', figures/' if has_figures else ''}")
    return table


def _out_of_distribution(
    run: FinishedRun, own: Records, directory: Path, splits: tuple[str, ...], bootstrap: Bootstrap
) -> tuple[Records, list[Group]]:
    """The other cohort's records and their groups by both protocols."""
    other = open_other(directory, own)
    if own.genes and other.num_shared < len(own.genes):
        shared = f"{other.num_shared} of the run's {len(own.genes)} genes"
        print(f"{directory} has {shared}; the others count as not measured")
    config = run.config
    targets = targets_of_config(config, own)
    built, state = build(config, run.seed, run.modalities, own, targets)
    outputs = embed_other(built, state, run.folder, other)
    best, _ = restore_best(built, state, run.folder)
    own_outputs = predict(built, best, ("train",))
    refitted = out_of_distribution.refitted_scores(outputs["embedding"], other, run.modalities)
    as_trained = out_of_distribution.as_trained_scores(
        own, own_outputs, other, outputs, targets.supervision.labels, run.modalities
    )
    return other, [
        *groups_of(refitted, out_of_distribution.REFITTED, splits, bootstrap),
        *groups_of(as_trained, out_of_distribution.AS_TRAINED, (*splits, ALL), bootstrap, by="site"),
    ]


def _write(out: Path, table: pd.DataFrame, per_run: pd.DataFrame, confusions: Sequence[pd.DataFrame]) -> None:
    results.write(per_run, out / "per_run")
    results.write(pd.concat(confusions, ignore_index=True), out / "confusion")
    for name, words in (
        ("results", text.to_markdown(table)),
        ("subgroups", text.subgroups_to_markdown(table)),
    ):
        temporary = out / f".{name}.md.tmp"
        temporary.write_text(words, encoding="utf-8")
        os.replace(temporary, out / f"{name}.md")
    results.write(table, out / "results")

"""`python -m modaltune_jax.split`: train, val and test of a cohort, drawn by a recipe."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from modaltune_jax import command
from modaltune_jax.types import InputError

if TYPE_CHECKING:
    import pandas as pd

    from modaltune_jax.inputs.cohort import CohortSpec
    from modaltune_jax.inputs.splits import Splits
    from modaltune_jax.inputs.tables.read import LabelTable

_EXAMPLES = """\
recipes:
  stratified:0.7,0.15,0.15:SEED  fractions of train, val and test, exact for every class and event
  kfold:K:FOLD:SEED              fold FOLD (from 0) is test, the next is val, the others are train
  site-preserved:K:FOLD:SEED     the same; a tissue source site is never divided; sites are
                                 a variable tissue_source_site of --columns, or read from TCGA barcodes
Another seed repeats the experiment. The file keeps the recipe and a hash, so that edits are noticed.
All cases of the labels are split; `pack --split` draws among those that have slides or expression.

  python -m modaltune_jax.split --cohort brca --labels gdc:clinical.tsv --recipe stratified:0.7,0.15,0.15:0 \\
    --out splits/brca.csv
  python -m modaltune_jax.split --cohort brca --labels gdc:clinical.tsv --recipe site-preserved:5:0:0 \\
    --all-folds --out splits/brca"""


def main(arguments: Sequence[str]) -> None:
    """Draws splits, prints what is in them, and writes them.

    Raises:
      InputError: whatever is wrong with flags, tables or recipe.
    """
    options = _parser().parse_args(arguments)
    out = Path(options.out)
    # Before the imports that take a second, so that a mistyped path is told at once.
    if out.exists() and not options.force:
        raise InputError(f"{out} exists: name another, or say --force to replace it")
    from modaltune_jax.cohort_flags import read_specs
    from modaltune_jax.inputs.split_recipes import all_folds
    from modaltune_jax.inputs.splits import make_splits, write_splits
    from modaltune_jax.inputs.tables.read import read_labels

    specs = read_specs(options.cohort)
    recipes = all_folds(options.recipe) if options.all_folds else [options.recipe]
    columns = Path(options.columns) if options.columns else None
    labels = read_labels(options.labels, endpoint=options.endpoint, columns=columns)
    frame = cohort_frame(labels, specs)
    names = ", ".join(spec.name for spec in specs)
    command.say(f"{len(frame)} cases of {names}; {len(labels.frame)} are in the labels")
    for count in labels.counts:
        if count.suspect:
            command.say(f"note: {count}")
    # All before the first is written: a fold that cannot be drawn leaves no half of an experiment.
    drawn = [make_splits(recipe, frame) for recipe in recipes]
    paths = [out / f"fold-{i}.csv" for i in range(len(drawn))] if options.all_folds else [out]
    for path, splits in zip(paths, drawn, strict=True):
        write_splits(path, splits)
    for path, splits in zip(paths, drawn, strict=True):
        command.say(f"\n{path}: {splits.recipe}, sha256 {splits.sha256}\n{describe(splits, frame, specs)}")


def run() -> None:
    """Entry point of the command."""
    command.run(main, interrupted="stopped: no file was left half-written")


def cohort_frame(labels: LabelTable, specs: Sequence[CohortSpec]) -> pd.DataFrame:
    """The cases of the cohorts as `make_splits` takes them; those of other projects are left out.

    A variable tissue_source_site is taken along; without it the site of a TCGA barcode.

    Raises:
      InputError: no case is left, or there are several cohorts and a case has no project.
    """
    import pandas as pd

    from modaltune_jax.cohort_flags import source_site
    from modaltune_jax.inputs.cohort import clean_diagnosis

    variables = labels.variables.to_dict("index")
    rows = []
    for case_id, row in labels.frame.iterrows():
        try:
            spec = _spec(row["project"], specs)
        except InputError as error:
            raise InputError(f"case {case_id}: {error}") from None
        if spec is not None:
            subtype = spec.subtype(clean_diagnosis(row["diagnosis"], spec, row["project"]))
            site = source_site(str(case_id), variables.get(case_id, {}))
            rows.append((case_id, spec.name, subtype, int(row["event"]), site))
    if not rows:
        wanted = sorted(project for spec in specs for project in spec.projects)
        found = sorted(set(labels.frame["project"]))
        raise InputError(
            f"none of the {len(labels.frame)} cases is of the projects {wanted}; those of the labels are"
            f" {found[:5]}, so choose another --cohort"
        )
    columns = ["case_id", "site", "subtype", "event", "tissue_source_site"]
    return pd.DataFrame(rows, columns=columns).set_index("case_id")


def _spec(project: str, specs: Sequence[CohortSpec]) -> CohortSpec | None:
    """The cohort that a project belongs to; one cohort alone takes cases without a project too."""
    for spec in specs:
        if project in spec.projects:
            return spec
    if len(specs) == 1 and not (project and specs[0].projects):
        return specs[0]
    if not project:
        raise InputError(
            f"has no project, so it may be of any of {', '.join(spec.name for spec in specs)};"
            " give a column project, or split one cohort at a time"
        )
    return None


def describe(splits: Splits, frame: pd.DataFrame, specs: Sequence[CohortSpec]) -> str:
    """Cases and, in brackets, events of every class in every split, as text."""
    from modaltune_jax.inputs.cohort import SPLITS

    split = frame.index.map(splits.of)
    lines: list[tuple[str, ...]] = [("cohort", "class", *SPLITS)]
    for spec in specs:
        of_site = frame["site"] == spec.name
        groups = [*enumerate(spec.classes), (-1, "no class")]
        rows = [(name, of_site & (frame["subtype"] == subtype)) for subtype, name in groups]
        for name, chosen in (*rows, ("all", of_site)):
            counts = [frame["event"][chosen & (split == part)] for part in SPLITS]
            lines.append((spec.name, name, *(f"{len(events)} ({(events == 1).sum()})" for events in counts)))
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    return "\n".join(
        "  ".join(
            cell.ljust(width) if i < 2 else cell.rjust(width)
            for i, (cell, width) in enumerate(zip(line, widths, strict=True))
        )
        for line in lines
    )


def _parser() -> argparse.ArgumentParser:
    parser = command.Parser(
        prog="python -m modaltune_jax.split",
        description="Train, val and test of a cohort, drawn by a recipe. Prints cases (events) by class.",
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("--cohort", action="append", required=True, metavar="NAME", help="name or TOML file; may come again")
    add(
        "--labels",
        required=True,
        metavar="KIND:PATH",
        help="as of `pack`: gdc:clinical.tsv, csv:labels.csv ...",
    )
    add(
        "--endpoint",
        default="",
        help="OS, DSS, PFI where the table knows it, or time=COLUMN,unit=...,event=COLUMN",
    )
    add("--columns", default="", metavar="FILE.toml", help="which column of a csv or excel table is what")
    add("--recipe", required=True, help="see below")
    add(
        "--out",
        required=True,
        metavar="FILE",
        help="CSV to write; with --all-folds a folder of fold-0.csv ...",
    )
    add("--all-folds", action="store_true", help="write every fold of the recipe")
    add("--force", action="store_true", help="replace what is there")
    return parser


if __name__ == "__main__":
    run()

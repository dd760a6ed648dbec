"""`python -m modaltune_jax.report table RUNS`: all methods beside each other, with their uncertainty."""

from __future__ import annotations

import argparse
import os
from collections.abc import Sequence
from pathlib import Path

from modaltune_jax import command
from modaltune_jax.types import InputError

_EXAMPLES = """\
RUNS are folders of training or of a sweep; every finished run in or below them is taken. Runs that differ
by their seed only make one cell. Written are table_subtype and table_survival as .md, .csv and .tex, and
forest_*.png.

  python -m modaltune_jax.report table runs/sweep --sites brca gbmlgg --against ModalTune"""


def main(arguments: Sequence[str]) -> None:
    """Makes the tables.

    Raises:
      InputError: whatever is wrong with flags or folders.
    """
    options = _parser().parse_args(arguments)
    if options.draws < 1:
        raise InputError(f"--draws {options.draws} must be 1 or more")
    from modaltune_jax.reporting import tables
    from modaltune_jax.reporting.forest import comparison_forest
    from modaltune_jax.reporting.rows import find_runs

    folders = [Path(folder).expanduser() for folder in options.runs]
    out = Path(options.out).expanduser() if options.out else folders[0]
    runs = find_runs(folders)
    command.say(f"{len(runs)} finished runs")
    out.mkdir(parents=True, exist_ok=True)
    for target in tables.METRICS:
        table = tables.compare(
            runs,
            target,
            sites=options.sites,
            split=options.split,
            against=options.against,
            num_draws=options.draws,
        )
        if table is None:
            command.say(f"\nno run was scored on {target}")
            continue
        is_beside = not options.no_published
        markdown = tables.to_markdown(table, with_published=is_beside)
        markdown = f"{markdown}\n\n{tables.legend(table, with_published=is_beside)}\n"
        command.say(f"\n{markdown}")
        stem = out / f"table_{target}"
        _write(stem.with_suffix(".md"), markdown)
        _write(stem.with_suffix(".tex"), tables.to_latex(table, with_published=is_beside) + "\n")
        _write(stem.with_suffix(".csv"), tables.to_frame(table).to_csv(index=False))
        comparison_forest(table, out / f"forest_{target}.png")
    command.say(f"tables and figures in {out}/")


def run() -> None:
    """Entry point of the command."""
    command.run(main, interrupted="stopped: no file was left half-written")


def _write(path: Path, text: str) -> None:
    temporary = path.with_name(f".{path.name}.tmp")
    temporary.write_text(text, encoding="utf-8")
    os.replace(temporary, path)


def _parser() -> argparse.ArgumentParser:
    parser = command.Parser(
        prog="python -m modaltune_jax.report",
        description="Tables of finished runs.",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    kinds = parser.add_subparsers(dest="kind", required=True, metavar="table", parser_class=command.Parser)
    table = kinds.add_parser(
        "table",
        help="subtype and survival by method and cohort",
        description="Subtype and survival by method and cohort, as in the paper and beside its values.",
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = table.add_argument
    add("runs", nargs="+", metavar="RUNS", help="folders of finished runs")
    add("--out", default="", metavar="FOLDER", help="of the tables; default the first of RUNS")
    add("--sites", nargs="+", default=[], metavar="NAME", help="columns; default all that there are")
    add("--split", default="test", choices=("val", "test"), help="of the cases; default test")
    add("--against", default="", metavar="LABEL", help="row that others are compared with; default the last")
    add("--draws", type=int, default=1000, metavar="N", help="of the bootstrap; default 1000")
    add("--no-published", action="store_true", help="leave out the values of the paper")
    return parser


if __name__ == "__main__":
    run()

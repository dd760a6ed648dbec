"""`python -m modaltune_jax.evaluate RUN ...`: all metrics of finished runs, with intervals, anywhere."""

from __future__ import annotations

import argparse
import os
from collections.abc import Sequence
from pathlib import Path

from modaltune_jax import command
from modaltune_jax.types import InputError

_EXAMPLES = """\
a RUN is the folder of one variant and seed; several (seeds, folds) are averaged:

  python -m modaltune_jax.evaluate runs/demo/full/seed0
  python -m modaltune_jax.evaluate runs/hipt_pancancer_mean_pool/full/seed*
  python -m modaltune_jax.evaluate runs/hipt_pancancer_mean_pool/full/seed* --records=records/hipt_blca

--records is a cohort that the run was not trained on. It is scored twice: with probes refitted on its own
training cases, and with nothing refitted at all. docs/evaluation.md says what the numbers mean."""


def main(arguments: Sequence[str]) -> None:
    """Evaluates.

    Raises:
      InputError: whatever is wrong with flags, runs or records.
    """
    options = _parser().parse_args(arguments)
    if options.bootstrap < 0:
        raise InputError(f"--bootstrap={options.bootstrap}: give a number of draws, or 0 for no intervals")
    if not 0 < options.level < 1:
        raise InputError(f"--level={options.level}: give a share between 0 and 1, such as 0.95")
    folders = [Path(run).expanduser() for run in options.runs]
    twice = [folder for folder in folders if folders.count(folder) > 1]
    if twice:
        raise InputError(f"{twice[0]} is given twice: give every run once")
    out = Path(options.out).expanduser() if options.out else _common(folders) / "evaluation"
    if out.is_file():
        raise InputError(f"--out={out} is a file: give the name of a folder")
    command.prepare_jax(-1)
    from modaltune_jax.evaluation.evaluation import evaluate
    from modaltune_jax.evaluation.measures import Bootstrap

    evaluate(
        folders,
        Path(options.records).expanduser() if options.records else None,
        tuple(dict.fromkeys(options.splits)),
        Bootstrap(options.bootstrap, options.level),
        out,
        has_figures=not options.no_figures,
    )


def run() -> None:
    """Entry point of the command."""
    command.run(main, interrupted="stopped: no results were written")


def _common(folders: Sequence[Path]) -> Path:
    return Path(os.path.commonpath([folder.absolute() for folder in folders]))


def _parser() -> argparse.ArgumentParser:
    parser = command.Parser(
        prog="python -m modaltune_jax.evaluate",
        description="Scores finished runs with all metrics, by site, pooled and by subgroup, with intervals.",
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("runs", nargs="+", metavar="RUN", help="folder <workdir>/<variant>/seed<k>")
    parser.add_argument("--records", metavar="FOLDER", help="records of another cohort, out of distribution")
    parser.add_argument(
        "--splits", nargs="+", choices=("val", "test"), default=["val", "test"], help="default val test"
    )
    parser.add_argument(
        "--bootstrap", type=int, default=1000, metavar="N", help="draws of cases; default 1000, 0 for none"
    )
    parser.add_argument(
        "--level", type=float, default=0.95, metavar="P", help="of the intervals; default 0.95"
    )
    parser.add_argument("--out", metavar="FOLDER", help="default `evaluation` in the run, or beside the runs")
    parser.add_argument("--no-figures", action="store_true", help="numbers only")
    return parser


if __name__ == "__main__":
    run()

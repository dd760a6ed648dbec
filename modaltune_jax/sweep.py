"""`python -m modaltune_jax.sweep`: many experiments, resumable, one row a run."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from modaltune_jax import command
from modaltune_jax.types import InputError

if TYPE_CHECKING:
    from modaltune_jax.sweeping.grid import Experiment

_EXAMPLES = """\
{cohort} in a config or in an override is filled in with each of --cohorts:

  python -m modaltune_jax.sweep --configs configs/baselines.py:abmil,subtype configs/brca.py \\
    --cohorts brca gbmlgg --seeds 3 --config.data.directory=records/{cohort} --out runs/baselines

Every experiment is a process of its own, with its output in <out>/<experiment>/log.txt. sweep.csv in the
folder has a row a run. The same command again skips what is finished, goes on with what was stopped, and
tries again what failed. `python -m modaltune_jax.report table FOLDER` makes the table of all."""


def main(arguments: Sequence[str]) -> None:
    """Runs the grid.

    Raises:
      InputError: whatever is wrong with flags, configs or data.
      SystemExit: with code 1, after all have been tried: a run failed.
    """
    words, overrides = command.split_overrides(arguments)
    options = _parser().parse_args(words)
    if options.jobs < 1 or options.seeds < 0:
        raise InputError("--jobs must be 1 or more, --seeds 0 or more")
    command.prepare_jax(-1)
    # This process only reads configs and data: an accelerator is for the runs.
    os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")
    from modaltune_jax.sweeping.grid import make_grid
    from modaltune_jax.sweeping.ledger import DONE, FAILED, Ledger
    from modaltune_jax.sweeping.processes import Sweep

    out = Path(options.out).expanduser()
    grid = make_grid(options.configs, options.cohorts, range(options.seeds), overrides, out)
    if options.dry_run:
        command.say(describe(grid))
        return
    ledger = Ledger(out / "sweep.csv", grid)
    total = sum(len(one.runs) for one in grid)
    command.say(
        f"{len(grid)} experiments, {total} runs, {ledger.count(grid, DONE)} of them finished: {ledger.path}"
    )
    prepare_records(grid)

    def say(text: str) -> None:
        command.say(f"[{ledger.count(grid, DONE) + ledger.count(grid, FAILED)}/{total}] {text}")

    Sweep(grid, ledger, options.jobs, say).run()
    num_failed = ledger.count(grid, FAILED)
    command.say(f"{ledger.count(grid, DONE)} of {total} runs are done, {num_failed} failed: {ledger.path}")
    if num_failed:
        sys.exit(1)


def run() -> None:
    """Entry point of the command."""
    command.run(main, interrupted="stopped: the same command goes on from there")


def describe(grid: Sequence[Experiment]) -> str:
    """A line an experiment."""
    lines = []
    for one in grid:
        variants, seeds = (", ".join(map(str, dict.fromkeys(part))) for part in zip(*one.runs, strict=True))
        lines.append(f"{one.workdir}: {one.words}; variants {variants}; seeds {seeds}")
    return "\n".join(lines)


def prepare_records(grid: Sequence[Experiment]) -> None:
    """Writes what records there are not yet, before two experiments try at once.

    Raises:
      InputError: data that is not there or cannot be used, with the experiment that asks for it.
    """
    from modaltune_jax.inputs.prepare import prepare

    ready = set()
    for one in grid:
        if one.config.data not in ready and not all(one.is_finished(*run) for run in one.runs):
            try:
                prepare(one.config.data)
            except InputError as error:
                raise InputError(f"{one.words}: {error}") from error
            ready.add(one.config.data)


def _parser() -> argparse.ArgumentParser:
    parser = command.Parser(
        prog="python -m modaltune_jax.sweep",
        description="Runs every config with every cohort and seed.",
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    add = parser.add_argument
    add("--configs", nargs="+", required=True, metavar="FILE[:WORDS]", help="experiments, as of training")
    add(
        "--cohorts", nargs="+", default=[], metavar="NAME", help="what {cohort} stands for, one after another"
    )
    add("--seeds", type=int, default=0, metavar="N", help="seeds 0 to N - 1; without, those of the configs")
    add("--out", default="runs/sweep", metavar="FOLDER", help="of all results; default runs/sweep")
    add(
        "--jobs",
        type=int,
        default=1,
        metavar="N",
        help="experiments side by side, each on its share of the cores; on one accelerator leave it at 1",
    )
    add("--dry-run", action="store_true", help="say what would be run, and stop")
    return parser


if __name__ == "__main__":
    run()

"""`python -m modaltune_jax.main --config=configs/pancancer.py:demo`: trains or evaluates an experiment."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from modaltune_jax import __version__, command, config_file, distributed

_EXAMPLES = """\
any value of the config can be set:
  --config.optim.epochs=20  --config.seeds=0,1,2  --config.data.path=FOLDER

the same command again goes on where it was stopped, and keeps the runs that are finished; SIGTERM, SIGUSR1
and Ctrl-C save after the step under way, a second one stops at once

configs that came with the package: {names}"""


def main(arguments: Sequence[str]) -> None:
    """Runs one command.

    Raises:
      InputError: whatever is wrong with flags, config, data or folders.
      FloatingPointError: training diverged.
    """
    words, overrides = command.split_overrides(arguments)
    options = _parser().parse_args(words)
    processes = distributed.from_flags(options)
    command.prepare_jax(options.verbosity)
    # A wrong path or file should not wait for jax.
    config_dict = config_file.load(options.config, overrides)
    from modaltune_jax import experiment
    from modaltune_jax.config import unpack

    config = unpack(config_dict)
    if processes is not None:
        distributed.start(processes)
    workdir = Path(options.workdir or Path("runs") / config.name).expanduser()
    experiment.run(config, workdir, is_training=options.mode == "train")


def run() -> None:
    """Entry point of the command."""
    command.run(main, interrupted="stopped: the same command goes on from the last checkpoint", terminated=0)


def _parser() -> argparse.ArgumentParser:
    parser = command.Parser(
        prog="python -m modaltune_jax.main",
        description="Trains a Modal Adapter on a slide encoder, probes it, and prints a table of results.",
        epilog=_EXAMPLES.format(names=", ".join(config_file.names())),
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument(
        "--config", required=True, metavar="FILE[:VARIANT]", help="experiment, a file of configs/"
    )
    parser.add_argument(
        "--workdir", metavar="FOLDER", help="of the results; default runs/<name in the config>"
    )
    parser.add_argument(
        "--mode",
        choices=("train", "evaluate"),
        default="train",
        help="evaluate probes the best checkpoints there are; default train",
    )
    parser.add_argument(
        "--verbosity", type=int, default=-1, metavar="N", help="-1 warnings (default), 0 what happens, 1 all"
    )
    distributed.add_flags(parser)
    parser.add_argument("--version", action="version", version=f"modaltune_jax {__version__}")
    return parser


if __name__ == "__main__":
    run()

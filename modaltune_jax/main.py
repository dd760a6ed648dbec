"""`python -m modaltune_jax.main --config=configs/pancancer.py:demo`: trains or evaluates an experiment."""

from __future__ import annotations

import argparse
import os
from collections.abc import Sequence
from pathlib import Path

from modaltune_jax import __version__, command, config_file

_OVERRIDE = "--config."
_EXAMPLES = """\
any value of the config can be set:
  --config.optim.epochs=20  --config.seeds=0,1,2  --config.data.path=FOLDER

the same command again goes on where it was stopped, and keeps the runs that are finished

configs that came with the package: {names}"""


def main(arguments: Sequence[str]) -> None:
    """Runs one command.

    Raises:
      InputError: whatever is wrong with flags, config, data or folders.
      FloatingPointError: training diverged.
    """
    options = _parser().parse_args([word for word in arguments if not word.startswith(_OVERRIDE)])
    overrides = [word.removeprefix(_OVERRIDE) for word in arguments if word.startswith(_OVERRIDE)]
    _prepare_jax(options.verbosity)
    # A wrong path or file should not wait for jax.
    config_dict = config_file.load(options.config, overrides)
    from modaltune_jax import experiment
    from modaltune_jax.config import unpack

    config = unpack(config_dict)
    workdir = Path(options.workdir or Path("runs") / config.name).expanduser()
    experiment.run(config, workdir, is_training=options.mode == "train")


def run() -> None:
    """Entry point of the command."""
    command.run(main, interrupted="stopped: the same command goes on from the last checkpoint")


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
    parser.add_argument("--version", action="version", version=f"modaltune_jax {__version__}")
    return parser


def _prepare_jax(verbosity: int) -> None:
    """What has to be decided before jax is imported: what is logged, and where compilations are kept."""
    import logging

    from absl import logging as absl_logging

    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3" if verbosity < 0 else "0")
    os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", os.path.expanduser("~/.cache/modaltune_jax/xla"))
    # Some sixty programs of 10 ms each are worth keeping too.
    os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0")
    logging.basicConfig(format="%(levelname)s: %(message)s")
    absl_logging.set_verbosity(verbosity)


if __name__ == "__main__":
    run()

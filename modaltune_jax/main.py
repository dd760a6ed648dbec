"""`python -m modaltune_jax.main --config=configs/pancancer.py:demo`: flags to config to train or evaluate."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from pathlib import Path

from absl import app, flags, logging
from ml_collections import config_flags

from modaltune_jax.locations import shipped
from modaltune_jax.types import InputError

_CONFIG = config_flags.DEFINE_config_file(
    "config",
    None,
    "Experiment, e.g. configs/pancancer.py:demo. Any value can be set: --config.optim.epochs=20",
    lock_config=True,
)
_WORKDIR = flags.DEFINE_string("workdir", None, "Folder of the results; default runs/<name of the config>.")
_MODE = flags.DEFINE_enum("mode", "train", ["train", "evaluate"], "train goes on where it was stopped.")
flags.mark_flag_as_required("config")


def main(argv: Sequence[str]) -> None:
    """Runs one command; wrong input ends it with one sentence and exit code 2."""
    if len(argv) > 1:
        raise app.UsageError(f"unexpected argument {argv[1]!r}; flags begin with --")
    # Only now: `--help` and a wrong flag should not wait for jax.
    from modaltune_jax import experiment
    from modaltune_jax.config import unpack

    try:
        config = unpack(_CONFIG.value)
        workdir = Path(_WORKDIR.value or Path("runs") / config.name)
        experiment.run(config, workdir, is_training=_MODE.value == "train")
    except InputError as error:
        logging.flush()
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)


def run() -> None:
    """Entry point of the installed command."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    root = str(shipped("configs").parent)
    if root not in sys.path:
        # Configs import each other as `configs.common`.
        sys.path.append(root)
    app.run(main, argv=[_locate_config(argument) for argument in sys.argv])


def _locate_config(argument: str) -> str:
    """A config that is not below the current folder is looked for among those that came with the package."""
    flag, separator, value = argument.partition("=")
    path, colon, parameter = value.partition(":")
    if flag.lstrip("-") != "config" or not separator or Path(path).is_file():
        return argument
    known = shipped("configs") / Path(path).name
    if not known.is_file():
        names = ", ".join(sorted(file.name for file in shipped("configs").glob("*.py")))
        print(f"error: config file {path!r} does not exist; shipped configs: {names}", file=sys.stderr)
        sys.exit(2)
    return f"{flag}={known}{colon}{parameter}"


if __name__ == "__main__":
    run()

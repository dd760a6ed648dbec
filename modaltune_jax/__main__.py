"""`modaltune NAME ...`: the commands under one name; without a name, training."""

from __future__ import annotations

import importlib
import sys

COMMANDS = {
    "convert": "modaltune_jax.convert.__main__",
    "evaluate": "modaltune_jax.evaluate",
    "example": "modaltune_jax.example",
    "inspect": "modaltune_jax.inspect",
    "pack": "modaltune_jax.pack",
    "report": "modaltune_jax.report",
    "split": "modaltune_jax.split",
    "sweep": "modaltune_jax.sweep",
    "train": "modaltune_jax.main",
    "zero_shot": "modaltune_jax.zero_shot",
}
"""What may stand behind `modaltune`, and the module whose `run` it is."""


def run() -> None:
    """Entry point of all commands."""
    name = sys.argv[1] if sys.argv[1:2] else ""
    if name in COMMANDS:
        del sys.argv[1]
    importlib.import_module(COMMANDS.get(name, COMMANDS["train"])).run()


if __name__ == "__main__":
    run()

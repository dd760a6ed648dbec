"""What all commands share: a parser, config overrides, how jax starts, errors that end in one sentence."""

from __future__ import annotations

import argparse
import io
import os
import re
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NoReturn

from modaltune_jax.args_file import read_args_file
from modaltune_jax.signals import Terminated, terminations_raise
from modaltune_jax.types import InputError

_OVERRIDE = "--config."
_TEMPORARY = re.compile(r"^\.?(.+?)(-[0-9a-f]{8})?\.partial$")
"""Names that files have until they are whole."""


class Parser(argparse.ArgumentParser):
    """An argument parser that raises instead of printing its whole usage.

    With `fromfile_prefix_chars="@"`, `@FILE` stands for the flags in a file, see `read_args_file`.
    """

    def error(self, message: str) -> NoReturn:
        raise InputError(f"{message}; --help lists what there is")

    def _read_args_from_files(self, arg_strings: list[str]) -> list[str]:
        # argparse would read them in the encoding of the file system, and a file in itself for ever.
        words: list[str] = []
        for word in arg_strings:
            words += read_args_file(Path(word[1:])) if word.startswith("@") else [word]
        return words


def run(main: Callable[[Sequence[str]], None], *, interrupted: str, terminated: int = 143) -> None:
    """Entry point of a command: what the user can mend ends in one sentence, not in a traceback.

    Exit codes: 2 for wrong input, 1 for training that diverged, 130 for Ctrl-C.

    Args:
      main: the command, on the words of its command line.
      interrupted: what to say after Ctrl-C, SIGTERM and SIGUSR1, unless the exception says it better.
      terminated: exit code for SIGTERM and SIGUSR1; 0 if nothing is lost by them.
    """
    if isinstance(sys.stdout, io.TextIOWrapper):
        # Names have letters that not every terminal has.
        sys.stdout.reconfigure(errors="backslashreplace")
    try:
        with terminations_raise():
            main(sys.argv[1:])
    except InputError as error:
        _end(f"error: {error}", 2)
    except OSError as error:
        if error.filename is None:
            raise
        _end(f"error: {_meant(error)}: {error.strerror}", 2)
    except FloatingPointError as error:
        _end(f"error: {error}", 1)
    except Terminated as stop:
        _end(str(stop) or interrupted, terminated)
    except KeyboardInterrupt as stop:
        _end(str(stop) or interrupted, 130)


def say(text: object) -> None:
    """Prints; goes on without a word once nobody reads any more, as behind `| head`."""
    try:
        print(text, flush=True)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def split_overrides(arguments: Sequence[str]) -> tuple[list[str], list[str]]:
    """The words of a command line without, and the `key=value` of, all that begin with `--config.`."""
    words = [word for word in arguments if not word.startswith(_OVERRIDE)]
    return words, [word.removeprefix(_OVERRIDE) for word in arguments if word.startswith(_OVERRIDE)]


def prepare_jax(verbosity: int) -> None:
    """What has to be decided before jax is imported: what is logged, and where compilations are kept."""
    import logging

    from absl import logging as absl_logging

    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3" if verbosity < 0 else "0")
    os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", os.path.expanduser("~/.cache/modaltune_jax/xla"))
    # Some sixty programs of 10 ms each are worth keeping too.
    os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0")
    # Of several processes, it would take SIGTERM away from Python and tell only its own clients.
    os.environ.setdefault("JAX_ENABLE_PREEMPTION_SERVICE", "0")
    logging.basicConfig(format="%(levelname)s: %(message)s")
    absl_logging.set_verbosity(verbosity)


def _meant(error: OSError) -> Path:
    """The file that could not be read or written, by the name that it would have had when whole."""
    path = Path(os.fsdecode(error.filename2 or error.filename))
    return path.with_name(_TEMPORARY.sub(r"\1", path.name))


def _end(message: str, code: int) -> NoReturn:
    print(" ".join(message.splitlines()), file=sys.stderr)
    sys.exit(code)

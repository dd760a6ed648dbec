"""What all commands share: a parser, config overrides, how jax starts, errors that end in one sentence."""

from __future__ import annotations

import argparse
import os
import shlex
import sys
from collections.abc import Callable, Sequence
from typing import NoReturn

from modaltune_jax.signals import Terminated, terminations_raise
from modaltune_jax.types import InputError

_OVERRIDE = "--config."


class Parser(argparse.ArgumentParser):
    """An argument parser that raises instead of printing its whole usage.

    With `fromfile_prefix_chars="@"`, `@FILE` stands for the flags in a file, written as on the command line;
    lines may be broken anywhere, and what follows a # is left out.
    """

    def error(self, message: str) -> NoReturn:
        raise InputError(f"{message}; --help lists what there is")

    def convert_arg_line_to_args(self, arg_line: str) -> list[str]:
        return shlex.split(arg_line, comments=True)


def run(main: Callable[[Sequence[str]], None], *, interrupted: str, terminated: int = 143) -> None:
    """Entry point of a command: what the user can mend ends in one sentence, not in a traceback.

    Exit codes: 2 for wrong input, 1 for training that diverged, 130 for Ctrl-C.

    Args:
      main: the command, on the words of its command line.
      interrupted: what to say after Ctrl-C, SIGTERM and SIGUSR1, unless the exception says it better.
      terminated: exit code for SIGTERM and SIGUSR1; 0 if nothing is lost by them.
    """
    try:
        with terminations_raise():
            main(sys.argv[1:])
    except InputError as error:
        _end(f"error: {error}", 2)
    except OSError as error:
        if error.filename is None:
            raise
        _end(f"error: {error.filename}: {error.strerror}", 2)
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


def _end(message: str, code: int) -> NoReturn:
    print(" ".join(message.splitlines()), file=sys.stderr)
    sys.exit(code)

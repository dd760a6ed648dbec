"""What all commands share: a parser, and errors that end in one sentence."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence
from typing import NoReturn

from modaltune_jax.types import InputError


class Parser(argparse.ArgumentParser):
    """An argument parser that raises instead of printing its whole usage."""

    def error(self, message: str) -> NoReturn:
        raise InputError(f"{message}; --help lists what there is")


def run(main: Callable[[Sequence[str]], None], *, interrupted: str) -> None:
    """Entry point of a command: what the user can mend ends in one sentence, not in a traceback.

    Exit codes: 2 for wrong input, 1 for training that diverged, 130 for Ctrl-C.

    Args:
      main: the command, on the words of its command line.
      interrupted: what to say after Ctrl-C.
    """
    try:
        main(sys.argv[1:])
    except InputError as error:
        _end(f"error: {error}", 2)
    except OSError as error:
        if error.filename is None:
            raise
        _end(f"error: {error.filename}: {error.strerror}", 2)
    except FloatingPointError as error:
        _end(f"error: {error}", 1)
    except KeyboardInterrupt:
        _end(interrupted, 130)


def _end(message: str, code: int) -> NoReturn:
    print(" ".join(message.splitlines()), file=sys.stderr)
    sys.exit(code)

"""What a library says when a file cannot be read: is it the file, or the disk, the network or the memory?

Only the first is a verdict on the slide. The others are mended, and then the same file can be read.
"""

from __future__ import annotations

import errno
import math
import os
import re
from pathlib import Path

from modaltune_jax.types import InputError

_ERRNO = re.compile(r"errno = (\d+)")
_ELSEWHERE = {
    *(errno.ENOENT, errno.EIO, errno.ESTALE, errno.ETIMEDOUT, errno.EACCES, errno.EPERM, errno.ENOTCONN),
    *(errno.ENODEV, errno.ENXIO, errno.EHOSTDOWN, errno.EHOSTUNREACH, errno.ENETDOWN, errno.ENETUNREACH),
    *(errno.ECONNRESET, errno.EMFILE, errno.ENFILE, errno.ENOTDIR, errno.EREMOTEIO),
}
_MAX_EXPANSION = 2000
"""No common compression makes more of a byte; sizes beyond are damage, not a large slide."""
_LENGTH = 160


class UnavailableError(InputError):
    """A file cannot be read here and now, which says nothing about what it holds."""


def told(path: Path, error: BaseException, wrong: str) -> InputError:
    """What to raise for an error of a library that reads a file.

    Args:
      path: of the file.
      error: as raised.
      wrong: what to say of a damaged file, with "{}" where the library's own words go.

    Returns:
      An `UnavailableError` where the cause lies elsewhere.
    """
    if isinstance(error, MemoryError) and not _is_absurd(path, error):
        return UnavailableError(
            f"{path}: there is not enough memory to read it ({shortly(error)}); give it fewer --workers or a"
            " larger machine, or take the file away if it should be small"
        )
    number = _number(error)
    if number in (errno.EAGAIN, errno.EDEADLK):
        return InputError(f"{path} is locked: another program has it open for writing; close that")
    if number in _ELSEWHERE:
        return unreachable(path, error)
    return InputError(f"{path} {wrong.format(f'({shortly(error)})')}")


def unreachable(path: Path, error: BaseException) -> UnavailableError:
    """What to raise where the operating system gives no bytes of a file that was there before."""
    number = _number(error)
    words = os.strerror(number) if number else shortly(error)
    return UnavailableError(
        f"{path} cannot be reached any more ({words}): mend that, or take the file away; the same command"
        " goes on where this one stopped"
    )


def shortly(error: BaseException) -> str:
    """The words of a library on one line, without the time of day and without addresses."""
    lines = str(error).splitlines()
    text = (lines[0] if lines else type(error).__name__).partition(": time = ")[0]
    text = text if len(text) <= _LENGTH else f"{text[:_LENGTH]}..."
    return text + ")" * (text.count("(") - text.count(")"))


def _number(error: BaseException) -> int | None:
    """The operating system's number of an error, which HDF5 may have in its words alone."""
    if isinstance(error, OSError) and error.errno:
        return error.errno
    found = _ERRNO.search(str(error))
    return int(found[1]) if found else None


def _is_absurd(path: Path, error: MemoryError) -> bool:
    """Whether numpy was to make an array of which the file cannot be the source."""
    shape, dtype = getattr(error, "shape", None), getattr(error, "dtype", None)
    if shape is None or dtype is None:
        return False
    return math.prod(shape) * dtype.itemsize > _MAX_EXPANSION * path.stat().st_size

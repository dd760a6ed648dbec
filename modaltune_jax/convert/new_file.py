"""Files that appear whole or not at all."""

from __future__ import annotations

import contextlib
import os
import uuid
from collections.abc import Iterator
from pathlib import Path

from modaltune_jax.types import InputError


@contextlib.contextmanager
def new_file(path: Path) -> Iterator[Path]:
    """Gives a temporary name beside `path`, which takes its place at the end; after an error nothing is left.

    Args:
      path: of the file; replaced if it exists, its folder is made.

    Raises:
      InputError: the file cannot be written, e.g. as the disk is full.
    """
    # A process id is not enough: containers that share a disk may share theirs too.
    temporary = path.with_name(f".{path.name}-{uuid.uuid4().hex[:8]}.partial")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            yield temporary
            os.replace(temporary, path)
        finally:
            temporary.unlink(missing_ok=True)
    except OSError as error:
        raise InputError(
            f"{path} cannot be written ({error.strerror}): mend that, or write elsewhere"
        ) from error

"""Files that a pack was made from: whether they are the same as before, cheaply or for certain."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable
from pathlib import Path

from modaltune_jax.inputs.readers.slide_file import SlideFile

_BLOCK = 1 << 20


def files_of(slide: SlideFile) -> list[Path]:
    """The files of a slide, in a fixed order; a folder stands for all files below it."""
    paths = [slide.path] if slide.coords_path is None else [slide.path, slide.coords_path]
    return [file for path in paths for file in _files(path)]


def stamps(files: Iterable[Path]) -> list[tuple[str, int, int]]:
    """Path, bytes and time of change (ns) of every file: if these agree, contents are taken as unchanged."""
    stats = [(str(path), path.stat()) for path in files]
    return [(name, stat.st_size, stat.st_mtime_ns) for name, stat in stats]


def sha256(files: Iterable[Path]) -> str:
    """Hash of the contents, one after the other."""
    digest = hashlib.sha256()
    block = bytearray(_BLOCK)
    for path in files:
        with path.open("rb", buffering=0) as file:
            while size := file.readinto(block):
                digest.update(memoryview(block)[:size])
    return digest.hexdigest()


def why_unreadable(files: Iterable[Path]) -> str:
    """Why files that are listed cannot be read from the beginning, `""` if they can."""
    for path in files:
        if path.is_symlink() and not path.exists():
            return f"{path} is a link to {os.readlink(path)}, where nothing is; mend or remove the link"
        if path.exists() and not os.access(path, os.R_OK):
            return f"{path} may not be read by you; change who may"
    return ""


def _files(path: Path) -> list[Path]:
    if not path.is_dir():
        return [path]
    return sorted(file for file in path.rglob("*") if file.is_file())

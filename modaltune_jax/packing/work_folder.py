"""The folder beside the records in which they come to be, and in which an interrupted pack goes on."""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
from collections.abc import Container, Iterator
from pathlib import Path

from modaltune_jax.types import InputError


class WorkFolder:
    """Paths in the work folder of records to be.

    Attributes:
      cases: records and verdicts of single cases.
      done: the size of every finished file of `records`, in a file named by what is in it.
      records: what will be renamed to the records.
    """

    def __init__(self, out: Path):
        if out.name in ("", ".."):
            raise InputError(
                f"--out is {out}, which has no name of its own: name a new folder, e.g. records/brca"
            )
        self.out = out
        self.root = out.with_name(f".{out.name}.packing")
        self.cases = self.root / "cases"
        self.done = self.root / "done"
        self.records = self.root / "records"

    @contextlib.contextmanager
    def locked(self) -> Iterator[None]:
        """Makes the folder, or enters the one that is there; nobody else may work in it meanwhile.

        Raises:
          InputError: somebody does.
        """
        self.root.mkdir(parents=True, exist_ok=True)
        with (self.root / "lock").open("a+") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                # Whoever held the lock may have finished and removed the folder.
                is_current = os.fstat(file.fileno()).st_ino == (self.root / "lock").stat().st_ino
            except (BlockingIOError, FileNotFoundError):
                is_current = False
            if not is_current:
                file.seek(0)
                raise InputError(
                    f"{self.out} is being packed by process {file.read().strip() or 'unknown'}:"
                    " wait for it, or choose another --out"
                )
            file.truncate(0)
            file.write(str(os.getpid()))
            file.flush()
            for folder in (self.cases, self.done):
                folder.mkdir(exist_ok=True)
            yield

    @property
    def is_finished(self) -> bool:
        """Whether a pack got as far as to put its records in place, but not to remove this folder."""
        return self.out.exists() and self.done.exists() and not self.records.exists()

    def sweep_cases(self, names: Container[str]) -> None:
        """Removes files of cases but those of these names: of changed sources, and half-written ones."""
        _sweep(self.cases, names)

    def sweep_records(self, keys: Container[str], files: Container[str]) -> None:
        """Removes marks but these, then files of records but these."""
        _sweep(self.done, keys)
        _sweep(self.records, files)

    def put_into_place(self) -> None:
        """Renames the records to their final name, and removes the folder."""
        os.rename(self.records, self.out)
        self.remove()

    def remove(self) -> None:
        """Removes the folder, the marks last: they tell `is_finished`."""
        shutil.rmtree(self.cases, ignore_errors=True)
        shutil.rmtree(self.root)


def check_out(out: Path) -> None:
    """Refuses a folder that is there, unless an earlier pack made it and has only its work folder to remove.

    Raises:
      InputError: it is there, or cannot be made.
    """
    if out.exists() and not WorkFolder(out).is_finished:
        raise InputError(f"{out} exists already: remove it, or choose another --out")


def sync(path: Path) -> None:
    """Waits until a file or folder is on the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _sweep(folder: Path, names: Container[str]) -> None:
    for path in folder.iterdir():
        if path.name not in names:
            path.unlink()

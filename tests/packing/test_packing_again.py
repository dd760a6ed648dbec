"""Packing that dies, is damaged or wants for something, and is run again."""

import dataclasses
import os
import shutil
import signal
from pathlib import Path

import numpy as np
import pytest

from modaltune_jax.inputs.readers.slide_file import SlideOptions
from modaltune_jax.inputs.records import Records
from modaltune_jax.packing import pack as packing
from modaltune_jax.packing import packed_case, shards
from modaltune_jax.packing.pack import Effort, Origin, pack
from modaltune_jax.packing.process_pool import Lost, map_unordered
from modaltune_jax.packing.verification import verify
from modaltune_jax.packing.work_folder import WorkFolder
from modaltune_jax.types import InputError, Labels
from tests import feature_files as ff
from tests.packing.packable import (
    ORIGIN,
    SPEC,
    hashes,
    joined_of,
    reasons,
    write_slide,
)


class Killed(BaseException):
    """What stands for the end of the process."""


def die(*args):
    raise Killed


class Life:
    """Ends at the n-th change of the disk: that one and all later ones do not happen."""

    _NAMES = ("replace", "rename", "write", "unlink", "mkdir", "fsync", "open", "rmdir")

    def __init__(self, monkeypatch, length: int):
        self.left = length
        for name in self._NAMES:
            monkeypatch.setattr(os, name, self._mortal(getattr(os, name)))
        # shutil.rmtree and pathlib hold on to some of the functions.
        monkeypatch.setattr(shards, "open_shard", self._mortal(shards.open_shard))
        monkeypatch.setattr(packing, "write_sidecars", self._mortal(packing.write_sidecars))
        monkeypatch.setattr(packing, "write_documents", self._mortal(packing.write_documents))

    def _mortal(self, function):
        def call(*args, **kwargs):
            self.left -= 1
            if self.left < 0:
                raise Killed
            return function(*args, **kwargs)

        return call


def test_killed_at_any_moment_and_run_again_equals_an_undisturbed_run(folder, out, monkeypatch):
    pack(joined_of(folder), ORIGIN, out, Effort())
    expected = hashes(out)
    shutil.rmtree(out)
    num_kills = 0
    for length in range(0, 1000, 16):
        with monkeypatch.context() as patch:
            life = Life(patch, length)
            try:
                pack(joined_of(folder), ORIGIN, out, Effort())
            except Killed:
                num_kills += 1
        if life.left >= 0:
            break
        for _ in range(2):
            if not out.exists() or WorkFolder(out).root.exists():
                pack(joined_of(folder), ORIGIN, out, Effort())
        assert hashes(out) == expected
        assert not WorkFolder(out).root.exists()
        shutil.rmtree(out)
    assert num_kills > 6


def test_a_second_run_does_only_what_is_left(folder, out, monkeypatch):
    done = []
    monkeypatch.setattr(
        packing, "pack_case", lambda task: done.append(task.case.id) or packed_case.pack_case(task)
    )
    monkeypatch.setattr(packing, "write_shard", die)
    with pytest.raises(Killed):
        pack(joined_of(folder), ORIGIN, out, Effort())
    assert sorted(done) == [f"P{i}" for i in range(5)]
    done.clear()
    write_slide(folder, "P1-0", tiles=33)
    changed = dataclasses.replace(joined_of(folder).cases[4], labels=Labels(age=3.0))
    joined = dataclasses.replace(joined_of(folder), cases=(*joined_of(folder).cases[:4], changed))
    monkeypatch.setattr(packing, "write_shard", shards.write_shard)
    pack(joined, ORIGIN, out, Effort())
    assert sorted(done) == ["P1", "P4"]
    assert Records(out).lengths.tolist() == [11, 33, 19, 11, 13]
    assert Records(out).labels(4).age == 3.0


def test_cases_of_a_finished_file_that_no_longer_fits_are_packed_again(folder, out, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr(packing, "write_sidecars", die)
        with pytest.raises(Killed):
            pack(joined_of(folder), ORIGIN, out, Effort())
    assert list(WorkFolder(out).cases.glob("*.record")) == []
    write_slide(folder, "P0-0", tiles=44)
    pack(joined_of(folder), ORIGIN, out, Effort())
    verify(out, with_sources=True)
    assert Records(out).lengths.tolist() == [50, 7, 19, 11, 13]


@pytest.mark.parametrize("content", ["", "[1, 2", "[[[1]], [], 0, 0]"])
def test_damaged_verdicts_are_made_again(folder, out, monkeypatch, content):
    with monkeypatch.context() as patch:
        patch.setattr(packing, "write_shard", die)
        with pytest.raises(Killed):
            pack(joined_of(folder), ORIGIN, out, Effort())
    for path in WorkFolder(out).cases.glob("*.json"):
        path.write_text(content)
    pack(joined_of(folder), ORIGIN, out, Effort())
    verify(out)


def test_a_share_that_drops_out_stops_the_pack_and_is_no_verdict(folder, out, monkeypatch):
    joined = joined_of(folder)
    read_slide = packed_case.read_slide

    def gone(file, options):
        if file.id == "P2-0":
            folder.rename("gone")
        return read_slide(file, options)

    with monkeypatch.context() as patch:
        patch.setattr(packed_case, "read_slide", gone)
        with pytest.raises(InputError, match=r"cannot be reached any more \(No such file.*mend that"):
            pack(joined, ORIGIN, out, Effort())
    Path("gone").rename(folder)
    pack(joined, ORIGIN, out, Effort())
    assert reasons(out) == []


def test_faults_are_looked_at_again(folder, out, monkeypatch):
    def locked(file, options):
        raise InputError(f"{file.path} is locked")

    with monkeypatch.context() as patch:
        patch.setattr(packed_case, "read_slide", locked)
        with pytest.raises(InputError, match=r"P\d-0.npz is locked"):
            pack(joined_of(folder), ORIGIN, out, Effort(is_strict=True))
    pack(joined_of(folder), ORIGIN, out, Effort(is_strict=True))
    assert reasons(out) == []


def test_a_want_of_memory_is_no_verdict(folder, out, monkeypatch):
    def large(file, options):
        np.empty(1 << 45)

    monkeypatch.setattr(packed_case, "read_slide", large)
    with pytest.raises(InputError, match=r"case P\d: there is not enough memory for its"):
        pack(joined_of(folder), ORIGIN, out, Effort())


def test_a_full_disk_is_told_while_files_are_put_together(folder, out, monkeypatch):
    def full(*args):
        raise RuntimeError("No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(shards, "open_shard", full)
        with pytest.raises(InputError, match=r"No space left on device.*make room"):
            pack(joined_of(folder), ORIGIN, out, Effort())
    pack(joined_of(folder), ORIGIN, out, Effort())
    verify(out)


def test_a_finished_file_that_was_cut_is_written_again(folder, out, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr(packing, "write_sidecars", die)
        with pytest.raises(Killed):
            pack(joined_of(folder), ORIGIN, out, Effort())
    for path in WorkFolder(out).records.iterdir():
        os.truncate(path, 100)
    pack(joined_of(folder), ORIGIN, out, Effort())
    verify(out)


def test_damaged_records_are_told_and_made_again(folder, out, monkeypatch):
    monkeypatch.setattr(packing, "write_shard", die)
    with pytest.raises(Killed):
        pack(joined_of(folder), ORIGIN, out, Effort())
    monkeypatch.setattr(packing, "write_shard", shards.write_shard)
    path = max(WorkFolder(out).cases.glob("*.record"))
    content = path.read_bytes()
    path.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    with pytest.raises(InputError, match=r"case P\d: .* is not as it was written"):
        pack(joined_of(folder), ORIGIN, out, Effort())
    pack(joined_of(folder), ORIGIN, out, Effort())
    verify(out)


def test_a_full_disk_is_told(folder, out, monkeypatch):
    def full(*args):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, "write", full)
        with pytest.raises(InputError, match=r"No space left on device.*goes on where"):
            pack(joined_of(folder), ORIGIN, out, Effort())
    assert list(WorkFolder(out).cases.iterdir()) == []


def end(how: str) -> str:
    """A task that ends its process, or does not end."""
    if how == "loop":
        while True:
            pass
    if how != "well":
        os.kill(os.getpid(), getattr(signal, how))
    return how


def test_tasks_that_take_their_process_down_are_known():
    tasks = ["well", "SIGSEGV", "loop", "well"]
    results = list(map_unordered(end, tasks, 2, str, lambda how: 1 if how == "loop" else 60))
    assert sorted(results, key=str) == [
        ("SIGSEGV", Lost("crashes the process that reads it (SIGSEGV)")),
        ("loop", Lost("keeps a process busy without end")),
        ("well", "well"),
        ("well", "well"),
    ]


def test_a_killed_process_is_told_with_its_task():
    with pytest.raises(InputError, match=r"want of memory, while at work on SIGKILL; .* a machine with more"):
        list(map_unordered(end, ["SIGKILL"], 1, str))


def test_files_that_crash_the_library_go_to_quarantine(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for i in range(3):
        path = ff.write_trident(Path(f"f/P{i}-0.h5"), *ff.bag(60, 8, np.float16))
    content = bytearray(path.read_bytes())
    # The type of an attribute, by which HDF5 takes its text for something else.
    content[content.index(b"encoder\0\x19\x01") + 9] = 44
    path.write_bytes(content)
    joined = joined_of(Path("f"), (), SlideOptions())
    joined = dataclasses.replace(joined, cases=joined.cases[:3])
    origin = Origin((SPEC,), SlideOptions(), (), {}, "by hand")
    pack(joined, origin, Path("out"), Effort(workers=1))
    assert [line.partition(",")[0] for line in reasons(Path("out"))] == ["P2", "P2"]

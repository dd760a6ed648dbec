"""Reading ArrayRecord files in place, beside ArrayRecord's own reader."""

import os

import numpy as np
import pytest
from array_record.python.array_record_module import ArrayRecordReader, ArrayRecordWriter
from hypothesis import given, settings
from hypothesis import strategies as st

from modaltune_jax.inputs.storage.array_record import RecordFiles

OPTIONS = "group_size:1,uncompressed"
USABLE = (1 << 16) - 24  # bytes of a block that are not its header


def write(path, records, options=OPTIONS):
    writer = ArrayRecordWriter(str(path), options)
    for record in records:
        writer.write(record)
    writer.close()
    return path


def read_all(path):
    reader = ArrayRecordReader(str(path))
    records = reader.read_all()
    reader.close()
    return records


def random_bytes(size, seed=0):
    return np.random.default_rng(seed).bytes(size)


def read(files, i):
    with files.open(i) as record:
        return record.read(0, len(record))


# Sizes at which a record, or the header behind it, ends just before, in or just after a block's header.
@pytest.mark.parametrize("size", [0, 1, 127, 128, *range(USABLE - 130, USABLE + 30), 3 * USABLE - 84])
def test_records_around_a_block_border(tmp_path, size):
    records = [random_bytes(size), b"next", random_bytes(100, 1)]
    path = write(tmp_path / "r", records)
    files = RecordFiles([path], [3])
    assert [read(files, i) for i in range(3)] == records == read_all(path)


near_borders = st.builds(
    lambda blocks, rest: max(blocks * USABLE + rest, 0), st.integers(0, 3), st.integers(-150, 150)
)


@settings(max_examples=60, deadline=None)
@given(sizes=st.lists(near_borders, max_size=6), data=st.data())
def test_any_records_and_any_part_of_them(tmp_path_factory, sizes, data):
    records = [random_bytes(size, i) for i, size in enumerate(sizes)]
    path = write(tmp_path_factory.mktemp("records") / "r", records)
    files = RecordFiles([path], [len(records)])
    assert [read(files, i) for i in range(len(records))] == records
    for i, content in enumerate(records):
        start = data.draw(st.integers(0, len(content)))
        stop = data.draw(st.integers(start, len(content)))
        out = np.zeros(stop - start, np.uint8)
        with files.open(i) as record:
            record.read_into(start, memoryview(out))
            assert record.read(start, len(content)) == content[start:]
        assert out.tobytes() == content[start:stop]


def test_large_records(tmp_path):
    records = [random_bytes(70_000_000), random_bytes(3_000_000, 1)]
    files = RecordFiles([write(tmp_path / "r", records)], [2])
    assert [read(files, i) for i in range(2)] == records


def test_records_are_numbered_through_the_files(tmp_path):
    contents = [[b"a", b"b"], [], [b"c"], [b"d", b"e", b"f"]]
    paths = [write(tmp_path / f"{k}", records) for k, records in enumerate(contents)]
    files = RecordFiles(paths, [len(records) for records in contents])
    assert b"".join(read(files, i) for i in (3, 0, 5, 2, 1, 4)) == b"dafcbe"


def test_file_systems_that_read_less_than_they_are_asked_to(tmp_path, monkeypatch):
    content = random_bytes(300_000)
    path = write(tmp_path / "r", [b"first", content])
    preadv = os.preadv
    rng = np.random.default_rng(0)

    def reluctant(file, buffers, position):
        some = memoryview(bytearray(int(rng.integers(1, 5000))))
        count = preadv(file, [some], position)
        rest = some[:count]
        taken = 0
        for buffer in buffers:
            size = min(len(buffer), len(rest))
            memoryview(buffer)[:size] = rest[:size]
            rest, taken = rest[size:], taken + size
        return taken

    monkeypatch.setattr(os, "preadv", reluctant)
    assert read(RecordFiles([path], [2]), 1) == content


@pytest.mark.parametrize(
    "options",
    [
        "group_size:1",
        "group_size:1,zstd:3",
        "group_size:1,brotli:1",
        "group_size:1,snappy",
        "group_size:2,uncompressed",
        "group_size:1,transpose:true",
    ],
)
def test_files_of_other_options_are_refused(tmp_path, options):
    path = write(tmp_path / "r", [bytes(1000), bytes(1000)], options)
    with pytest.raises(ValueError, match=r"r is damaged at byte 64, or compressed or grouped"):
        read(RecordFiles([path], [2]), 0)


def test_more_records_than_there_are(tmp_path):
    path = write(tmp_path / "r", [b"a"])
    with pytest.raises(ValueError, match="damaged"):
        read(RecordFiles([path], [2]), 0)


@pytest.mark.parametrize("size", [0, 50, 80, 300, 70_000])
def test_a_file_that_is_cut_off(tmp_path, size):
    path = write(tmp_path / "r", [random_bytes(100_000)])
    os.truncate(path, size)
    with pytest.raises(ValueError, match=r"r ends at byte \d+, within a record"):
        read(RecordFiles([path], [1]), 0)


def test_a_file_of_another_kind(tmp_path):
    (tmp_path / "r").write_bytes(bytes(1 << 17))
    with pytest.raises(ValueError, match="r is no ArrayRecord file"):
        read(RecordFiles([tmp_path / "r"], [1]), 0)


def test_bytes_beyond_the_record(tmp_path):
    files = RecordFiles([write(tmp_path / "r", [b"abc", b"def"])], [2])
    with files.open(0) as record:
        assert record.read(1, 100) == b"bc"
        assert record.read(5, 100) == b""
        with pytest.raises(ValueError, match="bytes 1 to 4 are not in a record of 3"):
            record.read_into(1, memoryview(bytearray(3)))

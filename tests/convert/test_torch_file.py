"""Torch files: what is written is read bit by bit, and damage is named."""

import os
import tracemalloc
import zipfile

import numpy as np
import pytest

from modaltune_jax.convert.tensor_file import open_tensors
from modaltune_jax.convert.torch_writer import write_torch
from modaltune_jax.types import InputError
from tests import torch_bytes as tb
from tests.tensors import every_kind, same

SIX = np.arange(6, dtype=np.float32)
FLOATS = tb.storage("FloatStorage", "0", 6)


def read(path):
    with open_tensors(path) as file:
        return dict(file)


@pytest.mark.parametrize("under", [None, "model"])
def test_round_trip(tmp_path, under):
    write_torch(tmp_path / "weights.pth", every_kind(), under=under)
    same(read(tmp_path / "weights.pth"), every_kind())
    assert [*read(tmp_path / "weights.pth")] == [*every_kind()]


def test_the_writer_aligns_its_tensors_and_is_deterministic(tmp_path):
    first, second = tmp_path / "a.pth", tmp_path / "b.pth"
    for path in (first, second):
        write_torch(path, every_kind())
    assert first.read_bytes() == second.read_bytes()
    data = first.read_bytes()
    with zipfile.ZipFile(first) as archive:
        assert archive.testzip() is None
        for info in archive.infolist():
            sizes = data[info.header_offset + 26 : info.header_offset + 30]
            start = info.header_offset + 30 + sizes[0] + 256 * sizes[1] + sizes[2] + 256 * sizes[3]
            assert start % 64 == 0, info.filename
            assert data[start : start + info.file_size] == archive.read(info)


def test_the_writer_leaves_the_old_file_if_it_fails(tmp_path):
    path = tmp_path / "weights.pth"
    write_torch(path, {"a": SIX})
    with pytest.raises(InputError, match="'b' has dtype complex64"):
        write_torch(path, {"a": SIX + 1, "b": SIX.astype(np.complex64)})
    assert os.listdir(tmp_path) == ["weights.pth"]
    same(read(path), {"a": SIX})


def test_files_of_torch(tmp_path):
    tb.write_zip(tmp_path / "new.pth", tb.BATCH_NORM, tb.BATCH_NORM_STORAGES)
    ones, zeros = np.ones(2, np.float32), np.zeros(2, np.float32)
    expected = {"weight": np.float32([1.5, -2]), "bias": np.float32([0.25, 8])}
    expected |= {"running_mean": zeros, "running_var": ones, "num_batches_tracked": np.array(0)}
    same(read(tmp_path / "new.pth"), expected)
    (tmp_path / "old.pth").write_bytes(tb.LEGACY)
    matrix = SIX.reshape(2, 3)
    same(read(tmp_path / "old.pth"), {"w": matrix, "t": matrix.T, "step": np.array(7)})


VIEWS = [
    pytest.param((6,), (1,), 0, SIX, id="all"),
    pytest.param((2, 3), (3, 1), 0, SIX.reshape(2, 3), id="matrix"),
    pytest.param((3, 2), (1, 3), 0, SIX.reshape(2, 3).T, id="transposed"),
    pytest.param((2,), (3,), 1, SIX[1::3], id="column"),
    pytest.param((), (), 5, SIX[5], id="last element"),
    pytest.param((3, 2), (1, 1), 2, SIX[[[2, 3], [3, 4], [4, 5]]], id="sliding window"),
    pytest.param((4,), (0,), 3, SIX[[3, 3, 3, 3]], id="expanded, but no larger than the storage"),
    pytest.param((1, 2), (2**62, 1), 4, SIX[None, 4:], id="any step along an axis of one"),
    pytest.param((0, 2), (2**62, 1), 4, np.zeros((0, 2), np.float32), id="empty"),
    pytest.param((1,) * 64, (1,) * 64, 2, SIX[2].reshape((1,) * 64), id="64 axes"),
]


@pytest.mark.parametrize(("shape", "strides", "offset", "expected"), VIEWS)
def test_views(tmp_path, shape, strides, offset, expected):
    state = tb.mapping({"all": tb.tensor(FLOATS, (6,), (1,)), "x": tb.tensor(FLOATS, shape, strides, offset)})
    path = tb.write_zip(tmp_path / "weights.pth", tb.pickle(state), {"0": SIX.tobytes()})
    same(read(path), {"all": SIX, "x": expected})
    array = read(path)["x"]
    assert array.flags.c_contiguous
    assert array.flags.writeable
    path.write_bytes(tb.legacy(state, {"0": (6, SIX.tobytes())}))
    same(read(path), {"all": SIX, "x": expected})


@pytest.mark.parametrize(
    ("shape", "strides", "offset", "message"),
    [
        pytest.param(
            (7,), (1,), 0, r"7 elements and a storage of 6, as after.*\.contiguous\(\)", id="too long"
        ),
        pytest.param((2**40,), (0,), 0, "elements and a storage of 6", id="expanded to a terabyte"),
        pytest.param((2, 3), (3, 1), 1, "reaches element 7 of a storage of 6", id="offset"),
        pytest.param((2,), (6,), 0, "reaches element 7", id="stride"),
        pytest.param((2,), (2**62,), 0, "reaches element", id="enormous stride"),
        pytest.param((), (), 6, "reaches element 7", id="scalar behind the end"),
        pytest.param((3,), (-1,), 2, "negative stride", id="negative stride"),
        pytest.param((-3,), (1,), 2, "impossible shape", id="negative size"),
        pytest.param((-3, -2), (1, 1), 0, "impossible shape", id="negative sizes"),
        pytest.param((0, 2**40, 2**40), (1, 1, 1), 0, "impossible shape", id="sizes beside a zero"),
        pytest.param((2,), (1, 1), 0, "1 axes and 2 strides", id="more strides than axes"),
        pytest.param((1,) * 65, (1,) * 65, 0, "65 axes", id="65 axes"),
    ],
)
def test_views_that_leave_their_storage(tmp_path, shape, strides, offset, message):
    state = tb.pickle(tb.mapping({"x": tb.tensor(FLOATS, shape, strides, offset)}))
    path = tb.write_zip(tmp_path / "weights.pth", state, {"0": SIX.tobytes()})
    with pytest.raises(InputError, match=rf"weights\.pth: tensor 'x' .*{message}"):
        open_tensors(path)


def test_untyped_storages_count_bytes(tmp_path):
    untyped = (tb.storage("UntypedStorage", "0", 6), tb.integer(1), tb.integers(2), tb.integers(1))
    arguments = tb.row(*untyped, b"\x89", tb.ORDERED_DICT, tb.name("torch", "uint16"))
    state = tb.mapping({"x": tb.name("torch._utils", "_rebuild_tensor_v3") + arguments + b"R"})
    data = np.uint16([1, 2, 40_000])
    same(
        read(tb.write_zip(tmp_path / "weights.pth", tb.pickle(state), {"0": data.tobytes()})),
        {"x": data[1:]},
    )


def test_old_views_of_storages(tmp_path):
    part = tb.row(tb.text("part"), tb.integer(2), tb.integer(3))
    view = tb.tensor(tb.storage("FloatStorage", "0", 6, part), (2,), (1,), 1)
    (tmp_path / "old.pth").write_bytes(tb.legacy(tb.mapping({"x": view}), {"0": (6, SIX.tobytes())}))
    same(read(tmp_path / "old.pth"), {"x": SIX[3:5]})
    beyond = tb.tensor(
        tb.storage("FloatStorage", "0", 6, part.replace(tb.integer(3), tb.integer(5))), (1,), (1,)
    )
    (tmp_path / "old.pth").write_bytes(tb.legacy(tb.mapping({"x": beyond}), {"0": (6, SIX.tobytes())}))
    with pytest.raises(InputError, match="tensor 'x' has a view beyond its storage"):
        open_tensors(tmp_path / "old.pth")


STATE = tb.mapping({"x": tb.tensor(FLOATS, (6,), (1,)), "y": tb.tensor(FLOATS, (2,), (1,), 1)})


@pytest.fixture
def path(tmp_path):
    return tb.write_zip(tmp_path / "weights.pth", tb.pickle(STATE), {"0": SIX.tobytes()})


@pytest.mark.parametrize("name", ["x", "y"])
def test_a_checksum_is_checked_when_its_storage_is_read(path, name):
    data = path.read_bytes()
    # Beyond both ends of y: the whole storage is checked, whatever part is wanted.
    path.write_bytes(data.replace(SIX.tobytes(), SIX.tobytes()[:-1] + b"\x41"))
    with open_tensors(path) as file:
        assert file.shapes == {"x": (6,), "y": (2,)}
        with pytest.raises(
            InputError, match=rf"tensor '{name}' has checksum .* the file is damaged; download"
        ):
            file[name]


def test_files_written_without_checksums_are_explained(path):
    with zipfile.ZipFile(path) as archive:
        crc = archive.getinfo("weights/data/0").CRC
    path.write_bytes(path.read_bytes().replace(crc.to_bytes(4, "little"), bytes(4)))
    with open_tensors(path) as file, pytest.raises(InputError, match=r"set_crc32_options\(False\)"):
        file["x"]


def test_a_pickle_with_a_wrong_checksum(path):
    path.write_bytes(path.read_bytes().replace(b"_rebuild", b"_rebuilt"))
    with pytest.raises(InputError, match=r"weights\.pth: its pickle has checksum"):
        open_tensors(path)


def test_a_file_that_shrinks_while_it_is_open(path):
    write_torch(path, {"x": np.ones(1 << 16)})
    with open_tensors(path) as file:
        os.truncate(path, 100)
        with pytest.raises(InputError, match="tensor 'x' ends early"):
            file["x"]


def with_zip(change):
    def make(path):
        storages, extra, entries = {"0": SIX.tobytes()}, {}, []
        change(storages, extra, entries)
        tb.write_zip(path, tb.pickle(STATE), storages, **extra)
        with zipfile.ZipFile(path, "a") as archive:
            for entry in entries:
                archive.writestr(*entry)

    return make


def patched(old, new):
    return lambda path: path.write_bytes(path.read_bytes().replace(old, new))


def cut(path):
    path.write_bytes(path.read_bytes()[:-30])


def long_entry(path):
    path.write_bytes(path.read_bytes().replace((24).to_bytes(4, "little") * 2, b"\xff\xff\xff\x7f" * 2))


def cut_data(path):
    data = path.read_bytes()
    path.write_bytes(data.replace(SIX.tobytes(), b""))


def compressed(path):
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("weights/data.pkl", bytes(1 << 20))


def huge_pickle(path):
    tb.write_zip(path, b"\x80\x02" + b"N0" * (9 << 20), {})


@pytest.mark.parametrize(
    ("make", "message"),
    [
        pytest.param(cut, "is cut off or damaged", id="cut"),
        pytest.param(cut_data, "is not where the archive says|is cut off", id="bytes missing"),
        pytest.param(long_entry, "'weights/data/0' reaches beyond the end", id="entry of 2 GB"),
        pytest.param(compressed, "'weights/data.pkl' is compressed or encrypted", id="compressed"),
        pytest.param(huge_pickle, "its pickle has 18874370 bytes", id="huge pickle"),
        pytest.param(
            with_zip(lambda s, x, e: x.update(byteorder=b"big")),
            "not written on a little-endian",
            id="big-endian",
        ),
        pytest.param(
            with_zip(lambda s, x, e: x.update({"constants.pkl": b""})),
            "is a TorchScript archive",
            id="TorchScript",
        ),
        pytest.param(
            with_zip(lambda s, x, e: s.clear()),
            "tensor 'x' has no storage '0' instead of one of 24",
            id="no storage",
        ),
        pytest.param(
            with_zip(lambda s, x, e: s.update({"0": bytes(20)})),
            "a storage of 20 bytes '0'",
            id="short storage",
        ),
        pytest.param(
            with_zip(lambda s, x, e: s.update({"0": bytes(25)})),
            "a storage of 25 bytes '0'",
            id="long storage",
        ),
        pytest.param(
            with_zip(lambda s, x, e: e.append(("other/data.pkl", b"\x80\x02}."))),
            "no torch checkpoint",
            id="two pickles",
        ),
        pytest.param(
            lambda path: zipfile.ZipFile(path, "w").writestr("a.npy", b""), "holds 'a.npy'", id="npz"
        ),
        pytest.param(
            patched(b"PK\x01\x02\x14\x03\x14\x00\x00", b"PK\x01\x02\x14\x03\x14\x00\x01"),
            "encrypted",
            id="encrypted",
        ),
        pytest.param(
            patched(b"weights/data/0", b"weights/data/1"), "tensor 'x' has no storage '0'", id="renamed"
        ),
        pytest.param(
            patched(b"weights/byteorder", b"weights/data/0\x00ab"), "'weights/data/0' comes twice", id="twice"
        ),
        pytest.param(patched(b"PK\x03\x04", b"PK\x03\x05"), "is neither", id="no local headers"),
    ],
)
def test_archives_that_are_not_a_whole_checkpoint(path, make, message):
    make(path)
    with pytest.raises(InputError, match=rf"weights\.pth.* ({message})"):
        open_tensors(path)


@pytest.mark.parametrize("where", range(8))
def test_truncated(path, where):
    data = path.read_bytes()
    path.write_bytes(data[: len(data) * where // 8])
    with pytest.raises(InputError, match=r"(is empty|cut off or damaged.*); download it again"):
        open_tensors(path)
    path.write_bytes(tb.LEGACY[: len(tb.LEGACY) * where // 8])
    with pytest.raises(InputError, match=r"(is empty|damaged.*); download it again"):
        open_tensors(path)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        pytest.param(tb.pickle(b"}"), "a pickle but none of torch's", id="another pickle"),
        pytest.param(
            tb.LEGACY.replace(b"M\xe9\x03", b"M\xe8\x03"), "goes on otherwise", id="another protocol"
        ),
        pytest.param(
            tb.legacy(STATE, {"0": (6, SIX.tobytes())}, is_little_endian=False), "little-endian", id="big"
        ),
        pytest.param(tb.legacy(STATE, {"0": (6, bytes(23))}), "cut off within storage '0'", id="cut"),
        pytest.param(tb.legacy(STATE, {"0": (2**62, bytes(24))}), "cut off within storage", id="enormous"),
        pytest.param(
            tb.legacy(STATE, {"0": (5, bytes(24))}), "a storage of 20 bytes '0' instead of", id="short"
        ),
        pytest.param(tb.legacy(STATE, {}), "tensor 'x' has no storage '0'", id="missing"),
        pytest.param(
            tb.legacy(STATE, {"0": (6, SIX.tobytes()), "1": (0, b"")}),
            "storage '1' twice or without a use",
            id="unused",
        ),
    ],
)
def test_legacy_files_that_are_not_a_whole_checkpoint(tmp_path, data, message):
    (tmp_path / "old.pth").write_bytes(data)
    with pytest.raises(InputError, match=rf"old\.pth.* {message}"):
        open_tensors(tmp_path / "old.pth")


@pytest.mark.parametrize("kind", ["zip", "legacy"])
def test_one_tensor_at_a_time_takes_the_memory_of_one(tmp_path, kind):
    path = tmp_path / "weights.pth"
    size, count = 1 << 18, 16
    if kind == "zip":
        write_torch(path, {f"{i}": np.full(size, i, np.float32) for i in range(count)})
    else:
        kinds = {
            f"{i}": tb.tensor(tb.storage("FloatStorage", f"{i}", size), (size,), (1,)) for i in range(count)
        }
        data = {f"{i}": (size, np.full(size, i, np.float32).tobytes()) for i in range(count)}
        path.write_bytes(tb.legacy(tb.mapping(kinds), data))
        del data
    with open_tensors(path) as file:
        assert file.num_bytes == 4 * size * count
        tracemalloc.start()
        try:
            for name in file:
                assert file[name][-1] == int(name)
            assert tracemalloc.get_traced_memory()[1] < 1.1 * 4 * size
        finally:
            tracemalloc.stop()


def test_as_many_tensors_as_a_whole_model_has(tmp_path):
    names = [f"encoder.layers.{i // 16}.attention.projection.{i % 16}.weight" for i in range(1791)]
    write_torch(tmp_path / "weights.pth", dict.fromkeys(names, SIX))
    with open_tensors(tmp_path / "weights.pth") as file:
        assert [*file] == names
        np.testing.assert_array_equal(file[names[-1]], SIX)

"""One door to weight files: what is found behind it, and what is said where nothing is."""

import hashlib
import json
import os
import tracemalloc

import ml_dtypes
import numpy as np
import pytest
from safetensors.numpy import save_file

from modaltune_jax.convert import tensor_file
from modaltune_jax.convert.tensor_file import open_tensors
from modaltune_jax.convert.torch_writer import write_torch
from modaltune_jax.types import InputError
from tests import torch_bytes as tb
from tests.tensors import same

TENSORS = {
    "cls_token": np.arange(6, dtype=np.float32).reshape(1, 2, 3),
    "norm.weight": np.array([1.5, -2, 3], ml_dtypes.bfloat16),
    "steps": np.array(7, np.int64),
    "nothing": np.zeros((0, 4), np.float16),
}
METADATA = {"format": "pt", "note": "häh?"}


def write(path, tensors, kind):
    if kind == "torch":
        write_torch(path, tensors)
    else:
        save_file(tensors, path, METADATA)
    return path


@pytest.fixture(params=["torch", "safetensors"])
def kind(request):
    return request.param


def test_what_a_file_tells(tmp_path, kind):
    # Names mislead: the content decides.
    path = write(tmp_path / "weights.txt", TENSORS, kind)
    with open_tensors(str(path)) as file:
        assert file.path == path
        assert file.kind == kind
        assert file.metadata == (METADATA if kind == "safetensors" else {})
        assert file.shapes == {name: array.shape for name, array in TENSORS.items()}
        assert file.dtypes == {name: array.dtype for name, array in TENSORS.items()}
        assert file.num_bytes == sum(array.nbytes for array in TENSORS.values()) == 38
        assert len(file) == 4
        same(file, TENSORS)


def test_a_file_is_a_mapping(tmp_path, kind):
    with open_tensors(write(tmp_path / "weights", TENSORS, kind)) as file:
        assert "steps" in file
        assert "step" not in file
        assert 3 not in file
        assert file.get("step") is None
        with pytest.raises(KeyError):
            file["step"]
        first, again = file["cls_token"], file["cls_token"]
        first[:] = -1
        same({"cls_token": again}, {"cls_token": TENSORS["cls_token"]})
        same({name: file["steps"] for name in ["steps"]}, {"steps": TENSORS["steps"]})
    with pytest.raises(ValueError, match="closed file"):
        file["steps"]


def test_a_tensor_alone_has_a_name_if_it_is_given_one(tmp_path):
    data = tb.pickle(tb.tensor(tb.storage("FloatStorage", "0", 6), (2, 3), (3, 1)))
    array = np.arange(6, dtype=np.float32).reshape(2, 3)
    path = tb.write_zip(tmp_path / "bare.pt", data, {"0": array.tobytes()})
    with open_tensors(path, bare="features") as file:
        same(file, {"features": array})
    with pytest.raises(InputError, match="an object of type Tensor, not a dict of tensors"):
        open_tensors(path)


def test_asking_for_names_and_shapes_reads_nothing(tmp_path, kind):
    path = write(tmp_path / "weights", TENSORS, kind)
    with open_tensors(path) as file:
        file.close()
        assert "norm.weight" in file
        assert [*file] == [*file.shapes] == [*file.keys()]
        assert repr(file)


def test_one_tensor_at_a_time_takes_the_memory_of_one(tmp_path):
    size, count = 1 << 18, 16
    path = tmp_path / "weights"
    save_file({f"{i}": np.full(size, i, np.float32) for i in range(count)}, path)
    resident = []
    with open_tensors(path) as file:
        tracemalloc.start()
        try:
            for name in file:
                assert file[name][-1] == int(name)
                resident.append(pages())
            assert tracemalloc.get_traced_memory()[1] < 1.1 * 4 * size
        finally:
            tracemalloc.stop()
    # A map of the file would have grown by all of it: 16 MiB.
    assert resident[-1] - resident[0] < (2 * 4 * size) // os.sysconf("SC_PAGESIZE")


def pages():
    """Resident pages of this process, those of mapped files included."""
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1])


@pytest.mark.parametrize("dtype", [*"fdeqihbBHIQ?", ml_dtypes.bfloat16])
def test_dtypes_of_safetensors(tmp_path, dtype):
    tensors = {"x": np.arange(6).reshape(2, 3).astype(dtype)}
    save_file(tensors, tmp_path / "weights")
    with open_tensors(tmp_path / "weights") as file:
        same(file, tensors)


def test_sha256(tmp_path):
    (tmp_path / "file").write_bytes(b"weights")
    assert tensor_file.sha256(tmp_path / "file") == hashlib.sha256(b"weights").hexdigest()


W = tb.tensor(tb.storage("FloatStorage", "0", 6), (6,), (1,))
SIX = np.arange(6, dtype=np.float32)


def torch_file(path, value):
    return tb.write_zip(path, tb.pickle(value), {"0": SIX.tobytes()})


def nested(**items):
    return b"}(" + b"".join(tb.text(key) + value for key, value in items.items()) + b"u"


STATE = tb.mapping({"head.weight": W})


@pytest.mark.parametrize(
    "value",
    [
        pytest.param(STATE, id="at the top"),
        pytest.param(nested(**{"head.weight": W}), id="in a plain dict"),
        pytest.param(nested(model=STATE), id="model"),
        pytest.param(
            nested(state_dict=STATE, epoch=b"K\x03", hyper_parameters=nested(lr=b"N")), id="Lightning"
        ),
        pytest.param(
            nested(
                epoch=b"K\x03", model_state_dict=STATE, optimizer=nested(state=nested(), lr=b"G" + bytes(8))
            ),
            id="beside an optimizer",
        ),
        pytest.param(nested(model=STATE, state_dict=b"K\x03"), id="beside a number of a like name"),
        pytest.param(nested(model=tb.mapping({"module.head.weight": W})), id="DataParallel"),
        pytest.param(b"}K\x07K\x08s" + tb.text("model") + STATE + b"s", id="beside a key that is a number"),
    ],
)
def test_where_weights_lie_in_a_torch_file(tmp_path, value):
    with open_tensors(torch_file(tmp_path / "weights.pth", value)) as file:
        same(file, {"head.weight": SIX})


def test_a_prefix_is_dropped_only_if_all_names_share_it(tmp_path, kind):
    path = tmp_path / "weights"
    with open_tensors(write(path, {"module.a": SIX, "module.module.b": SIX}, kind)) as file:
        assert {*file.shapes} == {"a", "module.b"}
    with open_tensors(write(path, {"module.a": SIX, "modules.b": SIX}, kind)) as file:
        assert {*file.shapes} == {"module.a", "modules.b"}


@pytest.mark.parametrize(
    ("value", "message"),
    [
        pytest.param(
            nested(model=STATE, state_dict=STATE), "weights under model and state_dict", id="ambiguous"
        ),
        pytest.param(
            nested(**{"head.weight": W, "epoch": b"K\x03"}),
            "the key 'epoch' an object of type int",
            id="a number",
        ),
        pytest.param(
            nested(model=nested(w=W, _extra_state=b"N")),
            "'_extra_state' an object of type NoneType",
            id="none",
        ),
        pytest.param(
            nested(net=STATE), "'net' an object of type dict.* under model, state_dict", id="an unknown key"
        ),
        pytest.param(nested(model=nested(model=STATE)), "'model' an object of type dict", id="two wrappers"),
        pytest.param(b"}q\x00" + tb.text("model") + b"h\x00s", "'model' an object of type dict", id="itself"),
        pytest.param(
            b"}K\x01" + W + b"s", "the key of type int an object of type Tensor", id="a number as a name"
        ),
        pytest.param(b"]" + W + b"a", "an object of type list, not a dict of tensors", id="a list"),
        pytest.param(W, "an object of type Tensor, not a dict", id="one tensor"),
        pytest.param(tb.storage("FloatStorage", "0", 6), "type Storage, not a dict", id="one storage"),
        pytest.param(b"}", "holds no tensors", id="nothing"),
        pytest.param(nested(model=nested(), epoch=b"K\x01"), "holds no tensors", id="nothing in a model"),
        pytest.param(
            b"}(" + (tb.text("w") + W) * 2 + b"u", r"damaged \(the key 'w' comes twice", id="a name twice"
        ),
    ],
)
def test_torch_files_without_a_clear_set_of_tensors(tmp_path, value, message):
    path = torch_file(tmp_path / "weights.pth", value)
    with pytest.raises(InputError, match=rf"weights\.pth.* {message}"):
        open_tensors(path)


def header(text, data=bytes(8)):
    return len(text).to_bytes(8, "little") + text.encode() + data


def entry(dtype="F32", shape=(1,), start=0, stop=4):
    return json.dumps({"dtype": dtype, "shape": list(shape), "data_offsets": [start, stop]})


def test_a_safetensors_header_may_begin_like_a_pickle(tmp_path):
    text = f'{{"a": {entry(stop=4)}}}'.ljust(0x80)
    (tmp_path / "weights").write_bytes(header(text, SIX[1:2].tobytes()))
    assert (tmp_path / "weights").read_bytes().startswith(b"\x80")
    with open_tensors(tmp_path / "weights") as file:
        assert file.kind == "safetensors"
        same(file, {"a": SIX[1:2]})


@pytest.mark.parametrize(
    ("data", "message"),
    [
        pytest.param(
            header(f'{{"a": {entry(stop=4)}, "a": {entry(stop=4)}}}', bytes(4)),
            "names 'a' twice",
            id="a name twice",
        ),
        pytest.param(
            header(f'{{"__metadata__": {{"x": "1", "x": "2"}}, "a": {entry()}}}', bytes(4)),
            "names 'x' twice",
            id="metadata twice",
        ),
        pytest.param(header(f'{{"a": {entry("F8_E4M3")}}}'), "not a whole", id="dtype and size differ"),
        pytest.param(
            header(f'{{"a": {entry("F8_E4M3", (4,))}}}', bytes(4)),
            "dtype F8_E4M3; save it as one of F64",
            id="float8",
        ),
        pytest.param(header(f'{{"a": {entry()}}}', bytes(3)), "not a whole safetensors file", id="cut"),
        pytest.param(header(f'{{"a": {entry()}}}', bytes(5)), "not a whole safetensors file", id="too long"),
        pytest.param(
            header(f'{{"a": {entry()}, "b": {entry()}}}', bytes(4)), "not a whole", id="shared bytes"
        ),
        pytest.param(header('{"a": ' * 5000), "not a whole", id="deep header"),
        pytest.param(
            header(f'{{"a": {entry("U8", (0, 2**63), 0, 0)}}}', b""), "impossible shape", id="empty, huge"
        ),
        pytest.param(header(f'{{"a": {entry("U8", (1,) * 65, 0, 1)}}}', b"1"), "65 axes", id="65 axes"),
        pytest.param(
            header(f'{{"a": {entry("U8", [0] + [2**63] * 100_000, 0, 0)}}}', b""),
            "100001 axes",
            id="axes without end",
        ),
        pytest.param(header("{}", b""), "holds no tensors", id="nothing"),
        pytest.param(b"\xff" * 7 + b"\x7f{}", "not a whole", id="enormous header"),
        pytest.param(b'{"error": "{}"}', "neither a torch checkpoint nor", id="an error in JSON"),
    ],
)
def test_safetensors_files_that_are_not_whole(tmp_path, data, message):
    (tmp_path / "weights.safetensors").write_bytes(data)
    with pytest.raises(InputError, match=rf"weights\.safetensors.* {message}"):
        open_tensors(tmp_path / "weights.safetensors")


@pytest.mark.parametrize("share", range(8))
def test_safetensors_cut_anywhere(tmp_path, share):
    path = write(tmp_path / "weights", TENSORS, "safetensors")
    os.truncate(path, path.stat().st_size * share // 8)
    with pytest.raises(InputError, match=r"is empty|not a whole"):
        open_tensors(path)


LFS = b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a21\nsize 343\n"


@pytest.mark.parametrize(
    ("data", "message"),
    [
        pytest.param(b"", "is empty; download it again", id="empty"),
        pytest.param(
            b"<!DOCTYPE html><html>Log in</html>", "is a web page.* log in, and download", id="HTML"
        ),
        pytest.param(b"\xef\xbb\xbf\r\n <html>", "is a web page", id="HTML after a byte order mark"),
        pytest.param(b"<?xml version='1.0'?><Error>AccessDenied</Error>", "is a web page", id="XML"),
        pytest.param(LFS, "is a git-lfs pointer .* run `git lfs pull`", id="git-lfs"),
        pytest.param(bytes(257) + b"ustar" + bytes(250), "is a tar archive, as the first versions", id="tar"),
        pytest.param(b"\x89HDF\r\n\x1a\n", "is neither a torch checkpoint nor a safetensors", id="HDF5"),
        pytest.param(b"Entry not found", "is neither", id="an error as text"),
        pytest.param(b"PK\x05\x06" + bytes(18), "is neither", id="an empty archive"),
        pytest.param(b"\x80\x04N.", "is a pickle but none of torch's", id="a pickle"),
    ],
)
def test_files_that_are_no_weights(tmp_path, data, message):
    (tmp_path / "weights.pth").write_bytes(data)
    with pytest.raises(InputError, match=rf"weights\.pth.* {message}"):
        open_tensors(tmp_path / "weights.pth")


def test_places_without_a_file(tmp_path):
    with pytest.raises(InputError, match=r"weights\.pth does not exist; give the path"):
        open_tensors(tmp_path / "weights.pth")
    with pytest.raises(InputError, match=f"{tmp_path} is a folder; give the path"):
        open_tensors(tmp_path)

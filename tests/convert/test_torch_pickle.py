"""The pickle machine: what torch writes is read, what could run code or fill the memory is refused."""

import collections
import contextlib
import io
import os
import pickle
import pickletools
import tracemalloc

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from modaltune_jax.convert import torch_pickle
from modaltune_jax.convert.torch_names import Storage, Tensor
from modaltune_jax.types import InputError
from tests.torch_bytes import (
    BATCH_NORM,
    ORDERED_DICT,
    integer,
    integers,
    mapping,
    name,
    row,
    storage,
    tensor,
    text,
)
from tests.torch_bytes import pickle as whole

MATRIX = tensor(storage("FloatStorage", "0", 6), (2, 3), (3, 1))
MARKER = "made_by_a_pickle"
MKDIR = name("posix", "mkdir")
PATH = row(text(MARKER))
PROTOCOL_4 = b"\x80\x04"


def load(data):
    stream = io.BytesIO(data)
    value, storages = torch_pickle.load(stream, "weights.pth")
    assert stream.read() == b""
    return value, storages


def summary(value):
    return (value.storage.key, value.dtype, value.offset, value.shape, value.strides)


def plain(*more):
    return st.recursive(
        st.one_of(st.none(), st.booleans(), st.integers(), st.floats(allow_nan=False), st.text(), *more),
        lambda inner: st.one_of(
            st.lists(inner),
            st.lists(inner).map(tuple),
            st.dictionaries(st.text() | st.integers(-(2**62), 2**62), inner),
            st.dictionaries(st.text(), inner).map(collections.OrderedDict),
        ),
        max_leaves=10,
    )


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
@settings(max_examples=50)
@given(data=st.data())
def test_plain_values_are_read_as_pickle_wrote_them(protocol, data):
    # Protocol 2 has no bytes and calls an encoder for them.
    value = data.draw(plain(*[st.binary(max_size=300)] * (protocol > 2)))
    assert load(pickle.dumps(value, protocol))[0] == value


def test_shared_values_stay_shared():
    inner = [1]
    first, second, again = load(pickle.dumps((inner, inner, [inner]), 4))[0]
    assert first is second is again[0]


def test_a_pickle_of_torch():
    state, storages = load(BATCH_NORM)
    assert [*state] == ["weight", "bias", "running_mean", "running_var", "num_batches_tracked"]
    assert summary(state["bias"]) == ("1", np.float32, 0, (2,), (1,))
    assert summary(state["num_batches_tracked"]) == ("4", np.int64, 0, (), ())
    assert [*storages] == ["0", "1", "2", "3", "4"]


def test_python_2_and_the_first_torch():
    """Short byte strings, an OrderedDict of pairs, long integers as text, the first kind of tensor."""
    python_2 = lambda s: b"U" + bytes([len(s)]) + s  # noqa: E731
    stored = row(
        python_2(b"storage"), name("torch", "HalfStorage"), python_2(b"94"), python_2(b"cpu"), b"I6\n", b"N"
    )
    matrix = (
        name("torch._utils", "_rebuild_tensor")
        + row(stored + b"Q", b"K\x01", b"K\x02\x85", b"K\x01\x85")
        + b"R"
    )
    items = b"](](" + python_2(b"head.bias") + matrix + b"ee"
    state, _ = load(whole(b"ccollections\nOrderedDict\nq\x01(" + items + b"tRq\x02}b"))
    assert [*state] == ["head.bias"]
    assert summary(state["head.bias"]) == ("94", np.float16, 1, (2,), (1,))


@pytest.mark.parametrize(
    ("kind", "dtype"),
    [
        ("DoubleStorage", np.float64),
        ("FloatStorage", np.float32),
        ("HalfStorage", np.float16),
        ("BFloat16Storage", ml_dtypes.bfloat16),
        ("LongStorage", np.int64),
        ("IntStorage", np.int32),
        ("ShortStorage", np.int16),
        ("CharStorage", np.int8),
        ("ByteStorage", np.uint8),
        ("BoolStorage", np.bool_),
        ("UntypedStorage", np.uint8),
    ],
)
def test_storages(kind, dtype):
    value, storages = load(whole(storage(kind, "7", 5)))
    assert isinstance(value, Storage)
    assert (value.key, value.dtype, value.size, value.view) == ("7", dtype, 5, None)
    assert storages == {"7": value}


def rebuild(function, *arguments):
    return name("torch._utils", function) + row(*arguments) + b"R"


UNTYPED = (storage("UntypedStorage", "0", 12), integer(1), integers(2), integers(1), b"\x89", ORDERED_DICT)


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        pytest.param(MATRIX, ("0", np.float32, 0, (2, 3), (3, 1)), id="tensor"),
        pytest.param(
            rebuild("_rebuild_tensor_v2", *UNTYPED, b"}"), ("0", np.uint8, 1, (2,), (1,)), id="empty metadata"
        ),
        pytest.param(
            rebuild("_rebuild_tensor_v3", *UNTYPED, name("torch", "uint16")),
            ("0", np.uint16, 1, (2,), (1,)),
            id="dtype of its own",
        ),
        pytest.param(
            rebuild("_rebuild_tensor_v3", *UNTYPED, name("torch", "bfloat16"), b"N"),
            ("0", ml_dtypes.bfloat16, 1, (2,), (1,)),
            id="dtype of its own and metadata",
        ),
        pytest.param(
            rebuild("_rebuild_parameter", MATRIX, b"\x88", ORDERED_DICT),
            ("0", np.float32, 0, (2, 3), (3, 1)),
            id="parameter",
        ),
        pytest.param(
            rebuild(
                "_rebuild_parameter_with_state", MATRIX, b"\x88", ORDERED_DICT, b"}" + text("tag") + b"K\x01s"
            ),
            ("0", np.float32, 0, (2, 3), (3, 1)),
            id="parameter with state",
        ),
    ],
)
def test_tensors(data, expected):
    value, _ = load(whole(data))
    assert isinstance(value, Tensor)
    assert summary(value) == expected


def test_sizes_and_dtypes_are_values():
    value, _ = load(whole(row(name("torch", "Size") + row(integers(2, 3)) + b"R", name("torch", "float16"))))
    assert value == ((2, 3), np.float16)


RUNS = {
    "REDUCE": whole(MKDIR + PATH + b"R"),
    "REDUCE protocol 0": b"cposix\nmkdir\n(S'" + MARKER.encode() + b"'\ntR.",
    "STACK_GLOBAL": PROTOCOL_4 + text("posix") + text("mkdir") + b"\x93" + PATH + b"R.",
    "INST": whole(b"(" + text(MARKER) + b"iposix\nmkdir\n"),
    "OBJ": whole(b"(" + MKDIR + text(MARKER) + b"o"),
    "eval": whole(name("builtins", "eval") + row(text(f"__import__('os').mkdir('{MARKER}')")) + b"R"),
    "by another name": PROTOCOL_4 + text("os") + text("path.os.mkdir") + b"\x93" + PATH + b"R.",
    "after a state dict": whole(mapping({"w": ORDERED_DICT}) + b"0" + MKDIR + PATH + b"R"),
    "as a value": whole(mapping({"w": MKDIR + PATH + b"R"})),
    "__setstate__": whole(  # a partial of mkdir, put into place by BUILD
        name("functools", "partial")
        + row(name("builtins", "len"))
        + b"R"
        + row(MKDIR, PATH, b"}", b"N")
        + b"b)R"
    ),
}
"""Pickles that make a directory where they are run."""


@pytest.mark.parametrize("data", RUNS.values(), ids=RUNS)
def test_code_is_not_run(tmp_path, monkeypatch, data):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InputError, match=r"none of it was run.*torch\.save\(model\.state_dict\(\)"):
        load(data)
    assert not os.path.exists(MARKER)
    pickle.loads(data)
    assert os.path.exists(MARKER), "the test proves nothing: its pickle does nothing"


SYSTEM = name("posix", "system") + row(text("true")) + b"R"


@pytest.mark.parametrize(
    ("data", "message"),
    [
        pytest.param(whole(SYSTEM), r"names 'posix\.system'", id="system"),
        pytest.param(
            PROTOCOL_4 + text("os") + text("system") + b"\x93.", r"names 'os\.system'", id="never called"
        ),
        pytest.param(
            whole(b"(" + text("true") + b"iposix\nsystem\n"), r"INST for 'posix\.system'", id="INST"
        ),
        pytest.param(whole(b"(" + ORDERED_DICT + b"o"), "operation OBJ", id="OBJ"),
        pytest.param(whole(b"\x82\x01"), "operation EXT1", id="EXT1"),
        pytest.param(whole(b"\x83\x01\x00"), "operation EXT2", id="EXT2"),
        pytest.param(whole(b"\x84\x01\x00\x00\x00"), "operation EXT4", id="EXT4"),
        pytest.param(whole(b"P0\n"), "operation PERSID", id="persistent id as text"),
        pytest.param(whole(b"K\x01Q"), "persistent id that is not a storage", id="persistent id"),
        pytest.param(
            whole(row(text("module"), *[text("x")] * 4) + b"Q"), "is not a storage", id="source of a class"
        ),
        pytest.param(
            whole(tensor(SYSTEM, (1,), (1,))), r"names 'posix\.system'", id="in the arguments of a tensor"
        ),
        pytest.param(
            whole(row(text("storage"), SYSTEM, text("0"), text("cpu"), b"K\x01") + b"Q"),
            r"names 'posix\.system'",
            id="as the type of a storage",
        ),
        pytest.param(whole(MATRIX + b"}b"), "state of an object of type Tensor", id="state of a tensor"),
        pytest.param(whole(ORDERED_DICT + b"K\x01b"), "sets the state", id="state that is no dict"),
        pytest.param(
            whole(name("torch", "FloatStorage") + b")R"), r"calls 'torch\.FloatStorage'", id="call of a type"
        ),
        pytest.param(
            whole(name("torch.nn.modules.linear", "Linear") + b")\x81"),
            r"names 'torch\.nn\.modules\.linear\.Linear'",
            id="a whole module",
        ),
        pytest.param(whole(name("argparse", "Namespace") + b")\x81"), "argparse.Namespace", id="arguments"),
        pytest.param(
            PROTOCOL_4 + text("torch.float32") + text("__class__") + b"\x93.",
            r"'torch\.float32\.__class__'",
            id="attribute",
        ),
        pytest.param(
            PROTOCOL_4 + text("evil\nname\x1b\ud800") + text("x" * 500) + b"\x93.",
            r"'evil\\nname\\x1b\\ud800\.x+\.\.\.'",
            id="a name that would garble the terminal",
        ),
        pytest.param(
            whole(rebuild("_rebuild_tensor_v2", *UNTYPED, b"}" + text("neg") + b"\x88s")),
            "negated view",
            id="values that are not what is stored",
        ),
        pytest.param(whole(b"}K\x01\x85K\x01s"), "dict key of type tuple", id="key that is a tuple"),
        pytest.param(whole(b"}" + integer(2**64) + b"K\x01s"), "dict key of type int", id="long key"),
    ],
)
def test_refused(data, message):
    with pytest.raises(InputError, match=f"^weights.pth: its pickle .*{message}"):
        load(data)


@pytest.mark.parametrize(
    "data",
    [
        pytest.param(b"", id="empty"),
        pytest.param(b"\x80\x02", id="no STOP"),
        pytest.param(b"\x80\x02.", id="nothing to return"),
        pytest.param(whole(b"K\x01K\x02"), id="two values"),
        pytest.param(whole(b"(K\x01"), id="mark left over"),
        pytest.param(whole(b"K\x01(0"), id="operand below a mark"),
        pytest.param(whole(b"h\x05"), id="memo entry that is none"),
        pytest.param(whole(b"q\x01"), id="nothing to remember"),
        pytest.param(whole(b"Nr\xff\xff\xff\xff"), id="huge memo index"),
        pytest.param(whole(b"\x8b\xff\xff\xff\xff"), id="negative length"),
        pytest.param(whole(b"\x8b\xff\xff\xff\x7f"), id="integer of 2 GB"),
        pytest.param(whole(b"X\xff\xff\xff\xff"), id="text of 4 GB"),
        pytest.param(PROTOCOL_4 + b"\x8d" + b"\xff" * 7 + b"\x7f.", id="text of 2^63 bytes"),
        pytest.param(PROTOCOL_4 + b"\x8e" + b"\xff" * 8 + b".", id="bytes of 2^64"),
        pytest.param(PROTOCOL_4 + b"\x95" + b"\xff" * 8, id="endless frame"),
        pytest.param(whole(b"I" + b"9" * 10_000 + b"\n"), id="number of 10 000 digits"),
        pytest.param(whole(b"X\x02\x00\x00\x00\xff\xff"), id="not UTF-8"),
        pytest.param(whole(b"c\xff\nname\n"), id="name that is not ASCII"),
        pytest.param(whole(b"K\x01K\x02\x93"), id="name that is not text"),
        pytest.param(whole(b"\xff"), id="no operation"),
        pytest.param(whole(b"]K\x01K\x02s"), id="item of a list"),
        pytest.param(whole(b"}K\x01a"), id="append to a dict"),
        pytest.param(whole(b"}(K\x01u"), id="key without a value"),
        pytest.param(whole(b"}(" + (text("a") + b"N") * 2 + b"u"), id="key twice"),
        pytest.param(whole(b"}" + (text("a") + b"Ns") * 2), id="key twice, one by one"),
        pytest.param(
            whole(b"ccollections\nOrderedDict\n](" + (text("a") + b"N\x86") * 2 + b"e\x85R"), id="pair twice"
        ),
        pytest.param(whole(b"ccollections\nOrderedDict\nK\x01\x85R"), id="OrderedDict of a number"),
        pytest.param(whole(b"ccollections\nOrderedDict\n]K\x01a\x85R"), id="OrderedDict of numbers"),
        pytest.param(whole(b"ccollections\nOrderedDict\nK\x01R"), id="arguments that are no tuple"),
        pytest.param(whole(b"K\x01)R"), id="call of a number"),
        pytest.param(whole(rebuild("_rebuild_tensor_v2")), id="tensor of nothing"),
        pytest.param(whole(rebuild("_rebuild_tensor_v3", *UNTYPED, b"K\x01")), id="dtype that is none"),
        pytest.param(whole(rebuild("_rebuild_parameter", b"N", b"\x88", b"N")), id="parameter of nothing"),
        pytest.param(whole(tensor(b"K\x01", (1,), (1,))), id="tensor without a storage"),
        pytest.param(whole(tensor(storage("FloatStorage", "0", 6), (1,), (1,), -1)), id="negative offset"),
        pytest.param(whole(tensor(storage("FloatStorage", "0", 6), (2**64,), (1,))), id="size of 65 bits"),
        pytest.param(whole(storage("FloatStorage", "0", -1)), id="negative storage"),
        pytest.param(whole(storage("FloatStorage", "0", 4, text("view"))), id="view that is none"),
        pytest.param(
            whole(row(text("storage"), name("torch", "float32"), text("0"), text("cpu"), b"K\x01") + b"Q"),
            id="storage of no type",
        ),
    ],
)
def test_damaged(data):
    with pytest.raises(InputError, match=r"^weights\.pth: its pickle is damaged .*download it again$"):
        load(data)


@pytest.mark.parametrize("before", [b"", b"(", b"K\x01", b"}", b"](", b"K\x01K\x02K\x03"])
def test_every_operation_on_the_wrong_operands(before):
    for opcode in pickletools.opcodes:
        for argument in (b"", b"\x00", b"\x00" * 8, b"\xff" * 9, b"1\n", b"posix\nsystem\n", b"'a\\q'\n"):
            data = before + opcode.code.encode("latin-1") + argument + b"."
            with contextlib.suppress(InputError):
                torch_pickle.load(io.BytesIO(data), "weights.pth")


COLLIDING = b"".join(integer(k * (2**61 - 1)) + b"N" for k in range(5_000))
PAIRS = b"".join(text(f"{k}") + b"N\x86" for k in range(2_000))


@pytest.mark.parametrize(
    ("data", "message"),
    [
        pytest.param(b"](" * 9_000, "exhausted", id="deep nesting"),
        pytest.param(b"(" * 15_000, "exhausted", id="marks"),
        pytest.param(whole(b"]" + b"\x85" * 15_000 + b"N"), "half-way", id="tuple in a tuple in a tuple"),
        pytest.param(whole(b"N0" * 15_000), "steps", id="many operations"),
        pytest.param(whole(b"}(" + COLLIDING + b"u"), "key of type int", id="integers with one hash"),
        pytest.param(
            whole(b"Nq\x00" + b"h\x00h\x00\x86q\x00" * 40 + b"}h\x00Ns"),
            "key of type tuple",
            id="hash without end",
        ),
        pytest.param(
            whole(b"](" + PAIRS + b"e\x85q\x000" + b"ccollections\nOrderedDict\nh\x00R0" * 2_000 + b"N"),
            "steps",
            id="one long argument for many calls",
        ),
        pytest.param(
            whole(b"(" + b"K\x01" * 2_000 + b"t\x85q\x000" + b"ctorch\nSize\nh\x00R0" * 2_000 + b"N"),
            "steps",
            id="one shape for many tensors",
        ),
    ],
)
def test_neither_memory_nor_time_is_spent(monkeypatch, data, message):
    monkeypatch.setattr(torch_pickle, "_MAX_STEPS", 20_000)
    tracemalloc.start()
    try:
        with pytest.raises(InputError, match=message):
            load(data)
        assert tracemalloc.get_traced_memory()[1] < 60 * len(data) + (1 << 20)
    finally:
        tracemalloc.stop()


def test_values_that_hold_themselves_are_read_and_forgotten():
    value, _ = load(whole(b"}q\x00" + text("self") + b"h\x00s"))
    assert value["self"] is value
    value, _ = load(whole(b"]q\x00" + b"h\x00\x85\x85\x85a"))
    assert value[0][0][0][0] is value
    load(whole(b"]" + b"\x85" * 100_000))

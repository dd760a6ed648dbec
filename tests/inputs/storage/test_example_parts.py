"""Examples taken apart, as TFDS and as we write them."""

import itertools

import numpy as np
import pytest
from array_record.python.array_record_module import ArrayRecordWriter

from modaltune_jax.inputs.storage import examples
from modaltune_jax.inputs.storage.array_record import RecordFiles
from modaltune_jax.inputs.storage.example_bytes import serialize
from modaltune_jax.inputs.storage.example_parts import take_apart
from modaltune_jax.types import Case, Labels, Slide


def take_apart_bytes(tmp_path, content, name="features"):
    """The parts, and the bytes of the array."""
    writer = ArrayRecordWriter(str(tmp_path / "r"), "group_size:1,uncompressed")
    writer.write(content)
    writer.close()
    with RecordFiles([tmp_path / "r"], [1]).open(0) as record:
        rest, (place,) = take_apart(record, name)
        return rest, record.read(*place)


def make_case(num_tiles):
    rng = np.random.default_rng(0)
    slide = Slide(
        "S", rng.normal(size=(num_tiles, 6)).astype(np.float32), np.ones((num_tiles, 2), np.int32), 256
    )
    return Case("A", "b", "train", (slide,), np.arange(3, dtype=np.float32), Labels(diagnosis="d", time=2.5))


@pytest.mark.parametrize("num_tiles", [0, 1, 5, 6, 700, 100_000])
def test_the_rest_is_the_example_without_the_array(tmp_path, num_tiles):
    case = make_case(num_tiles)
    example = examples.encode(case)
    rest, array = take_apart_bytes(tmp_path, b"".join(serialize(example)))
    assert array == case.slides[0].features.tobytes()
    del example["features"]
    assert rest == b"".join(serialize(example))


def test_examples_that_tfds_wrote(tmp_path):
    case = make_case(50)
    values = examples.encode(case)
    values["coords"], values["features"] = case.slides[0].coords, case.slides[0].features
    content = examples.features_dict(6, "float32").serialize_example(values)
    rest, array = take_apart_bytes(tmp_path, content)
    assert array == case.slides[0].features.tobytes()
    read = examples.fields_dict().deserialize_example_np(rest)
    np.testing.assert_array_equal(read["coords"], case.slides[0].coords)
    assert (read["case_id"], read["diagnosis"], float(read["time"])) == (b"A", b"d", 2.5)


@pytest.mark.parametrize("names", list(itertools.permutations(["a", "features", "z"])))
def test_the_array_may_be_anywhere(tmp_path, names):
    values = {"a": "text", "features": np.arange(500), "z": 3}
    rest, array = take_apart_bytes(tmp_path, b"".join(serialize({name: values[name] for name in names})))
    assert array == np.arange(500).tobytes()
    assert rest == b"".join(serialize({name: values[name] for name in names if name != "features"}))


def test_several_parts(tmp_path):
    path = tmp_path / "r"
    writer = ArrayRecordWriter(str(path), "group_size:1,uncompressed")
    writer.write(b"".join(serialize({"a": "text", "b": np.arange(500), "c": 3, "d": np.ones(200)})))
    writer.close()
    with RecordFiles([path], [1]).open(0) as record:
        rest, places = take_apart(record, "d", "a")
        assert [record.read(*place) for place in places] == [np.ones(200).tobytes(), b"text"]
        assert rest == b"".join(serialize({"b": np.arange(500), "c": 3}))
        with pytest.raises(ValueError, match="it lacks e, f"):
            take_apart(record, "e", "a", "f")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        pytest.param(b"", "no example", id="empty"),
        pytest.param(b"text", "no example", id="text"),
        pytest.param(b"\x0a" + b"\xff" * 20, "a length does not end", id="endless-length"),
        pytest.param(b"".join(serialize({"a": 1})), "it lacks features", id="absent"),
        pytest.param(b"".join(serialize({"features": ["a", "b"]})), "not one array", id="two-texts"),
        pytest.param(
            b"".join(serialize({"features": np.ones(9)}))[:-1], "92 bytes in a record of 91", id="cut-off"
        ),
    ],
)
def test_what_is_no_such_example(tmp_path, content, message):
    with pytest.raises(ValueError, match=message):
        take_apart_bytes(tmp_path, content)

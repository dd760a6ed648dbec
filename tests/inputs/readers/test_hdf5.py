"""HDF5 files that are damaged: a sentence each, and never another error."""

import h5py
import numpy as np
import pytest

from modaltune_jax.inputs.readers import hdf5
from modaltune_jax.inputs.readers.slide_file import SlideFile, SlideOptions
from modaltune_jax.inputs.slide_files import read_slide
from modaltune_jax.types import InputError
from tests import feature_files as ff


def test_names_and_attributes(tmp_path):
    path = ff.write_trident(tmp_path / "a.h5", *ff.bag())
    with h5py.File(path, "a") as file:
        file.attrs["anything"] = 1
        file.create_group("more")["deep"] = 1
    contents = hdf5.peek(path)
    assert (contents.kind, contents.arrays) == ("hdf5", {"features", "coords"})
    assert {"anything", "encoder", "patch_size_level0"} <= contents.attributes


def test_attributes_of_coordinates_go_before_others(tmp_path):
    path = ff.write_hdf5(
        tmp_path / "a.h5",
        {"features": np.ones((1, 2)), "coords": np.ones((1, 2))},
        {"features": {"name": "f", "encoder": "e"}, "coords": {"name": "c"}},
    )
    with h5py.File(path, "a") as file:
        file.attrs["name"] = "file"
        file.attrs["unit"] = "um"
    assert hdf5.read(path).attributes == {"name": "c", "encoder": "e", "unit": "um"}
    assert hdf5.read(path, features="").features is None


def test_a_group_in_place_of_an_array(tmp_path):
    path = ff.write_hdf5(tmp_path / "a.h5", {"coords": np.ones((1, 2))})
    with h5py.File(path, "a") as file:
        file.create_group("features")
    assert hdf5.read(path).features is None
    assert hdf5.peek(path).arrays == {"coords"}


@pytest.mark.parametrize("compression", [None, "gzip"])
def test_rows_that_were_never_written(tmp_path, compression):
    path = tmp_path / "a.h5"
    with h5py.File(path, "w") as file:
        for name, width in (("features", 4), ("coords", 2)):
            shape = (50, width)
            file.create_dataset(
                name, shape, "f4", maxshape=(None, width), chunks=(1, width), compression=compression
            )
            file[name][:30] = 1
    with pytest.raises(
        InputError, match="/features has 30 of its 50 chunks, as after an extraction that was"
    ):
        hdf5.read(path)
    with h5py.File(path, "w") as file:
        file.create_dataset("features", (50, 4), "f4")
    with pytest.raises(InputError, match="/features has 0 of its 800 bytes"):
        hdf5.read(path)


@pytest.mark.parametrize("share", [0.0, 0.3, 0.9, 0.999])
def test_truncated(tmp_path, share):
    path = ff.write_trident(tmp_path / "a.h5", *ff.bag(64, 64))
    data = path.read_bytes()
    path.write_bytes(data[: int(share * len(data))])
    for function in (hdf5.peek, hdf5.read):
        with pytest.raises(
            InputError, match=r"a.h5 is no whole HDF5 file \(.*\); copy it or extract it again"
        ):
            function(path)


def test_not_hdf5_at_all(tmp_path):
    path = tmp_path / "a.h5"
    path.write_text("<!DOCTYPE html>")
    with pytest.raises(InputError, match=r"no whole HDF5 file \(.*signature not found"):
        hdf5.read(path)


@pytest.mark.parametrize("share", [0.01, 0.1, 0.2, 0.3, 0.5])
def test_holes(tmp_path, share):
    """A download that stopped may leave a file of full length, with zeros where nothing arrived."""
    path = ff.write_trident(tmp_path / "a.h5", *ff.bag(8, 8))
    data = path.read_bytes()
    start = int(share * len(data))
    path.write_bytes(data[:start] + bytes(len(data) - start))
    with pytest.raises(InputError, match=rf"^{path}"):
        read_slide(SlideFile("a", "trident", path), SlideOptions())

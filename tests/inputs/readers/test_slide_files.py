"""Folders of tile features: which slides they have and in which layout; every layout there and back."""

import fcntl
import os
import pickle
import shutil
import subprocess
import sys

import h5py
import ml_dtypes
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from modaltune_jax.inputs.readers.slide_file import SlideFile, SlideOptions
from modaltune_jax.inputs.slide_files import LAYOUTS, find_slides, read_slide
from modaltune_jax.types import InputError
from tests import feature_files as ff

OPTIONS = SlideOptions(patch_size_level0=512, coords_unit="level0")


def write(layout, folder, id, features, coords):
    """A slide of some layout; returns the folder to be read."""
    if layout == "trident":
        ff.write_trident(folder / f"{id}.h5", features, coords)
    elif layout == "stamp":
        ff.write_stamp(folder / f"{id}.h5", features, coords.astype(np.float32), unit=None)
    elif layout == "clam":
        ff.write_clam(folder, id, features, coords, patch_size=512)
        return folder / "h5_files"
    elif layout == "gigapath":
        ff.write_gigapath(folder / f"{id}.h5", features, coords)
    elif layout == "modaltune_pt":
        ff.write_modaltune(folder / f"{id}_featvec.pt", features, coords)
    elif layout == "arrays":
        np.savez(folder / f"{id}.npz", features=features, coords=coords)
    else:
        ff.write_zarr(folder / f"{id}.zarr", features, coords)
    return folder


def read(folder, options=OPTIONS):
    return [read_slide(file, options)[0] for file in find_slides(folder, options)]


def message(function, *arguments):
    with pytest.raises(InputError) as error:
        function(*arguments)
    return str(error.value)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_folder_of_each_layout(tmp_path, layout):
    bags = {f"TCGA-{i}.1234-ab": ff.bag(seed=i) for i in range(3)}
    for id, (features, coords) in reversed(bags.items()):
        folder = write(layout, tmp_path, id, features, coords)
    files = find_slides(folder, OPTIONS)
    assert [file.id for file in files] == sorted(bags)
    assert {file.layout for file in files} == {layout}
    # Work for other processes.
    for file in pickle.loads(pickle.dumps(files)):
        slide, facts = read_slide(file, OPTIONS)
        features, coords = bags[file.id]
        np.testing.assert_array_equal(slide.features, features, strict=True)
        np.testing.assert_array_equal(slide.coords, coords.astype(np.int32), strict=True)
        assert (slide.id, slide.patch_size_level0, facts.frame) == (file.id, 512, "level0")


@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_chosen_layout_is_not_looked_for(tmp_path, layout):
    features, coords = ff.bag()
    folder = write(layout, tmp_path, "a", features, coords)
    options = SlideOptions(layout=layout, patch_size_level0=512, coords_unit="level0")
    (slide,) = read(folder, options)
    np.testing.assert_array_equal(slide.features, features, strict=True)


@settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(data=st.data())
def test_features_come_back_bit_for_bit(tmp_path, data):
    dtype = data.draw(st.sampled_from([np.float16, np.float32]))
    layout = data.draw(st.sampled_from(["trident", "stamp", "gigapath", "modaltune_pt", "arrays"]))
    shape = data.draw(hnp.array_shapes(min_dims=2, max_dims=2, max_side=6))
    features = data.draw(hnp.arrays(dtype, shape, elements=st.floats(width=8 * np.dtype(dtype).itemsize)))
    places = st.integers(0, 2**24 if layout == "stamp" else 2**31 - 1)
    coords = data.draw(hnp.arrays(np.int64, (len(features), 2), elements=places))
    shutil.rmtree(tmp_path / "folder", ignore_errors=True)
    (tmp_path / "folder").mkdir()
    (slide,) = read(write(layout, tmp_path / "folder", "a", features, coords))
    assert slide.features.tobytes() == features.tobytes()
    assert (slide.features.dtype, slide.features.shape) == (features.dtype, features.shape)
    np.testing.assert_array_equal(slide.coords, coords)


@pytest.mark.parametrize("stored", ["h5 opaque", "h5 uint16", "npz", "zarr"])
def test_bfloat16_where_the_file_says_so(tmp_path, stored):
    features, coords = ff.bag()
    expected, void = features.astype(ml_dtypes.bfloat16), ff.as_void(features)
    if stored.startswith("h5"):
        values = void if stored == "h5 opaque" else void.view(np.uint16)
        path = ff.write_trident(tmp_path / "a.h5", values, coords)
        with h5py.File(path, "a") as file:
            file["features"].attrs["dtype"] = "bfloat16"
    elif stored == "npz":
        np.savez(tmp_path / "a.npz", features=expected, coords=coords, dtype="bfloat16")
    else:
        ff.write_zarr(tmp_path / "a.zarr", void.view(np.uint16), coords, dtype="bfloat16")
    (slide,) = read(tmp_path)
    np.testing.assert_array_equal(slide.features, expected, strict=True)


@pytest.mark.parametrize(
    ("features", "words"),
    [
        pytest.param(ff.as_void(np.ones((5, 4))), "of type void16", id="two bytes of anything"),
        pytest.param(np.ones((5, 4), np.uint8), "of type uint8", id="quantised"),
        pytest.param(np.full((5, 4), 0.1), "in float64, which float32 cannot hold", id="float64"),
        pytest.param(np.full((5, 4), 1e300), "in float64, which float32 cannot hold", id="float64 too large"),
        pytest.param(np.ones((4, 4), np.float32), "features of 4 tiles and coordinates of 5", id="one less"),
        pytest.param(np.ones(4, np.float32), r"shape \(4,\), which is not \[tiles, width\]", id="of a slide"),
        pytest.param(np.ones((2, 5, 4), np.float32), r"shape \(2, 5, 4\)", id="two slides"),
        pytest.param(np.full((5, 4), b"x"), "of type text", id="text"),
    ],
)
def test_features_that_are_none(tmp_path, features, words):
    path = ff.write_trident(tmp_path / "a.h5", features, ff.bag()[1])
    with pytest.raises(InputError, match=words) as error:
        read(tmp_path)
    assert str(error.value).startswith(str(path))


def test_what_float32_holds_may_be_stored_twice_as_wide(tmp_path):
    features, coords = ff.bag()
    features[0, :2] = np.nan, np.inf
    np.savez(tmp_path / "a.npz", features=features.astype(">f8"), coords=coords)
    np.savez(tmp_path / "b.npz", features=features.astype(">f4"), coords=coords)
    for slide in read(tmp_path):
        np.testing.assert_array_equal(slide.features, features, strict=True)


def test_hidden_and_other_files_are_left_out(tmp_path):
    ff.write_trident(tmp_path / "a.h5", *ff.bag())
    for name in ("._a.h5", "a.txt", "a.jpg", "b.h5.lock"):
        (tmp_path / name).write_text("no features")
    assert [file.id for file in find_slides(tmp_path, SlideOptions())] == ["a"]


def test_a_single_file_is_a_folder_of_one(tmp_path):
    path = ff.write_trident(tmp_path / "a.h5", *ff.bag())
    ff.write_trident(tmp_path / "b.h5", *ff.bag())
    assert find_slides(path, SlideOptions()) == [SlideFile("a", "trident", path)]


def test_folders_without_features(tmp_path):
    assert "is not there; give the folder" in message(find_slides, tmp_path / "nowhere", SlideOptions())
    (tmp_path / "a.txt").write_text("")
    assert "is a file of another kind" in message(find_slides, tmp_path / "a.txt", SlideOptions())
    text = message(find_slides, tmp_path, SlideOptions())
    assert "no files that end in .h5, .hdf5, .npy, .npz, .pt, .zarr; give the folder that has" in text
    ff.write_trident(tmp_path / "features_uni/a.h5", *ff.bag())
    assert "its folders features_uni have, give one" in message(find_slides, tmp_path, SlideOptions())
    options = SlideOptions(layout="arrays")
    assert "no files that end in .npz, .npy;" in message(find_slides, tmp_path / "features_uni", options)


def test_an_unknown_layout_is_told_the_known_ones(tmp_path):
    text = message(find_slides, tmp_path, SlideOptions(layout="openslide"))
    names = "trident, stamp, clam, gigapath, modaltune_pt, arrays, zarr"
    assert text == f"--layout is 'openslide'; it must be one of {names}"


def test_a_slide_twice(tmp_path):
    for name in ("a.npz", "b.npz"):
        np.savez(tmp_path / name, features=ff.bag()[0], coords=ff.bag()[1])
    np.save(tmp_path / "b.npy", ff.bag()[0])
    text = message(find_slides, tmp_path, SlideOptions())
    assert "b.npy and " in text
    assert "b.npz are both of slide b; take one" in text


def test_two_layouts_in_a_folder_are_named(tmp_path):
    for id in ("a", "b"):
        ff.write_trident(tmp_path / f"{id}.h5", *ff.bag())
    ff.write_stamp(tmp_path / "z.h5", *ff.bag())
    text = message(find_slides, tmp_path, SlideOptions())
    assert f"{tmp_path / 'a.h5'} is trident and {tmp_path / 'z.h5'} is stamp; give a folder" in text


def test_few_files_are_opened_and_the_others_checked_when_read(tmp_path, monkeypatch):
    for i in range(100):
        ff.write_trident(tmp_path / f"{i:03}.h5", *ff.bag())
    stray = ff.write_stamp(tmp_path / "001.h5", *ff.bag())
    opened = []

    class Counting(h5py.File):
        def __init__(self, path, *arguments, **keywords):
            opened.append(path)
            super().__init__(path, *arguments, **keywords)

    monkeypatch.setattr(h5py, "File", Counting)
    files = find_slides(tmp_path, SlideOptions())
    assert len(files) == 100
    assert len(opened) == 16
    text = message(read_slide, files[1], SlideOptions())
    assert text.startswith(f"{stray} has the arrays ['coords', 'feats'] with the attributes ['code_hash',")
    assert "which is stamp and not trident like other files of its folder" in text


def test_damaged_files_do_not_hide_a_folder(tmp_path):
    ff.write_trident(tmp_path / "b.h5", *ff.bag())
    (tmp_path / "a.h5").write_bytes(b"")
    a, b = find_slides(tmp_path, SlideOptions())
    assert "a.h5 is no whole HDF5 file (" in message(read_slide, a, SlideOptions())
    read_slide(b, SlideOptions())
    (tmp_path / "b.h5").unlink()
    assert "a.h5 is no whole HDF5 file (" in message(find_slides, tmp_path, SlideOptions())
    assert "b.h5 cannot be reached any more (No such file or directory)" in message(
        read_slide, b, SlideOptions()
    )


def test_suffixes_in_capitals(tmp_path):
    path = ff.write_trident(tmp_path / "a.h5", *ff.bag())
    path.rename(tmp_path / "a.H5")
    (file,) = find_slides(tmp_path, SlideOptions())
    assert read_slide(file, SlideOptions())[0].id == "a"


def test_a_name_that_is_no_text(tmp_path):
    path = ff.write_trident(tmp_path / "a.h5", *ff.bag())
    os.rename(path, os.fsencode(tmp_path) + b"/lat\xe9n.h5")
    assert "lat\\xe9n.h5': the name is not in UTF-8" in message(find_slides, tmp_path, SlideOptions())


def test_a_tile_larger_than_any_slide(tmp_path):
    ff.write_trident(tmp_path / "a.h5", *ff.bag(), patch_size_level0=2**40)
    (file,) = find_slides(tmp_path, SlideOptions())
    assert "larger than any slide" in message(read_slide, file, SlideOptions())


def test_a_locked_file(tmp_path):
    path = ff.write_trident(tmp_path / "a.h5", *ff.bag())
    (file,) = find_slides(tmp_path, SlideOptions())
    with path.open("rb") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        assert "another program has it open" in message(read_slide, file, SlideOptions())


def test_files_of_no_layout(tmp_path):
    ff.write_hdf5(tmp_path / "a.h5", {"images": np.ones((2, 3))})
    text = message(find_slides, tmp_path, SlideOptions())
    assert "a.h5 has the arrays ['images'], which is no layout that is known; known are trident, " in text


def test_reading_needs_no_jax_and_no_zarr():
    code = (
        "import modaltune_jax.inputs.slide_files, sys\n"
        "assert not {'jax', 'zarr', 'torch', 'pandas'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)

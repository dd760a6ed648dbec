"""TRIDENT's files."""

import h5py
import numpy as np
import pytest

from modaltune_jax.inputs.readers.slide_file import SlideFile, SlideOptions
from modaltune_jax.inputs.slide_files import find_slides, read_slide
from modaltune_jax.types import InputError
from tests import feature_files as ff


def read(path, **options):
    return read_slide(SlideFile("a", "trident", path), SlideOptions(**options))


def test_what_the_file_says(tmp_path):
    features, coords = ff.bag(dtype=np.float16)
    slide, facts = read(ff.write_trident(tmp_path / "a.h5", features, coords))
    np.testing.assert_array_equal(slide.features, features, strict=True)
    np.testing.assert_array_equal(slide.coords, coords.astype(np.int32), strict=True)
    assert slide.patch_size_level0 == 512
    assert facts == ("uni_v1", None, 20.0, "level0", "256 px at 20x")


def test_options_that_add_and_options_that_agree(tmp_path):
    path = ff.write_trident(tmp_path / "a.h5", *ff.bag())
    agreeing = {"patch_size_level0": 512, "coords_unit": "level0", "encoder": "UNI_v1"}
    _, facts = read(path, mpp=0.2527, **agreeing)
    assert (facts.encoder, facts.mpp) == ("uni_v1", 0.2527)


def test_coordinates_in_floats(tmp_path):
    features, coords = ff.bag()
    slide, _ = read(ff.write_trident(tmp_path / "a.h5", features, coords.astype(np.float64)))
    np.testing.assert_array_equal(slide.coords, coords.astype(np.int32), strict=True)
    with pytest.raises(InputError, match="coordinates that are no whole numbers, the first in tile 0"):
        read(ff.write_trident(tmp_path / "a.h5", features, coords + 0.5))


def test_text_in_place_of_coordinates(tmp_path):
    path = ff.write_trident(tmp_path / "a.h5", *ff.bag())
    with h5py.File(path, "a") as file:
        del file["coords"]
        file["coords"] = [["0", "512"]] * 5
        file["coords"].attrs.update(ff.trident_attributes())
    with pytest.raises(InputError, match=r"a.h5 has coordinates of type text; store them as int64"):
        read(path)


def test_a_batch_of_one(tmp_path):
    features, coords = ff.bag()
    slide, _ = read(ff.write_trident(tmp_path / "a.h5", features[None], coords[None]))
    np.testing.assert_array_equal(slide.features, features, strict=True)
    np.testing.assert_array_equal(slide.coords, coords.astype(np.int32), strict=True)


@pytest.mark.parametrize(
    ("features", "width"),
    [
        pytest.param(np.empty((0, 4), np.float32), 4, id="no rows"),
        pytest.param(np.empty((0,), np.float32), 0, id="width not known to TRIDENT"),
        pytest.param(None, 0, id="no features"),
    ],
)
def test_slides_without_tissue(tmp_path, features, width):
    datasets = {"coords": np.empty((0, 2), np.int64)} | ({} if features is None else {"features": features})
    with h5py.File(tmp_path / "a.h5", "w") as file:
        for name, values in datasets.items():
            file[name] = values
        file["coords"].attrs.update(ff.trident_attributes())
    (slide_file,) = find_slides(tmp_path, SlideOptions())
    slide, _ = read_slide(slide_file, SlideOptions())
    np.testing.assert_array_equal(slide.features, np.empty((0, width), np.float32), strict=True)
    np.testing.assert_array_equal(slide.coords, np.empty((0, 2), np.int32), strict=True)


def test_the_folder_is_named_after_the_encoder_where_the_file_is_silent(tmp_path):
    # TRIDENT writes the text "None" for what it does not know.
    path = ff.write_trident(tmp_path / "features_conch_v15/a.h5", *ff.bag(), encoder="None")
    assert read(path)[1].encoder == "conch_v15"
    assert read(path, encoder="titan")[1].encoder == "titan"
    path = ff.write_trident(tmp_path / "features_conch_v15/a.h5", *ff.bag(), encoder="uni_v2")
    assert read(path)[1].encoder == "uni_v2"


def test_the_size_is_put_together_as_trident_does(tmp_path):
    path = ff.write_trident(tmp_path / "a.h5", *ff.bag(), patch_size=224, scanned=40, shown=15)
    assert read(path)[0].patch_size_level0 == 597
    with h5py.File(path, "a") as file:
        del file["coords"].attrs["patch_size_level0"]
    assert read(path)[0].patch_size_level0 == 597
    with h5py.File(path, "a") as file:
        del file["coords"].attrs["target_magnification"]
    with pytest.raises(InputError, match="does not say how large its tiles are; give their side in level-0"):
        read(path)
    slide, facts = read(path, patch_size_level0=600)
    assert (slide.patch_size_level0, facts.tile_size) == (600, "600 px at level 0")


def test_patches_are_no_features(tmp_path):
    ff.write_hdf5(tmp_path / "a_patches.h5", {"coords": ff.bag()[1]}, {"coords": ff.trident_attributes()})
    (slide_file,) = find_slides(tmp_path, SlideOptions())
    with pytest.raises(InputError, match=r"a_patches.h5 has no features; give the files with the features"):
        read_slide(slide_file, SlideOptions())


@pytest.mark.parametrize(
    ("options", "words"),
    [
        pytest.param(
            {"patch_size_level0": 256},
            "has patch_size_level0 512 while --patch-size-level0 is 256; leave --patch-size-level0 out",
            id="size",
        ),
        pytest.param({"coords_unit": "um"}, "has coords_unit level0 while --coords-unit is um", id="unit"),
        pytest.param({"encoder": "conch"}, "has encoder uni_v1 while --encoder is conch", id="encoder"),
    ],
)
def test_options_that_contradict_the_file(tmp_path, options, words):
    path = ff.write_trident(tmp_path / "a.h5", *ff.bag())
    with pytest.raises(InputError, match=words):
        read(path, **options)


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        pytest.param(
            {"patch_size_level0": "512 px"}, "patch_size_level0 is '512 px', which is no pos", id="text"
        ),
        pytest.param({"patch_size_level0": -512}, "which is no positive number", id="negative"),
        pytest.param({"patch_size_level0": np.nan}, "which is no positive number", id="NaN"),
        pytest.param({"patch_size_level0": 512.5}, "is 512.5, which is no whole number", id="half"),
        pytest.param({"patch_size_level0": [512, 512]}, "which is no positive number", id="two"),
        pytest.param({"patch_size_level0": True}, "which is no positive number", id="truth"),
        pytest.param({"target_magnification": b"20x"}, "target_magnification is .*20x", id="bytes"),
        pytest.param({"encoder": 7}, "encoder is 7, which is no text", id="encoder"),
    ],
)
def test_attributes_of_a_wrong_kind(tmp_path, changed, words):
    path = ff.write_trident(tmp_path / "a.h5", *ff.bag())
    with h5py.File(path, "a") as file:
        for name, value in changed.items():
            file["features" if name == "encoder" else "coords"].attrs[name] = value
    with pytest.raises(InputError, match=words):
        read(path)

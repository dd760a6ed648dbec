"""Plain numpy arrays."""

import numpy as np
import pytest

from modaltune_jax.inputs.readers.slide_file import SlideOptions
from modaltune_jax.inputs.slide_files import find_slides, read_slide
from modaltune_jax.types import InputError
from tests import feature_files as ff

SAID = {"coords_unit": "level0", "patch_size_level0": 512, "mpp": 0.25, "encoder": "uni"}


def read(folder, **options):
    """The only slide of a folder."""
    (file,) = find_slides(folder, SlideOptions(**options))
    assert file.layout == "arrays"
    return read_slide(file, SlideOptions(**options))


def test_a_file_that_says_all(tmp_path):
    features, coords = ff.bag(dtype=np.float16)
    np.savez(tmp_path / "a.npz", features=features, coords=coords, **SAID)
    slide, facts = read(tmp_path)
    np.testing.assert_array_equal(slide.features, features, strict=True)
    np.testing.assert_array_equal(slide.coords, coords.astype(np.int32), strict=True)
    assert slide.patch_size_level0 == 512
    assert facts == ("uni", 0.25, None, "level0", "512 px at level 0")


@pytest.mark.parametrize(
    ("given", "unit", "per_tile"),
    [("grid", "", 1), ("", "grid", 1), ("um", "", 128), ("level0", "", 512)],
)
def test_units_are_read_or_asked_for(tmp_path, given, unit, per_tile):
    features, coords = ff.bag()
    said = SAID | {"coords_unit": given}
    if not given:
        del said["coords_unit"]
    np.savez_compressed(tmp_path / "a.npz", features=features, coords=coords // 512 * per_tile, **said)
    assert read(tmp_path, coords_unit=unit)[0].coords.tolist() == coords.tolist()


@pytest.mark.parametrize("ending", ["_coords", ".coords"])
def test_coordinates_beside_the_features(tmp_path, ending):
    features, coords = ff.bag()
    np.save(tmp_path / "a.npy", features)
    np.save(tmp_path / f"a{ending}.npy", coords)
    slide, _ = read(tmp_path, patch_size_level0=512, coords_unit="level0")
    np.testing.assert_array_equal(slide.features, features, strict=True)
    assert (slide.id, slide.coords.tolist()) == ("a", coords.tolist())


@pytest.mark.parametrize(
    ("left_out", "options", "words"),
    [
        pytest.param(["patch_size_level0"], {}, "does not say how large its tiles are", id="size"),
        pytest.param(["coords_unit"], {}, "does not say what its coordinates count", id="unit"),
        pytest.param([], {"mpp": 0.5}, "has mpp 0.25 while --mpp is 0.5; leave --mpp out", id="mpp"),
        pytest.param(
            [], {"coords_unit": "um"}, "has coords_unit level0 while --coords-unit is um", id="units"
        ),
        pytest.param([], {"encoder": "conch"}, "has encoder uni while --encoder is conch", id="encoder"),
    ],
)
def test_too_little_and_contradictions(tmp_path, left_out, options, words):
    features, coords = ff.bag()
    said = {name: value for name, value in SAID.items() if name not in left_out}
    np.savez(tmp_path / "a.npz", features=features, coords=coords, **said)
    with pytest.raises(InputError, match=f"a.npz {words}"):
        read(tmp_path, **options)


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        pytest.param(
            {"coords_unit": "px"}, "coords_unit is 'px'; correct it in the file to one of", id="unit"
        ),
        pytest.param({"coords_unit": 3}, "coords_unit is 3, which is no text", id="number"),
        pytest.param({"mpp": "0.25"}, "mpp is .*, which is no positive number", id="text"),
        pytest.param({"coords": np.array([["a", "b"]] * 5)}, "coordinates of type text", id="strings"),
        pytest.param({"coords": np.array([[{}, 1]] * 5)}, "is no whole file of numpy arrays", id="objects"),
        pytest.param({"features": np.ones((5, 4), int)}, "features of type int64", id="integers"),
    ],
)
def test_entries_of_a_wrong_kind(tmp_path, changed, words):
    features, coords = ff.bag()
    np.savez(tmp_path / "a.npz", **({"features": features, "coords": coords} | SAID | changed))
    with pytest.raises(InputError, match=words):
        read(tmp_path)


def test_features_alone(tmp_path):
    np.save(tmp_path / "a.npy", ff.bag()[0])
    with pytest.raises(
        InputError, match=r"has features alone; put the coordinates into a_coords.npy beside it"
    ):
        read(tmp_path)
    np.savez(tmp_path / "b.npz", features=ff.bag()[0])
    (tmp_path / "a.npy").unlink()
    with pytest.raises(InputError, match=r"b.npz has no coordinates"):
        read(tmp_path, patch_size_level0=512, coords_unit="level0")


@pytest.mark.parametrize("name", ["a.npz", "a.npy"])
@pytest.mark.parametrize("share", [0.0, 0.2, 0.5, 0.95])
def test_truncated(tmp_path, name, share):
    features, coords = ff.bag(64, 64)
    if name == "a.npz":
        np.savez_compressed(tmp_path / name, features=features, coords=coords, **SAID)
    else:
        np.save(tmp_path / name, features)
        np.save(tmp_path / "a_coords.npy", coords)
    data = (tmp_path / name).read_bytes()
    (tmp_path / name).write_bytes(data[: int(share * len(data))])
    with pytest.raises(InputError, match=rf"{name} is no whole file of numpy arrays \(.*\); write it again"):
        read(tmp_path)

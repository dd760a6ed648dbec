"""Zarr groups."""

import sys

import numpy as np
import pytest

from modaltune_jax.inputs.readers.slide_file import SlideOptions
from modaltune_jax.inputs.slide_files import find_slides, read_slide
from modaltune_jax.types import InputError
from tests import feature_files as ff

SAID = {"coords_unit": "level0", "patch_size_level0": 512, "mpp": 0.25, "encoder": "uni"}


@pytest.fixture(autouse=True)
def _needs_zarr():
    pytest.importorskip("zarr")


def read(folder, **options):
    """The only slide of a folder."""
    (file,) = find_slides(folder, SlideOptions(**options))
    assert file.layout == "zarr"
    return read_slide(file, SlideOptions(**options))


@pytest.mark.parametrize("version", [2, 3])
@pytest.mark.parametrize("place", ["", "a.zarr"])
def test_a_group_that_says_all(tmp_path, version, place):
    features, coords = ff.bag(dtype=np.float16)
    ff.write_zarr(tmp_path / "a.zarr", features, coords, version, **SAID)
    slide, facts = read(tmp_path / place)
    assert slide.id == "a"
    np.testing.assert_array_equal(slide.features, features, strict=True)
    np.testing.assert_array_equal(slide.coords, coords.astype(np.int32), strict=True)
    assert slide.patch_size_level0 == 512
    assert facts == ("uni", 0.25, None, "level0", "512 px at level 0")


def test_sizes_and_units_are_asked_for(tmp_path):
    ff.write_zarr(tmp_path / "a.zarr", *ff.bag())
    with pytest.raises(InputError, match=r"a.zarr does not say how large its tiles are"):
        read(tmp_path)
    with pytest.raises(InputError, match=r"a.zarr does not say what its coordinates count"):
        read(tmp_path, patch_size_level0=512)


@pytest.mark.parametrize("damaged", ["features/zarr.json", "zarr.json", "features/c/0/0"])
def test_damage(tmp_path, damaged):
    ff.write_zarr(tmp_path / "a.zarr", *ff.bag(), **SAID)
    (tmp_path / "a.zarr" / damaged).write_text("{")
    with pytest.raises(InputError, match=r"a.zarr is no whole group of zarr \(.*\); write it again"):
        read(tmp_path)


@pytest.mark.parametrize("lost", ["features/c/0/0", "coords/c/0/0"])
def test_a_chunk_that_is_lost(tmp_path, lost):
    ff.write_zarr(tmp_path / "a.zarr", *ff.bag(), **SAID)
    (tmp_path / "a.zarr" / lost).unlink()
    with pytest.raises(InputError, match=r"1 of the 1 chunks of .* are not there"):
        read(tmp_path)


def test_a_folder_that_is_no_group(tmp_path):
    (tmp_path / "a.zarr").mkdir()
    with pytest.raises(InputError, match=r"a.zarr is no whole group of zarr"):
        read(tmp_path)


def test_without_the_package(tmp_path, monkeypatch):
    ff.write_zarr(tmp_path / "a.zarr", *ff.bag(), **SAID)
    monkeypatch.setitem(sys.modules, "zarr", None)
    with pytest.raises(
        InputError, match=r"a.zarr needs a package to be read; pip install 'modaltune_jax\[zarr\]'"
    ):
        read(tmp_path)

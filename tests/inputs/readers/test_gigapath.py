"""Prov-GigaPath's files, which say nothing about themselves."""

import numpy as np
import pytest

from modaltune_jax.inputs.readers.slide_file import SlideOptions
from modaltune_jax.inputs.slide_files import find_slides, read_slide
from modaltune_jax.types import InputError
from tests import feature_files as ff


def read(folder, **options):
    """The only slide of a folder."""
    (file,) = find_slides(folder, SlideOptions(**options))
    assert file.layout == "gigapath"
    return read_slide(file, SlideOptions(**options))


def test_features_and_coordinates(tmp_path):
    features, coords = ff.bag()
    ff.write_gigapath(tmp_path / "a.h5", features, coords.astype(np.float32))
    slide, facts = read(tmp_path, patch_size_level0=512, encoder="gigapath", mpp=0.25)
    np.testing.assert_array_equal(slide.features, features, strict=True)
    np.testing.assert_array_equal(slide.coords, coords.astype(np.int32), strict=True)
    assert facts == ("gigapath", 0.25, None, "level0", "512 px at level 0")


def test_the_size_is_asked_for(tmp_path):
    ff.write_gigapath(tmp_path / "a.h5", *ff.bag())
    with pytest.raises(InputError, match=r"a.h5 does not say how large its tiles are"):
        read(tmp_path)


def test_other_tools_may_count_otherwise(tmp_path):
    features, coords = ff.bag()
    ff.write_gigapath(tmp_path / "a.h5", features, coords // 512)
    slide, _ = read(tmp_path, patch_size_level0=512, coords_unit="grid")
    assert slide.coords.tolist() == coords.tolist()


def test_a_file_that_says_more_is_not_overruled(tmp_path):
    ff.write_trident(tmp_path / "a.h5", *ff.bag())
    with pytest.raises(InputError, match="has patch_size_level0 512 while --patch-size-level0 is 256"):
        read(tmp_path, patch_size_level0=256, layout="gigapath")


def test_features_without_coordinates(tmp_path):
    ff.write_hdf5(tmp_path / "a.h5", {"features": ff.bag()[0]})
    with pytest.raises(InputError, match=r"a.h5 has no coordinates; extract the slide again"):
        read(tmp_path, patch_size_level0=256, layout="gigapath")

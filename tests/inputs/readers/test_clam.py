"""CLAM's folders."""

import shutil

import h5py
import numpy as np
import pytest

from modaltune_jax.inputs.readers.slide_file import SlideOptions
from modaltune_jax.inputs.slide_files import find_slides, read_slide
from modaltune_jax.types import InputError
from tests import feature_files as ff


def read(folder, **options):
    """The only slide of a folder."""
    (file,) = find_slides(folder, SlideOptions(**options))
    assert file.layout == "clam"
    return read_slide(file, SlideOptions(**options))


@pytest.mark.parametrize("given", ["", "h5_files", "pt_files"])
def test_any_of_its_folders_may_be_given(tmp_path, given):
    features, coords = ff.bag()
    ff.write_clam(tmp_path, "TCGA-1.a", features, coords)
    slide, facts = read(tmp_path / given)
    assert slide.id == "TCGA-1.a"
    np.testing.assert_array_equal(slide.features, features, strict=True)
    np.testing.assert_array_equal(slide.coords, coords.astype(np.int32), strict=True)
    assert slide.patch_size_level0 == 256
    assert facts == ("", None, None, "level0", "256 px at level 0")


@pytest.mark.parametrize(
    ("level", "downsample", "size"),
    [
        pytest.param(0, (1.0, 1.0), 256, id="level 0"),
        pytest.param(1, (4.0, 4.0), 1024, id="level 1"),
        pytest.param(1, (4.000109, 3.999957), 1024, id="level 1 of a slide whose sides 4 does not divide"),
        pytest.param(2, (16.00252, 16.0), 4096, id="level 2"),
    ],
)
def test_tiles_of_other_levels(tmp_path, level, downsample, size):
    ff.write_clam(tmp_path, "a", *ff.bag(), level=level, downsample=downsample)
    slide, facts = read(tmp_path)
    assert slide.patch_size_level0 == size
    assert facts.tile_size == f"256 px at level {level}"


def test_features_may_lie_beside_the_folder_of_the_patches(tmp_path):
    features, coords = ff.bag()
    ff.write_clam(tmp_path / "made", "a", features, coords)
    shutil.move(tmp_path / "made/patches", tmp_path / "patches")
    assert read(tmp_path / "made")[0].patch_size_level0 == 256
    assert read(tmp_path / "made/pt_files")[0].coords.tolist() == coords.tolist()


def test_without_patches_the_size_is_asked_for(tmp_path):
    features, coords = ff.bag()
    ff.write_clam(tmp_path, "a", features, coords)
    shutil.rmtree(tmp_path / "patches")
    for folder in ("h5_files", "pt_files"):
        with pytest.raises(
            InputError, match=f"{folder}/a.* does not say how large its tiles are; give their side"
        ):
            read(tmp_path / folder)
        slide, _ = read(tmp_path / folder, patch_size_level0=512)
        assert (slide.coords.tolist(), slide.patch_size_level0) == (coords.tolist(), 512)


def test_a_bag_without_coordinates(tmp_path):
    ff.write_bare_tensor(tmp_path / "pt_files/a.pt", ff.bag()[0])
    text = f"a.pt has no coordinates, and no a.h5 is in patches or h5_files near it; copy .* to {tmp_path}"
    with pytest.raises(InputError, match=text):
        read(tmp_path, patch_size_level0=256)


def test_slides_that_are_left_as_tensors_alone_are_found(tmp_path):
    for id in ("a", "b"):
        ff.write_clam(tmp_path, id, *ff.bag())
    (tmp_path / "h5_files/b.h5").unlink()
    files = find_slides(tmp_path, SlideOptions())
    assert [file.path.name for file in files] == ["a.h5", "b.pt"]
    assert {read_slide(file, SlideOptions())[0].patch_size_level0 for file in files} == {256}


def test_tensors_that_torch_saves(tmp_path):
    torch = pytest.importorskip("torch")
    features, coords = ff.bag()
    ff.write_clam(tmp_path, "a", features, coords)
    torch.save(torch.from_numpy(features), tmp_path / "pt_files/a.pt")
    slide, _ = read(tmp_path / "pt_files")
    np.testing.assert_array_equal(slide.features, features, strict=True)
    # TRIDENT saves arrays of numpy as .pt, if asked to.
    torch.save(features, tmp_path / "pt_files/a.pt")
    with pytest.raises(InputError, match=r"pt_files/a.pt"):
        read(tmp_path / "pt_files")


def test_patches_of_other_tiles(tmp_path):
    features, coords = ff.bag()
    ff.write_clam(tmp_path, "a", features, coords)
    with h5py.File(tmp_path / "patches/a.h5", "a") as file:
        file["coords"][0] += 256
    with pytest.raises(InputError, match=r"h5_files/a.h5 and .*patches/a.h5 have different coordinates"):
        read(tmp_path)
    with h5py.File(tmp_path / "patches/a.h5", "a") as file:
        file["coords"].resize(4, axis=0)
    with pytest.raises(InputError, match="features of 5 tiles and coordinates of 4"):
        read(tmp_path / "pt_files")


def test_trident_on_patches_of_clam(tmp_path):
    features, coords = ff.bag()
    path = ff.write_trident(tmp_path / "a.h5", features, coords)
    with h5py.File(path, "a") as file:
        attributes = file["coords"].attrs
        for name in list(attributes):
            del attributes[name]
        attributes.update({"patch_size": 256, "patch_level": 0, "custom_downsample": 2})
    slide, facts = read(tmp_path)
    assert (slide.patch_size_level0, facts.encoder) == (512, "uni_v1")
    with h5py.File(path, "a") as file:
        file["coords"].attrs["patch_level"] = 1
    with pytest.raises(InputError, match="does not say how large its tiles are"):
        read(tmp_path)


@pytest.mark.parametrize(
    ("downsample", "words"),
    [
        pytest.param((4.0, 8.0), r"downsample \[4.0, 8.0\] makes tiles that are not square", id="not square"),
        pytest.param((0.0, 0.0), "which makes no tiles of any size", id="zero"),
        pytest.param((np.nan, np.nan), "which makes no tiles of any size", id="NaN"),
        pytest.param((np.inf, np.inf), "which makes no tiles of any size", id="infinite"),
        pytest.param("4x", "downsample is '4x', which makes no tiles", id="text"),
        pytest.param((1.0, 2.0, 4.0), "which makes no tiles of any size", id="three"),
    ],
)
def test_wrong_downsamples(tmp_path, downsample, words):
    ff.write_clam(tmp_path, "a", *ff.bag(), level=1, downsample=downsample)
    with pytest.raises(InputError, match=words) as error:
        read(tmp_path)
    assert str(error.value).startswith(str(tmp_path / "patches/a.h5"))


def test_options_that_contradict_the_patches(tmp_path):
    ff.write_clam(tmp_path, "a", *ff.bag(), level=1, downsample=(4.0, 4.0))
    with pytest.raises(InputError, match="has patch_size_level0 1024 while --patch-size-level0 is 256"):
        read(tmp_path, patch_size_level0=256)

"""The torch files of ModalTune's public code."""

import numpy as np
import pytest

from modaltune_jax.inputs.readers.slide_file import SlideOptions
from modaltune_jax.inputs.slide_files import find_slides, read_slide
from modaltune_jax.types import InputError
from tests import feature_files as ff
from tests import torch_bytes as tb


def read(folder, **options):
    """The only slide of a folder."""
    (file,) = find_slides(folder, SlideOptions(**options))
    return read_slide(file, SlideOptions(**options))


def test_features_and_coordinates(tmp_path):
    features, coords = ff.bag()
    ff.write_modaltune(tmp_path / "TCGA-1.x_featvec.pt", features, coords)
    slide, facts = read(tmp_path, patch_size_level0=256)
    assert slide.id == "TCGA-1.x"
    np.testing.assert_array_equal(slide.features, features, strict=True)
    np.testing.assert_array_equal(slide.coords, coords.astype(np.int32), strict=True)
    assert facts == ("", None, None, "level0", "256 px at level 0")
    with pytest.raises(InputError, match=r"_featvec.pt does not say how large its tiles are"):
        read(tmp_path)


def test_files_that_torch_writes(tmp_path):
    torch = pytest.importorskip("torch")
    features, coords = ff.bag()
    kept = {"features": torch.from_numpy(features), "coords": torch.from_numpy(coords)}
    torch.save(kept, tmp_path / "a_featvec.pt")
    kept["features"] = kept["features"].bfloat16()
    torch.save(kept, tmp_path / "b_featvec.pt", _use_new_zipfile_serialization=False)
    a, b = find_slides(tmp_path, SlideOptions())
    options = SlideOptions(patch_size_level0=256)
    np.testing.assert_array_equal(read_slide(a, options)[0].features, features, strict=True)
    slide, _ = read_slide(b, options)
    assert (slide.features.dtype.name, slide.coords.tolist()) == ("bfloat16", coords.tolist())


@pytest.mark.parametrize(
    ("data", "words"),
    [
        pytest.param(b"not a torch file", "is neither a torch checkpoint nor", id="text"),
        pytest.param(b"", "is empty", id="empty"),
        pytest.param(b"\x80\x02cos\nsystem\n(X\x02\x00\x00\x00lstR.", "os", id="code"),
    ],
)
def test_files_that_hold_no_tensors(tmp_path, data, words):
    (tmp_path / "a_featvec.pt").write_bytes(data)
    with pytest.raises(InputError, match=words):
        find_slides(tmp_path, SlideOptions())


def test_a_list_of_tensors(tmp_path):
    tb.write_zip(tmp_path / "a.pt", tb.pickle(b"]"), {})
    with pytest.raises(InputError, match=r"a.pt holds an object of type list, not a dict of tensors"):
        find_slides(tmp_path, SlideOptions())


def test_tensors_of_other_names(tmp_path):
    data = tb.mapping({"weight": tb.tensor(tb.storage("FloatStorage", "0", 2), (2,), (1,))})
    tb.write_zip(tmp_path / "a.pt", tb.pickle(data), {"0": bytes(8)})
    with pytest.raises(
        InputError, match=r"a.pt has the arrays \['weight'\], which is no layout that is known"
    ):
        find_slides(tmp_path, SlideOptions())

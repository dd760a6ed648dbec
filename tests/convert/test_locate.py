"""Where weight files are found, and what a user without them is told."""

import pytest

from modaltune_jax.convert.locate import locate
from modaltune_jax.types import InputError


@pytest.fixture
def cache(tmp_path, monkeypatch):
    """A Hugging Face cache with one file in two revisions."""
    import huggingface_hub.constants as constants

    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    repo = tmp_path / "models--prov-gigapath--prov-gigapath"
    for revision in ("aaa", "bbb"):
        (repo / "snapshots" / revision).mkdir(parents=True)
        (repo / "snapshots" / revision / "slide_encoder.pth").write_text(revision)
    (repo / "refs").mkdir()
    (repo / "refs" / "main").write_text("aaa")
    return tmp_path


@pytest.mark.parametrize(
    ("name", "content"),
    [
        pytest.param("hf:gigapath", "aaa", id="short"),
        pytest.param("hf:prov-gigapath/prov-gigapath/slide_encoder.pth", "aaa", id="whole"),
        pytest.param("hf:prov-gigapath/prov-gigapath/slide_encoder.pth@bbb", "bbb", id="revision"),
        pytest.param("hf:gigapath@bbb", "bbb", id="short with a revision"),
    ],
)
def test_files_of_the_cache(cache, name, content):
    assert locate(name, "gigapath").read_text() == content


def test_plain_paths(tmp_path):
    (tmp_path / "weights.pth").touch()
    assert locate(tmp_path / "weights.pth", "titan") == tmp_path / "weights.pth"
    assert locate(str(tmp_path), "bert") == tmp_path


@pytest.mark.parametrize(
    ("name", "kind", "parts"),
    [
        pytest.param(
            "hf:titan",
            "titan",
            [
                "hf:titan is not in",
                "nothing is downloaded",
                "ask for access",
                "hf auth login",
                "model.safetensors",
            ],
            id="gated, not in the cache",
        ),
        pytest.param(
            "hf:someone/model/weights.bin",
            "bert",
            ["(1) `hf download someone/model weights.bin`", "(2) give it as hf:someone/model/weights.bin"],
            id="open, not in the cache",
        ),
        pytest.param(
            "hf:gigapth", "gigapath", ["hf:owner/repository/file", "gigapath, titan, conch"], id="typo"
        ),
        pytest.param("hf:a/b", "gigapath", ["names no file"], id="no file named"),
        pytest.param(
            "hf:a b/c/d", "gigapath", ["names no file", "alphanumeric"], id="no name of a repository"
        ),
        pytest.param("hf:a/b/../c", "gigapath", ["names no file", "'..'"], id="up and out"),
        pytest.param(
            "hf:gigapath@ccc",
            "gigapath",
            ["slide_encoder.pth --revision ccc`", "slide_encoder.pth@ccc"],
            id="another revision",
        ),
        pytest.param(
            "weights/none.pth",
            "gigapath",
            ["'weights/none.pth' does not exist", "hf auth login"],
            id="no such path",
        ),
        pytest.param("none", "bert", ["'none' does not exist: give a path that does"], id="nothing known"),
    ],
)
def test_missing_files_say_how_to_get_them(cache, name, kind, parts):
    with pytest.raises(InputError) as caught:
        locate(name, kind)
    for part in parts:
        assert part in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_cache_without_main_says_which_revisions_it_has(cache):
    (cache / "models--prov-gigapath--prov-gigapath" / "refs" / "main").unlink()
    (cache / "models--prov-gigapath--prov-gigapath" / "snapshots" / "ccc").mkdir()
    with pytest.raises(InputError, match=r"only at aaa, bbb, .* e\.g\. hf:gigapath@aaa"):
        locate("hf:gigapath", "gigapath")


def test_a_link_that_leads_nowhere_is_no_file(cache):
    file = cache / "models--prov-gigapath--prov-gigapath" / "snapshots" / "aaa" / "slide_encoder.pth"
    file.unlink()
    file.symlink_to("nowhere")
    with pytest.raises(InputError, match="only at bbb"):
        locate("hf:gigapath", "gigapath")


def test_a_download_that_fails_says_why(cache, monkeypatch):
    import huggingface_hub as hub

    def refuse(*_, **__):
        raise hub.errors.LocalEntryNotFoundError("no connection\nand more")

    monkeypatch.setattr(hub, "hf_hub_download", refuse)
    with pytest.raises(
        InputError, match=r"hf:conch could not be downloaded \(no connection\); to get it: \(1\) open"
    ):
        locate("hf:conch", "conch", download=True)


def test_downloads_are_asked_of_the_hub(cache, monkeypatch, tmp_path):
    import huggingface_hub as hub

    asked = []
    monkeypatch.setattr(
        hub, "hf_hub_download", lambda *a, **k: asked.append((a, k)) or str(tmp_path / "file")
    )
    assert locate("hf:a/b/c/d.bin@v1", "bert", download=True) == tmp_path / "file"
    assert asked == [(("a/b", "c/d.bin"), {"revision": "v1"})]

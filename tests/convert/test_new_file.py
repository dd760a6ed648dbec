"""Files appear whole or not at all, whatever happens while they are written."""

import errno
import threading

import pytest

from modaltune_jax.convert.new_file import new_file
from modaltune_jax.types import InputError


def write(path, text, error=None):
    with new_file(path) as temporary:
        temporary.write_text(text)
        if error is not None:
            raise error


def test_the_folder_is_made_and_the_file_replaced(tmp_path):
    path = tmp_path / "new folder ü" / "weights"
    for text in ("first", "second"):
        write(path, text)
    assert [(file.name, file.read_text()) for file in path.parent.iterdir()] == [("weights", "second")]


@pytest.mark.parametrize("error", [KeyboardInterrupt(), ValueError("x")], ids=["Ctrl-C", "error"])
def test_nothing_is_left_after_an_error(tmp_path, error):
    write(tmp_path / "weights", "first")
    with pytest.raises(type(error)):
        write(tmp_path / "weights", "second", error)
    assert [(file.name, file.read_text()) for file in tmp_path.iterdir()] == [("weights", "first")]


def test_a_full_disk_is_told_in_a_sentence(tmp_path):
    with pytest.raises(InputError, match=r"weights cannot be written \(No space left on device\): mend that"):
        write(tmp_path / "weights", "text", OSError(errno.ENOSPC, "No space left on device"))
    assert not list(tmp_path.iterdir())


def test_a_file_in_place_of_the_folder(tmp_path):
    write(tmp_path / "file", "text")
    with pytest.raises(InputError, match=r"weights cannot be written \(File exists\)"):
        write(tmp_path / "file" / "weights", "text")


def test_two_writers_of_one_file_do_not_meet(tmp_path):
    """The later one wins, and each writes a file of its own until then."""
    barrier = threading.Barrier(2)

    def run(text):
        with new_file(tmp_path / "weights") as temporary:
            temporary.write_text(text)
            barrier.wait(10)
            assert temporary.read_text() == text

    threads = [threading.Thread(target=run, args=(text,)) for text in ("a" * 10, "b" * 10)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [file.name for file in tmp_path.iterdir()] == ["weights"]
    assert (tmp_path / "weights").read_text() in ("a" * 10, "b" * 10)

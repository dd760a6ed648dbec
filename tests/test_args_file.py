"""Files of flags: words, comments, quotes, and what cannot be read."""

import pytest

from modaltune_jax import command
from modaltune_jax.args_file import read_args_file
from modaltune_jax.types import InputError


@pytest.mark.parametrize(
    ("text", "words"),
    [
        pytest.param("--cohort brca\n--out x", ["--cohort", "brca", "--out", "x"], id="words-and-lines"),
        pytest.param("a # don't\n# b \"\nc#1 #d", ["a", "c#1"], id="comments"),
        pytest.param(
            "k=all.tsv#1 a.xlsx#Sheet study#2/x", ["k=all.tsv#1", "a.xlsx#Sheet", "study#2/x"], id="hash"
        ),
        pytest.param("""'a b' "it's" c'd e'f '#5' ''""", ["a b", "it's", "cd ef", "#5", ""], id="quotes"),
        pytest.param(
            r"C:\data\feat '(P\d+)-' \\host", [r"C:\data\feat", r"(P\d+)-", r"\\host"], id="backslashes"
        ),
        pytest.param("a \\\nb", ["a", "b"], id="lines-of-a-shell"),
        pytest.param("\ufeffa\r\nb\r\n", ["a", "b"], id="byte-order-mark-and-windows"),
        pytest.param("", [], id="empty"),
    ],
)
def test_words(tmp_path, text, words):
    (tmp_path / "cohort.args").write_bytes(text.encode())
    assert read_args_file(tmp_path / "cohort.args") == words


@pytest.mark.parametrize(
    ("content", "message"),
    [
        pytest.param(
            b"ok\n--sets Mueller's.csv", r"cohort.args, line 2: the quote ' is not closed", id="apostrophe"
        ),
        pytest.param(b'"a b', r"line 1: the quote \" is not closed", id="quote"),
        pytest.param("M\u00fcller".encode("latin-1"), "is not UTF-8 text; save it as UTF-8", id="latin-1"),
        pytest.param("Mueller".encode("utf-16"), "is not UTF-8 text", id="utf-16"),
        pytest.param("Mueller".encode("utf-16-le"), "is not UTF-8 text", id="utf-16-without-mark"),
        pytest.param(b"@FOLDER/cohort.args", "contains itself", id="itself"),
        pytest.param(b"@FOLDER/other.args", "cohort.args: contains itself", id="itself-by-another"),
        pytest.param(b"@FOLDER/none.args", "none.args: no such file", id="absent"),
    ],
)
def test_what_cannot_be_read(tmp_path, content, message):
    folder = str(tmp_path).encode()
    (tmp_path / "cohort.args").write_bytes(content.replace(b"FOLDER", folder))
    (tmp_path / "other.args").write_bytes(b"@" + folder + b"/cohort.args")
    with pytest.raises(InputError, match=message):
        read_args_file(tmp_path / "cohort.args")


def test_a_parser_puts_files_in_their_place(tmp_path):
    (tmp_path / "inner.args").write_text("--b 2")
    (tmp_path / "outer.args").write_text(f"@{tmp_path}/inner.args --c 3#4")
    parser = command.Parser(fromfile_prefix_chars="@")
    for name in "abc":
        parser.add_argument(f"--{name}")
    options = parser.parse_args(["--a", "1", f"@{tmp_path}/outer.args"])
    assert vars(options) == {"a": "1", "b": "2", "c": "3#4"}

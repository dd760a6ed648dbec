"""Files of flags, which `@FILE` on a command line stands for."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

from modaltune_jax.types import InputError

_QUOTED = r"'[^']*'|\"[^\"]*\""
_WORD = re.compile(rf"(?:{_QUOTED}|[^\s'\"])+")


def read_args_file(path: Path, inside: tuple[Path, ...] = ()) -> list[str]:
    """The words of a file of flags; those of a file in it, `@OTHER`, stand in its place.

    Words are separated by white space and line breaks. Quotes keep white space together. A `#` at the start
    of a line or after white space begins a comment; within a word it is a letter as any other, and so is a
    backslash everywhere, but for one that ends a line of a shell.

    Args:
      path: of the file.
      inside: the files that this one stands in.

    Raises:
      InputError: no such file, not UTF-8, a quote that is not closed, or a file that stands in itself.
    """
    path = Path(path)
    if path.resolve() in inside:
        raise InputError(f"{path}: contains itself; leave out @{path}")
    words = []
    for number, line in enumerate(_text(path).splitlines(), start=1):
        for word in _words(line, f"{path}, line {number}"):
            if word.startswith("@"):
                words += read_args_file(Path(word[1:]), (*inside, path.resolve()))
            else:
                words.append(word)
    return words


def _text(path: Path) -> str:
    if not path.is_file():
        raise InputError(f"{path}: no such file; @FILE stands for the flags in a file")
    try:
        text = path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError:
        text = "\0"
    if "\0" in text:  # UTF-16 may well be UTF-8, with a zero after every letter.
        raise InputError(f"{path}: is not UTF-8 text; save it as UTF-8")
    return text


def _words(line: str, where: str) -> Iterator[str]:
    rest = line.strip()
    while rest and not rest.startswith("#") and rest != "\\":
        match = _WORD.match(rest)
        end = match.end() if match else 0
        if match is None or not (end == len(rest) or rest[end].isspace()):
            quote, other = rest[end], {"'": '"', '"': "'"}[rest[end]]
            raise InputError(
                f"{where}: the quote {quote} is not closed; put {other} around a word that has one"
            )
        yield re.sub(_QUOTED, lambda quoted: quoted[0][1:-1], match[0])
        rest = rest[end:].lstrip()

"""Ids that were nearly found: the hint that tells a typing difference from a missing case."""

from __future__ import annotations

import bisect
import re
import unicodedata
from collections import Counter
from collections.abc import Iterable

_NUMBER = re.compile(r"0*(\d+)(\.0+)?")


class NearMisses:
    """Looks for the id that was meant among those there are.

    >>> there = NearMisses(["TCGA-AA-0001", "P7"])
    >>> there.hint("tcga-aa-0001 ")
    " (there is 'TCGA-AA-0001', which is written differently)"
    >>> there.hint("P007")
    " (there is 'P7', which is written differently)"
    >>> there.hint("TCGA-AA-0001-01Z"), there.hint("TCGA-AA")
    (" (there is 'TCGA-AA-0001', which is shorter)", " (there is 'TCGA-AA-0001', which is longer)")
    >>> NearMisses(["TCGA-BRCA", "TCGA-LUAD"]).hint("BRCA")
    " (there is 'TCGA-BRCA', which is longer)"
    >>> there.hint("P8")
    ''
    """

    def __init__(self, ids: Iterable[str]):
        self._id_of = {_plain(id): id for id in ids}
        self._sorted = sorted(self._id_of)
        self._ending = {plain.rpartition("-")[2]: plain for plain in self._sorted}
        self._num_ending = Counter(plain.rpartition("-")[2] for plain in self._sorted)

    def hint(self, id: str) -> str:
        """A remark to put after "... is not there", `""` if nothing is near."""
        plain = _plain(id)
        if plain in self._id_of:
            return _remark(self._id_of[plain], "which is written differently")
        parts = plain.split("-")
        for end in range(len(parts) - 1, 0, -1):
            start = "-".join(parts[:end])
            if start in self._id_of:
                return _remark(self._id_of[start], "which is shorter")
        place = bisect.bisect_left(self._sorted, plain + "-")
        if place < len(self._sorted) and self._sorted[place].startswith(plain + "-"):
            return _remark(self._id_of[self._sorted[place]], "which is longer")
        if self._num_ending[plain] == 1:
            return _remark(self._id_of[self._ending[plain]], "which is longer")
        return ""


def _remark(id: str, how: str) -> str:
    return f" (there is {id!r}, {how})"


def _plain(id: str) -> str:
    """Without what tables change unasked: case, spaces, separators, composed letters, zeros of numbers."""
    text = "".join(unicodedata.normalize("NFKC", id).split()).casefold()
    number = _NUMBER.fullmatch(text)
    if number:
        return number[1]
    text = re.sub(r"[._/]", "-", text)
    return re.sub(r"\d+", lambda digits: digits[0].lstrip("0") or "0", text)

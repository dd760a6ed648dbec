"""AJCC codes of stage, tumour, nodes and metastasis, read down to their main category."""

from __future__ import annotations

import math
import re

from modaltune_jax.types import InputError

FIELDS = ("stage", "t", "n", "m")
"""What has AJCC codes, by the names of `Labels`."""

NOT_GIVEN = frozenset(
    {"", "'--", "--", "na", "n/a", "nan", "none", "unknown", "not reported", "not available", "not evaluated"}
)
"""What sources write, in lower case and without brackets, where they know nothing."""

UNASSESSED = "X"
IN_SITU = "is"

_CODES = {
    "stage": re.compile(r"(?:stage\s*)?(0|x|iv|i{1,3}|is|[1-4])[a-d]?\d?(?:is)?", re.IGNORECASE),
    "t": re.compile(r"[acpry]*t(is|a|[0-4x])(?!\d).*", re.IGNORECASE),
    "n": re.compile(r"[acpry]*n([0-3x])(?!\d).*", re.IGNORECASE),
    "m": re.compile(r"[acpry]*m([01x])(?!\d).*", re.IGNORECASE),
}
_CATEGORIES = {"x": UNASSESSED, "i": "1", "ii": "2", "iii": "3", "iv": "4", "is": IN_SITU, "a": IN_SITU}
_ORDINALS = {"0": 0.0, IN_SITU: 0.5, "1": 1.0, "2": 2.0, "3": 3.0, "4": 4.0}
_HIGHEST = {"stage": 4.0, "t": 4.0, "n": 3.0, "m": 1.0}


def ajcc_category(field: str, code: str) -> str:
    """The main category of an AJCC code, subdivisions folded.

    Args:
      field: "stage", "t", "n" or "m".
      code: as written in the source: "Stage IIB", "pT2a", "N0 (i-)", "cM0 (i+)".

    Returns:
      "0" to "4"; "is" for stage IS, Tis and Ta; "X" for not assessable; "" for not given.

    Raises:
      InputError: the code cannot be read.

    >>> ajcc_category("stage", "Stage IIIC"), ajcc_category("t", "pT2a"), ajcc_category("n", "N0 (i-)")
    ('3', '2', '0')
    >>> ajcc_category("m", "MX"), ajcc_category("m", "[Not Available]")
    ('X', '')
    """
    code = code.strip()
    if code.lower().strip("[]") in NOT_GIVEN:
        return ""
    match = _CODES[field].fullmatch(code)
    if match is None:
        raise InputError(
            f"{field} {code!r} is not an AJCC code; write it like 'Stage IIB', 'T2a', or leave it empty"
        )
    main = match.group(1).lower()
    return _CATEGORIES.get(main, main)


def ajcc_ordinal(field: str, code: str) -> float:
    """The main category of an AJCC code on a scale from 0 to 1, the field's highest.

    In situ lies halfway from category 0 to 1; what is not given or not assessable ("NX") is NaN.

    >>> ajcc_ordinal("stage", "Stage IIB"), ajcc_ordinal("n", "N3"), ajcc_ordinal("t", "TX")
    (0.5, 1.0, nan)

    Raises:
      InputError: the code cannot be read.
    """
    return _ORDINALS.get(ajcc_category(field, code), math.nan) / _HIGHEST[field]

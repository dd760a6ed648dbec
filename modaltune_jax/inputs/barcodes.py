"""Which case a slide or a sample belongs to: TCGA barcodes, and rules for other names.

A TCGA barcode grows from left to right: `TCGA-E2-A14P` is a case (E2 the tissue source site), `-01` a sample
of it by type, `Z` its vial, `-00-DX1` a slide; file names add a UUID after a dot.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from pathlib import Path

from modaltune_jax.inputs.table_file import column_list, is_table, read_table, split_sheet
from modaltune_jax.inputs.text_file import existing
from modaltune_jax.types import InputError

_TCGA = re.compile(r"(TCGA-([A-Z0-9]{2})-[A-Z0-9]{4})(?:-(\d{2})[A-Z]?)?(?![A-Z0-9])", re.IGNORECASE)
_SLIDE_SUFFIX = re.compile(r"\.(svs|tiff?|ndpi|mrxs|scn|czi|h5|pt)$", re.IGNORECASE)


def case_of(barcode: str) -> str:
    """The case of a TCGA barcode of any length.

    Raises:
      InputError: it is no TCGA barcode.

    >>> case_of("TCGA-E2-A14P-01Z-00-DX1.663B9B44")
    'TCGA-E2-A14P'
    """
    return _parts(barcode)[1].upper()


def is_barcode(name: str) -> bool:
    """Whether a name starts as a TCGA barcode does."""
    return _TCGA.match(name) is not None


def sample_type(barcode: str) -> int | None:
    """The two digits of a TCGA sample: 1 to 9 tumours (1 primary solid), 10 to 19 normals; None without them.

    >>> sample_type("TCGA-E2-A14P-01Z-00-DX1"), sample_type("TCGA-E2-A14P-11A"), sample_type("TCGA-E2-A14P")
    (1, 11, None)
    """
    digits = _parts(barcode)[3]
    return int(digits) if digits else None


def is_normal_tissue(slide_id: str) -> bool:
    """Whether a name is a TCGA barcode of normal tissue, sample types 10 to 19.

    >>> is_normal_tissue("TCGA-E2-A14P-11A-01-TS1"), is_normal_tissue("TCGA-E2-A14P-01Z-00-DX1")
    (True, False)
    """
    kind = sample_type(slide_id) if is_barcode(slide_id) else None
    return kind is not None and 10 <= kind <= 19


def tissue_source_site(case_id: str) -> str:
    """The two characters of the hospital that gave the tissue.

    >>> tissue_source_site("TCGA-E2-A14P")
    'E2'
    """
    return _parts(case_id)[2].upper()


def slide_name(file_name: str) -> str:
    """A slide's name without the ending of an image or feature file; a UUID after a dot stays.

    >>> slide_name("TCGA-E2-A14P-01Z-00-DX1.663B9B44.svs"), slide_name("C3L-00016-21")
    ('TCGA-E2-A14P-01Z-00-DX1.663B9B44', 'C3L-00016-21')
    """
    return _SLIDE_SUFFIX.sub("", file_name)


def case_rule(rule: str) -> Callable[[str], str]:
    r"""How slides find their case, as the user says it.

    Args:
      rule: "tcga", the first twelve characters of a TCGA barcode; "name", every slide is its own case; a
        table (.csv, .tsv, .txt, .xlsx) with the columns slide_id and case_id; or a regular expression
        with one group, matched at the start of the slide's name.

    Returns:
      A function from slide id to case id. It raises an InputError that names slide and rule.

    Raises:
      InputError: the rule itself is wrong.

    >>> case_rule(r"(C3[LN]-\d+)-")("C3L-00016-21")
    'C3L-00016'
    """
    if rule == "tcga":
        return case_of
    if rule == "name":
        return lambda slide_id: slide_id
    if is_table(rule):
        return _Listed(_read_pairs(*split_sheet(rule)), rule)
    try:
        pattern = re.compile(rule)
    except re.error as error:
        raise InputError(f"case rule {rule!r} is not a regular expression: {error}") from None
    if pattern.groups != 1:
        raise InputError(
            f"case rule {rule!r} has {pattern.groups} groups; write tcga, name, the path of a CSV file, or a"
            " regular"
            r" expression with one group such as (C3[LN]-\d+)"
        )
    return _Matched(pattern)


class _Matched:
    def __init__(self, pattern: re.Pattern[str]):
        self._pattern = pattern

    def __call__(self, slide_id: str) -> str:
        match = self._pattern.match(slide_id)
        if match is None or not match.group(1):
            raise InputError(
                f"slide {slide_id}: does not match the case rule {self._pattern.pattern!r}; correct the rule"
                " or rename the slide"
            )
        return match.group(1)


class _Listed:
    def __init__(self, case_ids: Mapping[str, str], source: str):
        self._case_ids, self._source = case_ids, source

    def __call__(self, slide_id: str) -> str:
        case_id = self._case_ids.get(slide_name(slide_id))
        if case_id is None:
            raise InputError(f"slide {slide_id}: is not listed in {self._source}; add a row slide_id,case_id")
        return case_id


def _read_pairs(path: Path, sheet: str) -> dict[str, str]:
    existing(path, "give a CSV with the columns slide_id and case_id")
    table = read_table(path, sheet, verbatim=True)
    if not {"slide_id", "case_id"} <= set(table):
        raise InputError(f"{path}: its columns are {column_list(table)}; it needs slide_id and case_id")
    case_ids: dict[str, str] = {}
    for slide_id, case_id in zip(table["slide_id"], table["case_id"], strict=True):
        if not slide_id or not case_id:
            raise InputError(
                f"{path}: slide {slide_id!r} has case {case_id!r}; fill both cells or drop the row"
            )
        if case_ids.setdefault(slide_name(slide_id), case_id) != case_id:
            raise InputError(
                f"{path}: slide {slide_id} has the cases {case_ids[slide_name(slide_id)]} and {case_id}; keep"
                " one"
            )
    return case_ids


def _parts(barcode: str) -> re.Match[str]:
    match = _TCGA.match(barcode)
    if match is None:
        raise InputError(
            f"slide or case {barcode!r}: is not a TCGA barcode such as TCGA-E2-A14P-01Z-00-DX1; give another"
            " rule with --case-of-slide: name, FILE.csv, or a regular expression"
        )
    return match

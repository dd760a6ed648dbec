"""What `pack` would leave out once it has read the slides, by its own rules."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import pandas as pd

from modaltune_jax.inspection.slide_checks import Finding, SlideCheck
from modaltune_jax.packing.common_layout import common_layout
from modaltune_jax.packing.packed_case import PackedSlide
from modaltune_jax.packing.planned_case import Quarantined


def mark_misfits(checks: Sequence[SlideCheck]) -> list[SlideCheck]:
    """The checks, where a slide is unlike most in width, type or encoder with a finding that says so."""
    good = [check for check in checks if check.verdict != "bad"]
    layout = common_layout(_packed(check) for check in good)
    reasons = {id(check): layout.misfit(_packed(check)) for check in good}
    return [
        _with(check, Finding("unlike-most", "bad", reason)) if (reason := reasons.get(id(check))) else check
        for check in checks
    ]


def empty_cases(cases: pd.DataFrame, checks: Sequence[SlideCheck]) -> list[Quarantined]:
    """Cases of which nothing is left without the bad slides.

    Args:
      cases: as of `CohortTable`.
      checks: of all slides of all cases.
    """
    has_tiles = {check.case_id for check in checks if check.verdict != "bad" and check.num_tiles}
    return [
        Quarantined(row.case_id, "", "", "no slide of it can be used, and it has no expression")
        for row in cases.itertuples()
        if row.slides and not row.expression and row.case_id not in has_tiles
    ]


def _with(check: SlideCheck, finding: Finding) -> SlideCheck:
    return dataclasses.replace(check, findings=(finding, *check.findings))


def _packed(check: SlideCheck) -> PackedSlide:
    return PackedSlide(
        slide_id=check.slide_id,
        case_id=check.case_id,
        path=check.path,
        layout=check.layout,
        coords_path="",
        bytes=0,
        sha256="",
        encoder=check.encoder,
        mpp=check.mpp,
        magnification=check.magnification,
        frame=check.frame,
        tile_size=check.tile_size,
        num_tiles=check.num_tiles or 0,
        patch_size_level0=check.patch_size_level0 or 0,
        width=check.width or 0,
        dtype=check.dtype,
    )

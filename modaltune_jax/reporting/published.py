"""The tables of the paper, to stand beside ours (ModalTune, Ramanathan et al. 2025).

Test split of TCGA, tile features of Prov-GigaPath, mean over 3 seeds of the paper's own runs. Other data have
other cases, features and splits: the values say where a method stood in the paper, not what it should reach.
"""

from __future__ import annotations

SITES = ("brca", "gbmlgg", "nsclc", "rcc")
"""Columns of the paper; the last column is their mean."""

OVERALL = "overall"

_COLUMNS = (*SITES, OVERALL)

_SUBTYPE = {
    "slide_encoder_probe": (0.612, 0.900, 0.821, 0.851, 0.796),
    "abmil": (0.853, 0.931, 0.920, 0.921, 0.906),
    "transmil": (0.828, 0.978, 0.934, 0.918, 0.915),
    "slide_encoder": (0.860, 0.931, 0.916, 0.939, 0.912),
    "mlp": (0.752, 0.998, 0.926, 0.883, 0.890),
    "snn": (0.839, 1.000, 0.941, 0.890, 0.917),
    "gene_mixer": (0.840, 1.000, 0.932, 0.898, 0.917),
    "mcat": (0.875, 0.973, 0.921, 0.933, 0.925),
    "survpath": (0.858, 0.995, 0.932, 0.936, 0.930),
    "abmil_cat": (0.861, 1.000, 0.951, 0.937, 0.937),
    "transmil_cat": (0.847, 1.000, 0.950, 0.957, 0.939),
    "slide_encoder_cat": (0.850, 0.998, 0.924, 0.926, 0.925),
    "modaltune": (0.899, 1.000, 0.956, 0.959, 0.954),
    "modaltune_pancancer": (0.858, 0.990, 0.958, 0.902, 0.927),
}
_SURVIVAL = {
    "slide_encoder_probe": (0.647, 0.795, 0.562, 0.679, 0.671),
    "abmil": (0.712, 0.854, 0.582, 0.670, 0.704),
    "transmil": (0.742, 0.868, 0.586, 0.676, 0.718),
    "slide_encoder": (0.680, 0.824, 0.546, 0.685, 0.684),
    "mlp": (0.629, 0.884, 0.542, 0.720, 0.694),
    "snn": (0.749, 0.887, 0.571, 0.735, 0.736),
    "gene_mixer": (0.762, 0.870, 0.556, 0.690, 0.719),
    "mcat": (0.673, 0.880, 0.592, 0.697, 0.710),
    "survpath": (0.741, 0.895, 0.613, 0.677, 0.732),
    "abmil_cat": (0.736, 0.896, 0.605, 0.690, 0.732),
    "transmil_cat": (0.666, 0.872, 0.595, 0.689, 0.705),
    "slide_encoder_cat": (0.678, 0.861, 0.573, 0.693, 0.701),
    "modaltune": (0.772, 0.879, 0.608, 0.743, 0.750),
    "modaltune_pancancer": (0.757, 0.860, 0.586, 0.705, 0.727),
}
_TABLES = {"subtype": _SUBTYPE, "survival": _SURVIVAL}


def published(target: str, method: str, site: str) -> float | None:
    """What the paper says; None where it says nothing.

    Args:
      target: "subtype" (balanced accuracy) or "survival" (Harrell's c).
      method: as in `rows.METHODS`.
      site: one of `SITES` or "overall".
    """
    row = _TABLES[target].get(method)
    return row[_COLUMNS.index(site)] if row and site in _COLUMNS else None

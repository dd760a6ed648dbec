"""Which sample of a case counts, where a matrix has several: tumours only, the primary one first."""

from __future__ import annotations

from collections.abc import Iterable

from modaltune_jax.inputs.barcodes import case_of, is_barcode, sample_type
from modaltune_jax.inputs.counts import Count, some

_FIRST_NORMAL = 10


def choose_samples(names: Iterable[str]) -> tuple[dict[str, str], tuple[Count, ...]]:
    """One sample a case.

    Of TCGA barcodes, tumours (types 01 to 09) are taken in the order of type, then of name; a case with other
    samples only (normals, 10 to 19, and controls) is left out. Other names are cases of their own.

    Args:
      names: samples, unique.

    Returns:
      Case id -> sample, in the order of the samples, and what was left out.
    """
    chosen: dict[str, str] = {}
    normals, rivals = [], []
    for name in names:
        if not is_barcode(name):
            chosen[name] = name
            continue
        if _order(name)[0] >= _FIRST_NORMAL:
            normals.append(name)
            continue
        case_id = case_of(name)
        other = chosen.setdefault(case_id, name)
        if other != name:
            better, worse = sorted((other, name), key=_order)
            chosen[case_id] = better
            rivals.append(worse)
    num_tumours = len(chosen) + len(rivals)
    counts = []
    if normals:
        text = "normal tissue and controls are left out"
        counts.append(Count("tumour samples", num_tumours + len(normals), num_tumours, text, some(normals)))
    if rivals:
        text = "of several tumour samples the first by type is taken"
        counts.append(Count("one sample a case", num_tumours, len(chosen), text, some(rivals)))
    return chosen, tuple(counts)


def _order(name: str) -> tuple[int, str]:
    return sample_type(name) or 0, name

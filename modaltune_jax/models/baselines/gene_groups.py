"""Groups of genes that a model cannot do without."""

from __future__ import annotations

from modaltune_jax.models.modalities import ModalInputs
from modaltune_jax.types import InputError


def measured_groups(inputs: ModalInputs) -> tuple[bool, ...]:
    """Of each group whether any of its genes was measured.

    Raises:
      InputError: there is no such group.
    """
    measured = tuple(len(group) > 0 for group in inputs.gene_groups)
    if not any(measured):
        raise InputError(
            "the records have no gene sets, by which this model reads expression: write them with --gene-sets"
            ", or take one that reads genes without, such as snn"
        )
    return measured

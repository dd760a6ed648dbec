"""Groups of genes: pathways, gene families or signature groups, as indices into a data set's gene list."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from modaltune_jax.inputs.table_file import column_list, read_table
from modaltune_jax.inputs.text_file import existing
from modaltune_jax.types import InputError

_GROUP_COLUMNS = ("pathway", "group")
_MEMBER_COLUMNS = ("gene", "feature")
_ORDER = "pathway_idx"


@dataclasses.dataclass(frozen=True, eq=False)
class GeneSets:
    """Named, possibly overlapping groups of genes; each becomes one pathway token.

    Attributes:
      names: one per group.
      groups: one int32 array of gene indices per group, in the order of the file; empty where none of
        the group's genes was measured, so that the list of groups does not depend on the data set.
    """

    names: tuple[str, ...]
    groups: tuple[np.ndarray, ...]

    def __post_init__(self) -> None:
        if len(self.names) != len(self.groups):
            raise ValueError(f"{len(self.names)} names for {len(self.groups)} groups")


def read_gene_sets(path: str | Path, genes: Sequence[str]) -> GeneSets:
    """Reads a membership table, one row per (group, gene), and looks its genes up in `genes`.

    Args:
      path: CSV, gzipped or not, with a column `pathway` or `group` and a column `gene` or `feature`. Groups
        are ordered by the column `pathway_idx` where there is one, else by first appearance.
      genes: the data set's genes; indices refer to this order.

    Raises:
      InputError: the file is missing or lacks a column, or names none of `genes`.
    """
    table = _memberships(Path(path))
    index_of = {gene: i for i, gene in enumerate(genes)}
    indices: dict[str, list[int]] = {}
    for name, gene in table.itertuples(index=False):
        members = indices.setdefault(name, [])
        if gene in index_of:
            members.append(index_of[gene])
    if not any(indices.values()):
        raise InputError(
            f"{path}: none of its genes (first: {table['gene'].head(1).tolist()}) is among the data set's"
            f" {len(genes)} genes (first: {list(genes[:1])}); use gene symbols on both sides"
        )
    return GeneSets(tuple(indices), tuple(np.asarray(members, np.int32) for members in indices.values()))


def gene_symbols(path: str | Path) -> frozenset[str]:
    """All genes of a membership table, measured or not.

    Raises:
      InputError: the file is missing or lacks a column.
    """
    return frozenset(_memberships(Path(path))["gene"])


def _memberships(path: Path) -> pd.DataFrame:
    """Columns group and gene, each pair once."""
    existing(path, "give a CSV of gene groups with columns pathway and gene")
    table = read_table(path, otherwise=",", verbatim=True)
    group = _column(table, _GROUP_COLUMNS, path)
    member = _column(table, _MEMBER_COLUMNS, path)
    empty = table[(table[group] == "") | (table[member] == "")]
    if len(empty):
        raise InputError(
            f"{path}: row {empty.index[0] + 1} has {group} {empty[group].iloc[0]!r} and {member}"
            f" {empty[member].iloc[0]!r}; fill both cells or drop the row"
        )
    if _ORDER in table:
        wrong = table[~table[_ORDER].str.fullmatch(r"[0-9]+").astype(bool)]
        if len(wrong):
            raise InputError(
                f"{path}: {_ORDER} of {wrong[group].iloc[0]!r} is {wrong[_ORDER].iloc[0]!r}, which is no"
                " number; number all groups or drop the column"
            )
        table = table.sort_values(_ORDER, key=lambda column: column.astype(int), kind="stable")
    return table[[group, member]].set_axis(["group", "gene"], axis=1).drop_duplicates()


def _column(table: pd.DataFrame, choices: Sequence[str], path: Path) -> str:
    for name in choices:
        if name in table:
            return name
    raise InputError(
        f"{path}: its columns are {column_list(table)}; it needs one named {' or '.join(choices)}"
    )

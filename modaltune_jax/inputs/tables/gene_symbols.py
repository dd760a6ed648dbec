"""Names of genes as matrices write them, and the symbols that they stand for."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Mapping
from pathlib import Path

from modaltune_jax.inputs.counts import Count, some
from modaltune_jax.inputs.table_file import column_list, read_table
from modaltune_jax.types import InputError

_ENSEMBL = re.compile(r"(ENS[A-Z]*[GT]\d{11})(?:\.\d+)?(_PAR_Y)?")
# "?" of TCGA's first pipeline; reads that HTSeq and STAR could not count.
_NO_GENE = re.compile(r"\??|__\w+|N_(unmapped|multimapping|noFeature|ambiguous)")
_ALIAS_COLUMNS = (("alias", "symbol"), ("id", "gene"), ("#id", "gene"))


class GeneSymbols:
    """Turns the gene names of a matrix into symbols, and counts what it does.

    `TP53|7157` is TP53; `?|10357` has no symbol and is left out, as are `__no_feature` and the Y copy of a
    pseudoautosomal gene. Versions of Ensembl ids are dropped. Then aliases are replaced.

    Args:
      aliases: alias -> symbol.
      wanted: the only symbols to keep; None keeps all.
    """

    def __init__(self, aliases: Mapping[str, str], wanted: Collection[str] | None):
        self._aliases = aliases
        self._wanted = None if wanted is None else frozenset(wanted)
        self._num_read = 0
        self._nameless: list[str] = []
        self._replaced: list[str] = []
        self._ensembl: list[str] = []
        self._unwanted = 0

    def symbol(self, name: str) -> str:
        """The symbol of a gene; `""` if it is to be left out."""
        self._num_read += 1
        ensembl = _ENSEMBL.fullmatch(name)
        plain = ensembl.group(1) if ensembl else name.split("|")[0].strip()
        if _NO_GENE.fullmatch(plain) or (ensembl and ensembl.group(2)):
            self._nameless.append(name or "a column without a name")
            return ""
        symbol = self._aliases.get(name, self._aliases.get(plain, plain))
        if self._wanted is not None and symbol not in self._wanted:
            self._unwanted += 1
            return ""
        if symbol != plain:
            self._replaced.append(f"{plain}: {symbol}")
        elif ensembl:
            self._ensembl.append(name)
        return symbol

    def are_wanted(self, names: Iterable[str]) -> bool:
        """Whether genes that are asked for are among the names; False where none is asked for."""
        return self._wanted is not None and any(name.split("|")[0].strip() in self._wanted for name in names)

    def counts(self) -> tuple[Count, ...]:
        """What was done to the names so far."""
        total, nameless = self._num_read, len(self._nameless)
        counts = []
        if nameless:
            text = "a gene without a symbol is left out"
            counts.append(Count("genes with a name", total, total - nameless, text, some(self._nameless)))
        if self._unwanted:
            named = total - nameless
            counts.append(
                Count("genes that are asked for", named, named - self._unwanted, "others are not read")
            )
        if self._replaced:
            amount = len(self._replaced)
            counts.append(Count("genes renamed by aliases", amount, amount, "", some(self._replaced)))
        if self._ensembl:
            amount, text = len(self._ensembl), "these have no symbol in the aliases and keep their Ensembl id"
            counts.append(Count("genes with an Ensembl id", amount, amount, text, some(self._ensembl)))
        return tuple(counts)


def read_aliases(path: Path) -> tuple[dict[str, str], tuple[Count, ...]]:
    """Reads alias -> symbol: a CSV with these two columns, or a probe map of Xena with id and gene.

    An alias of two symbols is used for neither, and what is a symbol itself is not replaced by another.

    Raises:
      InputError: the file or its columns are missing.
    """
    # Probe maps have endings of their own, or none.
    table = read_table(path, otherwise="\t")
    names = next((names for names in _ALIAS_COLUMNS if set(names) <= set(table)), None)
    if names is None:
        raise InputError(
            f"{path}: its columns are {column_list(table)}; an alias table has alias and symbol, a probe map"
            " id and gene"
        )
    symbols = set(table[names[1]])
    aliases: dict[str, str] = {}
    ambiguous = set()
    for alias, symbol in zip(table[names[0]], table[names[1]], strict=True):
        ensembl = _ENSEMBL.fullmatch(alias)
        if not alias or not symbol or alias in symbols:
            continue
        for key in {alias, ensembl.group(1) if ensembl and not ensembl.group(2) else alias}:
            if aliases.setdefault(key, symbol) != symbol:
                ambiguous.add(key)
    kept = {alias: symbol for alias, symbol in aliases.items() if alias not in ambiguous}
    if not ambiguous:
        return kept, ()
    text = "an alias of several symbols is not used"
    return kept, (Count("aliases of one symbol", len(aliases), len(kept), text, some(sorted(ambiguous))),)

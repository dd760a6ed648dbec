"""Reads tables of labels and of expression by kind, "KIND:PATH[,PATH...]".

Labels:

==================================  =====================================================  ==============
kind and path                       what it is                                             endpoints
==================================  =====================================================  ==============
`gdc:clinical.tsv[,slide.tsv]`      GDC portal; also follow_up.tsv, several clinical.tsv   OS
`cdr:TCGA-CDR.xlsx`                 TCGA clinical data resource (Liu et al. 2018), or CSV  OS DSS DFI PFI
`survpath:metadata/tcga_brca.csv`   SurvPath's datasets_csv                                OS DSS PFI
`mcat:tcga_brca_all_clean.csv.zip`  datasets_csv of MCAT and PORPOISE                      OS
`patho_bench:k=all.tsv[#FOLD]`      Patho-Bench, config.yaml beside it                     the task's
`csv:labels.csv`                    one's own, columns named in a TOML file; also .tsv     in words
`excel:cohort.xlsx[#SHEET]`         the same as a workbook                                 in words
==================================  =====================================================  ==============

An endpoint in words is "time=COLUMN,unit=days,event=COLUMN" or "...,censorship=COLUMN"; any kind takes it.

Expression: `xena:MATRIX` has genes in rows; `csv:`, `parquet:` and `survpath:` (`rna_clean.csv`) have cases
in rows; `mcat:` has them as columns that end in _rnaseq. CSV and TSV may be gzipped or zipped.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path

from modaltune_jax.inputs.counts import Count, some
from modaltune_jax.inputs.table_file import split_sheet
from modaltune_jax.inputs.tables import gdc, patho_bench, plain, published, wide, xena
from modaltune_jax.inputs.tables.columns import Columns, read_columns
from modaltune_jax.inputs.tables.endpoints import Endpoint
from modaltune_jax.inputs.tables.expression import ExpressionTable
from modaltune_jax.inputs.tables.gene_symbols import GeneSymbols, read_aliases
from modaltune_jax.inputs.tables.labels import LabelSource, LabelTable, label_table
from modaltune_jax.types import InputError

__all__ = ["Endpoint", "ExpressionTable", "LabelTable", "read_expression", "read_labels"]

_LABEL_READERS: Mapping[str, Callable[[str], LabelSource]] = {
    "cdr": published.read_cdr,
    "survpath": published.read_survpath,
    "mcat": published.read_mcat,
    "patho_bench": patho_bench.read,
    "csv": plain.read,
    "excel": plain.read,
}
LABEL_KINDS = ("gdc", *_LABEL_READERS)

_EXPRESSION_READERS: Mapping[str, Callable[[Path, GeneSymbols], ExpressionTable]] = {
    "xena": xena.read,
    "csv": wide.read_csv,
    "survpath": wide.read_csv,
    "parquet": wide.read_parquet,
    "mcat": wide.read_mcat,
}
EXPRESSION_KINDS = tuple(_EXPRESSION_READERS)


def read_labels(
    source: str, *, endpoint: str = "", columns: Path | None = None, variables: Sequence[str] = ()
) -> LabelTable:
    """Labels of cases.

    Args:
      source: kind and paths, as in the table above.
      endpoint: "OS", "DSS"... where the kind defines it, or columns in words; `""` takes OS of a kind that
        has it, the task of Patho-Bench, that of the columns file, or none.
      columns: TOML file that says what the columns hold; for csv and excel, and to overrule the other kinds.
      variables: further columns, by their own name or the last part of a dotted one.

    Raises:
      InputError: a file, column or value is wrong, or the kind does not define the endpoint.
    """
    kind, paths = _split(source, LABEL_KINDS, "labels")
    if kind == "gdc":
        table = gdc.read(paths)
    elif len(paths) > 1:
        raise InputError(f"labels {source!r}: {kind} reads one file; several are for gdc")
    else:
        table = _LABEL_READERS[kind](paths[0])
    own = Columns({}) if columns is None else read_columns(columns)
    named_endpoint = _endpoint(table, endpoint, own)
    # A columns file says all of one's own table, and overrules part of a known one.
    named = own if columns is not None and kind in ("csv", "excel") else table.columns.merged(own)
    labels = label_table(table, dataclasses.replace(named, endpoint=named_endpoint), variables, tuple(own.of))
    if named_endpoint is None and "diagnosis" not in named.of and not (named.variables or variables):
        count = _nothing_to_learn(table, named, columns)
        labels = dataclasses.replace(labels, counts=(*labels.counts, count))
    return labels


def read_expression(
    source: str, *, aliases: Path | None = None, genes: Collection[str] | None = None
) -> ExpressionTable:
    """Expression of cases.

    Args:
      source: kind and path, as above.
      aliases: table of gene names and their symbols: alias,symbol or a probe map of Xena.
      genes: the only symbols to read; saves memory. None reads all.

    Raises:
      InputError: a file or value is wrong, or no gene or case is left.
    """
    kind, paths = _split(source, EXPRESSION_KINDS, "expression")
    if len(paths) > 1:
        raise InputError(f"expression {source!r}: {kind} reads one file; join the matrices first")
    names, counts = ({}, ()) if aliases is None else read_aliases(aliases)
    table = _EXPRESSION_READERS[kind](Path(paths[0]), GeneSymbols(names, genes))
    return dataclasses.replace(table, counts=counts + table.counts)


def _split(source: str, kinds: Sequence[str], what: str) -> tuple[str, list[str]]:
    kind, colon, paths = source.partition(":")
    if not colon or kind not in kinds or not paths:
        raise InputError(f"{what} {source!r}: write KIND:PATH; the kinds are {', '.join(kinds)}")
    return kind, paths_of(source)


def paths_of(source: str) -> list[str]:
    """The paths of KIND:PATH[,PATH...], with sheet or fold; a comma may be part of one that exists.

    >>> paths_of("gdc:clinical.tsv, slide.tsv")
    ['clinical.tsv', 'slide.tsv']
    """
    parts = source.partition(":")[2].split(",")
    paths = []
    while parts:
        lengths = range(len(parts), 1, -1)
        length = next((n for n in lengths if split_sheet(",".join(parts[:n]).strip())[0].exists()), 1)
        paths.append(",".join(parts[:length]).strip())
        parts = parts[length:]
    return paths


def _nothing_to_learn(table: LabelSource, columns: Columns, file: Path | None) -> Count:
    """Tells of a table in which nothing was found that a model could be taught."""
    used = set(columns.of.values())
    unused = [column for column in table.table if column not in used]
    where = "in a file for --columns" if file is None else f"in {file}"
    text = (
        f"neither diagnosis, survival nor variables were read; name their columns {where}, or choose the kind"
        " of table; not read are"
    )
    before = len(table.table.columns)
    return Count("columns of labels to columns read", before, len(used), text, some(unused), suspect=True)


def _endpoint(table: LabelSource, text: str, own: Columns) -> Endpoint | None:
    if "=" in text:
        return Endpoint.parse(text, own.endpoint)
    if text and text not in table.endpoints:
        raise InputError(
            f"{table.name}: does not define the endpoint {text!r}, only"
            f" {', '.join(table.endpoints) or 'none'}; write time=COLUMN,unit=days,event=COLUMN, or take"
            " cdr:, the TCGA clinical data resource of Liu et al. 2018, for OS, DSS, DFI and PFI"
        )
    if text:
        return table.endpoints[text]
    return own.endpoint or next(iter(table.endpoints.values()), None)

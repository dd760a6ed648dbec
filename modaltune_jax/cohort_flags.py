"""Flags that say what a cohort consists of, shared by `inspect` and `pack`."""

from __future__ import annotations

import argparse
import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from modaltune_jax.inputs.barcodes import case_rule, is_barcode, tissue_source_site
from modaltune_jax.inputs.cohort import CohortSpec, find_spec
from modaltune_jax.inputs.counts import some
from modaltune_jax.inputs.genesets import gene_symbols
from modaltune_jax.inputs.readers.slide_file import COORDS_UNITS, SlideFile, SlideOptions
from modaltune_jax.inputs.slide_files import find_slides
from modaltune_jax.inputs.splits import Splits, make_splits, read_splits
from modaltune_jax.inputs.table_file import is_table, split_sheet
from modaltune_jax.inputs.tables.read import (
    EXPRESSION_KINDS,
    LABEL_KINDS,
    ExpressionTable,
    paths_of,
    read_expression,
    read_labels,
)
from modaltune_jax.packing.join import CohortSource, join
from modaltune_jax.types import InputError

_SOURCE_SITE = "tissue_source_site"


def add_flags(parser: argparse.ArgumentParser) -> None:
    """Adds the flags of `read_source`."""
    _add_slide_flags(parser.add_argument_group("tile features"))
    _add_table_flags(parser.add_argument_group("tables"))
    _add_case_flags(parser.add_argument_group("cases"))


def read_source(options: argparse.Namespace) -> CohortSource:
    """Finds the slides and reads the tables; splits by a recipe are drawn from the cases that are joined.

    Raises:
      InputError: flags that are missing or contradict each other, and whatever the readers raise.
    """
    _refuse_contradictions(options)
    specs = read_specs(options.cohort)
    slide_options = SlideOptions(
        layout=options.layout,
        patch_size_level0=options.patch_size_level0,
        coords_unit=options.coords_unit,
        mpp=options.mpp,
        encoder=options.encoder,
    )
    source = CohortSource(
        specs=specs,
        slides=_slides(options.features, slide_options),
        options=slide_options,
        labels=read_labels(
            options.labels,
            endpoint=options.endpoint,
            columns=_path(options.columns),
            variables=tuple(name for name in options.variables.split(",") if name),
        )
        if options.labels
        else None,
        expression=_expression(options),
        gene_sets_path=_path(options.gene_sets),
        splits=None,
        case_of=case_rule(options.case_of_slide or "tcga"),
        is_rule_given=bool(options.case_of_slide),
    )
    if options.splits:
        splits = read_splits(Path(options.splits), case_of=_CaseInSplits(source))
        source = dataclasses.replace(source, splits=splits)
    if options.split:
        source = dataclasses.replace(source, splits=_draw_splits(options.split, source))
    return source


def table_paths(options: argparse.Namespace) -> list[Path]:
    """The files that the flags name, other than tile features; a folder stands for its files."""
    sources = [source for source in (options.labels, options.expression) if source]
    names = [str(split_sheet(path)[0]) for source in sources for path in paths_of(source)]
    names += [options.columns, options.aliases, options.gene_sets, options.splits]
    names += [name for name in options.cohort if name.endswith(".toml")]
    names += [str(split_sheet(name)[0]) for name in [options.case_of_slide] if is_table(name)]
    paths = [Path(name) for name in names if name]
    return [file for path in paths for file in (sorted(path.iterdir()) if path.is_dir() else [path])]


def given_flags(options: argparse.Namespace) -> dict[str, object]:
    """The flags of `add_flags` that were given, by name."""
    parser = argparse.ArgumentParser()
    add_flags(parser)
    defaults = vars(parser.parse_args([]))
    given = {name: getattr(options, name) for name in sorted(defaults)}
    return {name: value for name, value in given.items() if value != defaults[name]}


def source_site(case_id: str, variables: Mapping[Any, Any]) -> str:
    """Where the tissue was taken: a column of the labels, or a part of a TCGA barcode; `""` if unknown."""
    site = variables.get(_SOURCE_SITE)
    if site is not None and not pd.isna(site):
        return str(site)
    return tissue_source_site(case_id) if is_barcode(case_id) else ""


class _CaseInSplits:
    """The case of an id in a split file, which may be of a case or, by rule or labels, of a slide."""

    def __init__(self, source: CohortSource):
        self._source = source
        tables = [table for table in (source.labels, source.expression) if table is not None]
        self._cases = {id for table in tables for id in table.frame.index}
        self._cases |= {case for slide in source.slides if (case := self._of_slide(slide.id))}

    def __call__(self, id: str) -> str:
        # A rule for slides may well fit a case's own id, and shorten it.
        if id in self._cases:
            return id
        case_id = self._of_slide(id)
        return case_id if case_id in self._cases else id

    def _of_slide(self, slide_id: str) -> str:
        listed = self._source.labels and self._source.labels.case_of(slide_id)
        try:
            return listed or self._source.case_of(slide_id)
        except InputError:
            return ""


def _expression(options: argparse.Namespace) -> ExpressionTable | None:
    if not options.expression:
        return None
    # Of 60 000 transcripts a cohort's pathways need a tenth.
    genes = gene_symbols(options.gene_sets) if options.gene_sets else None
    aliases = _path(options.aliases)
    try:
        return read_expression(options.expression, aliases=aliases, genes=genes)
    except InputError as error:
        names = _genes_as_cases(options.expression, aliases, genes or frozenset())
        if not names:
            raise
        raise InputError(
            f"{options.expression}: has genes ({', '.join(names)}) where cases should be; csv: and parquet:"
            " take a row a case, xena: a row a gene"
        ) from error


def _genes_as_cases(source: str, aliases: Path | None, genes: frozenset[str]) -> tuple[str, ...]:
    """Some genes that a table has for cases, since it lies on its side."""
    try:
        cases = read_expression(source, aliases=aliases).frame.index
    except InputError:
        return ()
    return some(sorted(genes.intersection(cases)))


def _draw_splits(recipe: str, source: CohortSource) -> Splits:
    # Splits in the labels would send cases without one into quarantine; the recipe gives every case one.
    cases = join(dataclasses.replace(source, splits=Splits({}, ""))).cases
    rows = [(case.site, case.labels.subtype, case.labels.event) for case in cases]
    index = pd.Index([case.id for case in cases], name="case_id")
    frame = pd.DataFrame(rows, index, columns=["site", "subtype", "event"])
    if recipe.startswith("site-preserved"):
        frame[_SOURCE_SITE] = [source_site(case.id, case.variables) for case in cases]
    return make_splits(recipe, frame)


def read_specs(names: Sequence[str]) -> tuple[CohortSpec, ...]:
    """The definitions of `--cohort`.

    Raises:
      InputError: as `find_spec`, or a cohort or project comes twice.
    """
    specs = tuple(find_spec(name) for name in names)
    sites = [spec.name for spec in specs]
    projects = [project for spec in specs for project in spec.projects]
    for kind, values in (("cohort", sites), ("project", projects)):
        twice = sorted({value for value in values if values.count(value) > 1})
        if twice:
            raise InputError(f"--cohort: {kind} {twice[0]} comes twice; give every cohort once")
    return specs


def _slides(folders: list[str], options: SlideOptions) -> tuple[SlideFile, ...]:
    found: dict[str, SlideFile] = {}
    for folder in folders:
        for slide in find_slides(Path(folder), options):
            other = found.setdefault(slide.id, slide)
            if other is not slide:
                raise InputError(
                    f"--features: slide {slide.id} is in {other.path} and in {slide.path};"
                    " leave one of the folders out, or rename one of the files"
                )
    return tuple(found[id] for id in sorted(found))


def _refuse_contradictions(options: argparse.Namespace) -> None:
    """A flag that would change nothing is a mistake."""
    if not options.cohort:
        raise InputError("--cohort is missing: name what the cases are of, e.g. --cohort brca")
    if not (options.features or options.expression):
        raise InputError("there is nothing to see: give --features, --expression or both")
    if options.splits and options.split:
        raise InputError("--splits reads a file and --split draws splits: give one of them")
    needs = {
        "endpoint": "labels",
        "columns": "labels",
        "variables": "labels",
        "aliases": "expression",
        "gene_sets": "expression",
        "layout": "features",
        "patch_size_level0": "features",
        "coords_unit": "features",
        "mpp": "features",
        "encoder": "features",
    }
    for flag, needed in needs.items():
        if getattr(options, flag) and not getattr(options, needed):
            raise InputError(f"--{flag.replace('_', '-')} has no meaning without --{needed}: leave it out")


def _path(name: str) -> Path | None:
    return Path(name) if name else None


def _add_slide_flags(group: argparse._ArgumentGroup) -> None:
    group.add_argument(
        "--features",
        nargs="+",
        default=[],
        metavar="DIR",
        help="folders of tile features: TRIDENT, CLAM, Prov-GigaPath, STAMP, ModalTune, npy/npz or zarr",
    )
    group.add_argument(
        "--layout", default="", help="say which layout it is; default: by content of the files"
    )
    group.add_argument(
        "--patch-size-level0",
        type=int,
        metavar="N",
        help="side of a tile in level-0 pixels, where the files do not say: 1024 for tiles of 256 px at 10x"
        " of a slide scanned at 40x",
    )
    group.add_argument(
        "--coords-unit",
        default="",
        choices=["", *COORDS_UNITS],
        metavar="U",
        help=f"unit of the coordinates, where the files do not say: {', '.join(COORDS_UNITS)}",
    )
    group.add_argument(
        "--mpp", type=float, metavar="X", help="micrometres per level-0 pixel, e.g. 0.25 at 40x"
    )
    group.add_argument(
        "--encoder", default="", metavar="NAME", help="tile encoder, where the files do not say"
    )


def _add_table_flags(group: argparse._ArgumentGroup) -> None:
    group.add_argument(
        "--labels",
        default="",
        metavar="KIND:PATH[,PATH]",
        help=f"of kind {', '.join(LABEL_KINDS)}, e.g. gdc:clinical.tsv,slide.tsv",
    )
    group.add_argument(
        "--endpoint",
        default="",
        metavar="NAME",
        help="OS, DSS or PFI where the kind defines it, or columns: time=T,unit=months,event=E"
        " (or censorship=C, which is 1 where the event was not seen)",
    )
    group.add_argument(
        "--columns", default="", metavar="FILE.toml", help="which column of a csv or excel table is what"
    )
    group.add_argument(
        "--variables",
        default="",
        metavar="NAME,NAME",
        help="further clinical columns to keep, e.g. sex,grade",
    )
    group.add_argument(
        "--expression",
        default="",
        metavar="KIND:PATH",
        help=f"of kind {', '.join(EXPRESSION_KINDS)}, e.g. xena:HiSeqV2.gz",
    )
    group.add_argument("--aliases", default="", metavar="FILE", help="CSV of other names of genes")
    group.add_argument(
        "--gene-sets",
        default="",
        metavar="FILE",
        help="CSV with columns pathway and gene; genes in no pathway are left out",
    )


def _add_case_flags(group: argparse._ArgumentGroup) -> None:
    group.add_argument(
        "--cohort",
        action="append",
        default=[],
        metavar="NAME|FILE.toml",
        help="what the cases are of, e.g. brca; may be repeated: then the labels' projects decide",
    )
    group.add_argument("--splits", default="", metavar="FILE", help="train, val or test of every case")
    group.add_argument(
        "--split",
        default="",
        metavar="RECIPE",
        help="draw splits: stratified:0.7,0.15,0.15:SEED, kfold:K:FOLD:SEED or site-preserved:K:FOLD:SEED",
    )
    group.add_argument(
        "--case-of-slide",
        default="",
        metavar="RULE",
        help="tcga (first 12 letters of the barcode, the default), name (the slide's id is the case's),"
        " FILE.csv (slide_id, case_id), or a regular expression with one group; slides that the labels list"
        " belong to the labels' case",
    )

"""Matrices of UCSC Xena: genes in rows, samples in columns, tab-separated; read in blocks of rows."""

from __future__ import annotations

from pathlib import Path

import pandas as pd

from modaltune_jax.inputs.barcodes import is_barcode
from modaltune_jax.inputs.tables.expression import ExpressionTable, GeneRows
from modaltune_jax.inputs.tables.gene_symbols import GeneSymbols
from modaltune_jax.inputs.tables.number_file import NumberFile
from modaltune_jax.inputs.tables.samples import choose_samples
from modaltune_jax.types import InputError


def read(path: Path, symbols: GeneSymbols) -> ExpressionTable:
    """One tumour sample a case, genes by symbol.

    Args:
      path: tab-separated, whatever its ending (Xena's files often have none), gzipped or not.
      symbols: names of genes to symbols, and which to keep.

    Raises:
      InputError: the file is missing or damaged, has cases in rows or a sample twice, or a cell is no number.
    """
    file = NumberFile(path, "\t")
    samples = file.header[1:]
    if not samples:
        raise InputError(f"{path}: has one column; a matrix of Xena has genes and samples, separated by tabs")
    twice = pd.Index(samples)[pd.Index(samples).duplicated()]
    if len(twice):
        raise InputError(f"{path}: sample {twice[0]} is there twice; keep one column")
    chosen, counts = choose_samples(samples)
    position = {sample: column for column, sample in enumerate(samples, start=1)}
    rows = GeneRows(list(chosen), str(path))
    for names, values in file.blocks(0, [position[sample] for sample in chosen.values()]):
        has_barcodes = bool(names) and all(is_barcode(name) for name in names)
        if has_barcodes or (symbols.are_wanted(samples) and not symbols.are_wanted(names)):
            raise InputError(f"{path}: has cases in rows; read it with csv:, xena: is for genes in rows")
        for name, row in zip(names, values, strict=True):
            if symbol := symbols.symbol(name):
                rows.add(symbol, row)
    return rows.table(counts + symbols.counts())

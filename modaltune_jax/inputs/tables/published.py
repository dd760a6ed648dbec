"""Tables of known publications: SurvPath, MCAT and PORPOISE, and the TCGA clinical data resource.

SurvPath (`datasets_csv/metadata/tcga_brca.csv`) and MCAT (`tcga_brca_all_clean.csv.zip`) have one row a
slide, and
censorship 1 where no death was seen: the opposite of an event. The clinical data resource of TCGA (Liu et al.
2018, supplementary table 1, sheet TCGA-CDR) has one row a case, times in days, and 1 for an event.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

import pandas as pd

from modaltune_jax.inputs.counts import Count, some
from modaltune_jax.inputs.table_file import column_list, read_table, split_sheet
from modaltune_jax.inputs.tables.columns import Columns
from modaltune_jax.inputs.tables.endpoints import Endpoint
from modaltune_jax.inputs.tables.labels import LabelSource
from modaltune_jax.types import InputError

_SURVPATH_ENDPOINTS = {
    "OS": Endpoint("survival_months", "months", censorship="censorship"),
    "DSS": Endpoint("survival_months_dss", "months", censorship="censorship_dss"),
    "PFI": Endpoint("survival_months_pfi", "months", censorship="censorship_pfi"),
}
_MCAT_ENDPOINTS = {"OS": Endpoint("survival_months", "months", censorship="censorship")}
_CDR_ENDPOINTS = {name: Endpoint(f"{name}.time", "days", event=name) for name in ("OS", "DSS", "DFI", "PFI")}

_GENE_COLUMN = re.compile(r"_(rnaseq|cnv|mut)$")

# OncoTree codes of these tables in the words of the GDC, so that cohort definitions know them, and the
# project where a code is of one only.
_ONCOTREE = {
    "BLCA": ("Transitional cell carcinoma", "TCGA-BLCA"),
    "IDC": ("Infiltrating duct carcinoma, NOS", "TCGA-BRCA"),
    "ILC": ("Lobular carcinoma, NOS", "TCGA-BRCA"),
    "MDLC": ("Infiltrating duct and lobular carcinoma", "TCGA-BRCA"),
    "COAD": ("Adenocarcinoma, NOS", "TCGA-COAD"),
    "READ": ("Adenocarcinoma, NOS", "TCGA-READ"),
    "MACR": ("Mucinous adenocarcinoma", ""),
    "GBM": ("Glioblastoma", "TCGA-GBM"),
    "ASTR": ("Astrocytoma, NOS", "TCGA-LGG"),
    "AASTR": ("Astrocytoma, anaplastic", "TCGA-LGG"),
    "ODG": ("Oligodendroglioma, NOS", "TCGA-LGG"),
    "AODG": ("Oligodendroglioma, anaplastic", "TCGA-LGG"),
    "OAST": ("Mixed glioma", "TCGA-LGG"),
    "AOAST": ("Mixed glioma", "TCGA-LGG"),
    "HNSC": ("Squamous cell carcinoma, NOS", "TCGA-HNSC"),
    "CCRCC": ("Clear cell adenocarcinoma, NOS", "TCGA-KIRC"),
    "PRCC": ("Papillary adenocarcinoma, NOS", "TCGA-KIRP"),
    "CHRCC": ("Renal cell carcinoma, chromophobe type", "TCGA-KICH"),
    "LUAD": ("Adenocarcinoma, NOS", "TCGA-LUAD"),
    "LUSC": ("Squamous cell carcinoma, NOS", "TCGA-LUSC"),
    "UEC": ("Endometrioid adenocarcinoma, NOS", "TCGA-UCEC"),
    "USC": ("Serous cystadenocarcinoma, NOS", "TCGA-UCEC"),
}


def read_survpath(path: str) -> LabelSource:
    """SurvPath's metadata of one cohort."""
    return _read_slide_rows(path, "SurvPath", _SURVPATH_ENDPOINTS)


def read_mcat(path: str) -> LabelSource:
    """MCAT's or PORPOISE's table of one cohort, its gene columns left aside."""
    return _read_slide_rows(path, "MCAT", _MCAT_ENDPOINTS)


def read_cdr(path: str) -> LabelSource:
    """The clinical data resource of TCGA, as Excel or its sheet TCGA-CDR as CSV."""
    file, sheet = split_sheet(path)
    table = read_table(file, sheet or ("TCGA-CDR" if file.suffix == ".xlsx" else ""))
    _need(
        table, ("bcr_patient_barcode", "type", "OS", "OS.time"), str(file), "the TCGA clinical data resource"
    )
    project = [f"TCGA-{name}" if name else "" for name in table["type"]]
    table = pd.concat([table, pd.Series(project, index=table.index, name="project", dtype=object)], axis=1)
    held = {
        "case_id": "bcr_patient_barcode",
        "project": "project",
        "diagnosis": "histological_type",
        "stage": "ajcc_pathologic_tumor_stage",
        "age": "age_at_initial_pathologic_diagnosis",
    }
    columns = Columns({key: column for key, column in held.items() if column in table})
    return LabelSource(table, columns, str(file), _CDR_ENDPOINTS)


def _read_slide_rows(path: str, who: str, endpoints: Mapping[str, Endpoint]) -> LabelSource:
    file, _ = split_sheet(path)
    table = read_table(file, keep=lambda column: not _GENE_COLUMN.search(column))
    _need(table, ("case_id", "slide_id", "survival_months", "censorship"), str(file), who)
    counts: tuple[Count, ...] = ()
    if "oncotree_code" in table:
        table, counts = _in_words(table)
    held = {key: key for key in ("case_id", "slide_id", "age", "diagnosis", "project") if key in table}
    return LabelSource(table, Columns(held), str(file), endpoints, counts=counts)


def _in_words(table: pd.DataFrame) -> tuple[pd.DataFrame, tuple[Count, ...]]:
    """The table with diagnosis and project; a code that is not in the list stays as the diagnosis."""
    codes = table["oncotree_code"]
    rows = [_ONCOTREE.get(code, (code, "")) for code in codes]
    words = pd.DataFrame(rows, columns=["diagnosis", "project"], index=table.index, dtype=object)
    unknown = sorted(set(codes) - set(_ONCOTREE) - {""})
    counts: tuple[Count, ...] = ()
    if unknown:
        text = "an OncoTree code without GDC words stays as the diagnosis"
        amount = int(codes.isin(list(_ONCOTREE)).sum())
        counts = (Count("OncoTree codes in words", int((codes != "").sum()), amount, text, some(unknown)),)
    return pd.concat([table.drop(columns=list(words), errors="ignore"), words], axis=1), counts


def _need(table: pd.DataFrame, wanted: tuple[str, ...], source: str, who: str) -> None:
    absent = [column for column in wanted if column not in table]
    if absent:
        raise InputError(
            f"{source}: lacks the columns {', '.join(absent)} of {who}'s tables; its columns are"
            f" {column_list(table)}; for a table of your own use csv:"
        )

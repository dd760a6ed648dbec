"""Cases as the files that tools and hospitals keep: the way back from records, and examples for `pack`."""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from modaltune_jax.inputs.cohort import CohortSpec
from modaltune_jax.inputs.genesets import GeneSets
from modaltune_jax.types import Case, InputError, Slide

COLUMNS = """\
# Which column of labels.csv holds what.
case_id = "patient"
project = "project"
diagnosis = "histology"
stage = "stage"
t = "pT"
n = "pN"
m = "pM"
age = "age"

[endpoint]
time = "follow-up (months)"
unit = "months"
event = "vital status"
event_values = { dead = 1, alive = 0 }
"""


def export(
    folder: Path,
    cases: Iterable[Case],
    *,
    genes: Sequence[str],
    gene_sets: GeneSets,
    specs: Sequence[CohortSpec],
    encoder: str,
) -> None:
    """Writes a folder that `pack` turns back into the same cases, to the last bit::

        features/<slide>.h5    tile features in TRIDENT's layout
        slides.csv             slide_id, case_id
        labels.csv             one row a case; columns.toml says what its columns hold
        expression.csv         one row a case, one column a gene, empty where not measured
        gene_sets.csv          pathway, gene
        splits.csv             case_id, split
        <site>.toml            definition of each cohort

    Args:
      folder: to be created.
      cases: read once, one at a time.
      genes, gene_sets, specs: as for `records.write`. Every spec needs a project of its own: it
        tells the cohorts apart.
      encoder: name of the tile encoder.

    Raises:
      InputError: the folder exists, or a spec has no project.
    """
    if folder.exists():
        raise InputError(f"{folder} exists already; name a folder that does not")
    projects = {spec.name: spec.projects[0] for spec in specs if spec.projects}
    if len(set(projects.values())) < len(specs):
        raise InputError(f"cohorts {[spec.name for spec in specs]}: each needs a project that no other has")
    (folder / "features").mkdir(parents=True)
    labels, expression, slides, splits = [], {}, [], []
    for case in cases:
        labels.append(_label_row(case, projects[case.site]))
        splits.append((case.id, case.split))
        if case.expression is not None:
            expression[case.id] = case.expression
        for slide in case.slides:
            write_trident(folder / "features" / f"{slide.id}.h5", slide, encoder)
            slides.append((slide.id, case.id))
    pd.DataFrame(slides, columns=["slide_id", "case_id"]).to_csv(folder / "slides.csv", index=False)
    pd.DataFrame(splits, columns=["case_id", "split"]).to_csv(folder / "splits.csv", index=False)
    pd.DataFrame(labels).to_csv(folder / "labels.csv", index=False)
    (folder / "columns.toml").write_text(COLUMNS, encoding="utf-8")
    table = pd.DataFrame.from_dict(expression, orient="index", columns=list(genes)).rename_axis("case_id")
    table.to_csv(folder / "expression.csv")
    members = [
        (name, genes[gene])
        for name, group in zip(gene_sets.names, gene_sets.groups, strict=True)
        for gene in group
    ]
    pd.DataFrame(members, columns=["pathway", "gene"]).to_csv(folder / "gene_sets.csv", index=False)
    for spec in specs:
        (folder / f"{spec.name}.toml").write_text(_toml(spec), encoding="utf-8")


def write_trident(path: Path, slide: Slide, encoder: str) -> None:
    """Tile features as TRIDENT writes them; bfloat16, which HDF5 does not have, is refused by h5py."""
    import h5py

    with h5py.File(path, "w") as file:
        features = file.create_dataset("features", data=slide.features)
        features.attrs["encoder"] = encoder
        coords = file.create_dataset("coords", data=slide.coords.astype(np.int64))
        coords.attrs["patch_size"] = slide.patch_size_level0
        coords.attrs["patch_size_level0"] = slide.patch_size_level0
        coords.attrs["overlap"] = 0
        coords.attrs["name"] = slide.id


def _label_row(case: Case, project: str) -> dict[str, object]:
    labels = case.labels
    return {
        "patient": case.id,
        "project": project,
        "histology": labels.diagnosis,
        "stage": labels.stage,
        "pT": labels.t,
        "pN": labels.n,
        "pM": labels.m,
        "age": "" if math.isnan(labels.age) else repr(float(labels.age)),
        "follow-up (months)": "" if math.isnan(labels.time) else repr(float(labels.time)),
        "vital status": {1: "dead", 0: "alive", -1: ""}[labels.event],
    }


def _toml(spec: CohortSpec) -> str:
    """The definition of a cohort. Strings and lists of JSON are TOML too."""
    lines, tables = [], []
    for name, value in dataclasses.asdict(spec).items():
        if isinstance(value, dict):
            if name == "diagnoses":
                value = {diagnosis: spec.classes[index] for diagnosis, index in value.items()}
            rows = [f"{json.dumps(key)} = {json.dumps(words)}" for key, words in value.items()]
            tables += [f"\n[{name}]", *rows]
        else:
            lines.append(f"{name} = {json.dumps(value)}")
    return "\n".join([*lines, *tables]) + "\n"

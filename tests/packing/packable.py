"""A small cohort to pack."""

import hashlib
from pathlib import Path

import numpy as np

from modaltune_jax.inputs.barcodes import case_rule
from modaltune_jax.inputs.cohort import CohortSpec
from modaltune_jax.inputs.genesets import GeneSets
from modaltune_jax.inputs.readers.slide_file import SlideOptions
from modaltune_jax.inputs.slide_files import find_slides
from modaltune_jax.packing.join import Joined
from modaltune_jax.packing.pack import Origin
from modaltune_jax.packing.planned_case import PlannedCase
from modaltune_jax.types import Labels

SPEC = CohortSpec("brca", "Breast", "breast", classes=("ductal",), diagnoses={"duct carcinoma": 0})


SPLITS = ("train", "val", "train", "test", "train")


OPTIONS = SlideOptions(layout="arrays", coords_unit="level0", patch_size_level0=256)


def write_slide(folder: Path, id: str, tiles: int = 5, width: int = 4, dtype=np.float16, **arrays) -> None:
    generator = np.random.default_rng(list(id.encode()))
    entries = {
        "features": generator.standard_normal((tiles, width)).astype(dtype),
        "coords": 256 * np.stack([np.arange(tiles), np.arange(tiles)], axis=1),
    }
    folder.mkdir(exist_ok=True)
    np.savez(folder / f"{id}.npz", **(entries | arrays))


def write_slides(folder: Path) -> None:
    """Two slides of cases P0 and P2, one of P1, P3 and P4."""
    for i in range(5):
        for k in range(1 + (i in (0, 2))):
            write_slide(folder, f"P{i}-{k}", tiles=5 + 2 * i + k)


def joined_of(folder: Path, with_expression=(0, 3), options=OPTIONS) -> Joined:
    """Cases P0 to P4 with the slides that there are in a folder."""
    rule = case_rule(r"(P\d)")
    slides = find_slides(folder, options)
    cases = [
        PlannedCase(
            id=f"P{i}",
            site="brca",
            split=split,
            slides=tuple(slide for slide in slides if rule(slide.id) == f"P{i}"),
            labels=Labels(time=1.5 * i, event=i % 2, age=50.0, stage="Stage II"),
            variables={"sex": "male", "ki67": 0.1 * i},
            expression=np.array([i, np.nan], np.float32) if i in with_expression else None,
        )
        for i, split in enumerate(SPLITS)
    ]
    gene_sets = GeneSets(("one",), (np.array([0, 1], np.int32),))
    return Joined(tuple(cases), (), (), ("A", "B"), gene_sets, {"sex": "category", "ki67": "number"})


ORIGIN = Origin((SPEC,), OPTIONS, (), {"cohort": ["brca"]}, "by hand")


def hashes(directory: Path) -> dict[str, str]:
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in directory.iterdir()}


def reasons(out: Path) -> list[str]:
    return out.joinpath("quarantine.csv").read_text().splitlines()[1:]

"""CLAM (mahmoodlab): `h5_files/<slide>.h5`, `pt_files/<slide>.pt` and `patches/<slide>.h5`.

`h5_files` have datasets `features` float32 [n, d] and `coords` int32 [n, 2], corners (x, y) in level-0
pixels, without attributes. `pt_files` have the same features as a bare tensor. `patches` have `coords` alone,
whose attributes say patch_size, patch_level and downsample, the (x, y) of that level: the side of a tile in
level-0 pixels is patch_size * downsample. TRIDENT copies these attributes to features that it makes of such
patches; custom_downsample says that tiles were made smaller once more.

`patches` is looked for in the folder of the features and in those above it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from modaltune_jax.convert.tensor_file import open_tensors
from modaltune_jax.inputs.readers import hdf5
from modaltune_jax.inputs.readers.attributes import number, text, whole
from modaltune_jax.inputs.readers.contents import Contents
from modaltune_jax.inputs.readers.slide_file import SlideFacts, SlideFile, SlideOptions
from modaltune_jax.inputs.readers.tiles import Said, TileArrays, assemble
from modaltune_jax.types import InputError, Slide

NAME = "clam"
SUFFIXES = (*hdf5.SUFFIXES, ".pt")
SUBFOLDERS = ("h5_files", "pt_files")
"""Where features are below the folder that a user gives, the better first."""

_PATCHES = "patches"


def fits(contents: Contents) -> bool:
    """Whether a file is of this layout, as far as it tells; bare HDF5 files are of `gigapath` as well."""
    if contents.kind == "torch":
        return contents.arrays == {"features"}
    return contents.kind == "hdf5" and "features" in contents.arrays and "patch_level" in contents.attributes


def is_home(path: Path) -> bool:
    """Whether a file lies where CLAM puts features."""
    return path.parent.name in SUBFOLDERS or any(folder.is_dir() for folder in _patch_folders(path.parent))


def locate(paths: Sequence[Path]) -> list[SlideFile]:
    """The slides of these files, each with the file that has its coordinates or says their size."""
    near: dict[Path, dict[str, Path]] = {}
    files = []
    for path in paths:
        if path.parent not in near:
            near[path.parent] = _coordinates_near(path.parent)
        patches = near[path.parent].get(path.stem)
        files.append(SlideFile(path.stem, NAME, path, patches))
    return files


def read(file: SlideFile, options: SlideOptions) -> tuple[Slide, SlideFacts]:
    """Reads a slide.

    Raises:
      InputError: what is wrong with the files, or that they or the options say too little.
    """
    if file.path.suffix.lower() == ".pt":
        with open_tensors(file.path, bare="features") as tensors:
            arrays = TileArrays(tensors.get("features"), None, {})
    else:
        arrays = hdf5.read(file.path)
    attributes = dict(arrays.attributes)
    if file.coords_path is not None:
        patches = hdf5.read(file.coords_path, features="")
        _check_same(file, arrays.coords, patches.coords)
        arrays = arrays._replace(coords=patches.coords)
        attributes |= patches.attributes
    if arrays.coords is None:
        raise InputError(
            f"{file.path} has no coordinates, and no {file.id}.h5 is in {_PATCHES} or h5_files near it; "
            f"copy CLAM's folder {_PATCHES} to {file.path.parent.parent}"
        )
    level = attributes.get("patch_level")
    side = whole(attributes, "patch_size", file.path)
    said = Said(
        patch_size_level0=_size(file.coords_path or file.path, attributes),
        coords_unit="level0",
        encoder=text(attributes, "encoder", file.path),
        tile_size=f"{side} px at level {level}" if side and level is not None else "",
    )
    return assemble(file, arrays, said, options)


def _size(path: Path, attributes: Mapping[str, Any]) -> int | None:
    """Side of a tile in level-0 pixels."""
    side = whole(attributes, "patch_size", path)
    is_level0 = np.array_equal(attributes.get("patch_level", -1), 0)
    if side is None or not (is_level0 or "downsample" in attributes):
        return None
    downsample = np.asarray(attributes.get("downsample", 1.0))
    is_number = downsample.dtype.kind in "iuf" and downsample.size in (1, 2)
    if not is_number or not np.all(np.isfinite(downsample) & (downsample >= 1)):
        raise InputError(
            f"{path}: downsample is {attributes.get('downsample')!r}, which makes no tiles of any size; make "
            "the patches again with CLAM"
        )
    # Levels are a whole number of times smaller, but for what their own size was rounded.
    is_whole = np.allclose(downsample, np.rint(downsample), rtol=0.01)
    downsample = np.rint(downsample) if is_whole else downsample
    sizes = np.rint(side * downsample * (number(attributes, "custom_downsample", path) or 1)).reshape(-1)
    if sizes[0] != sizes[-1]:
        raise InputError(
            f"{path}: downsample {downsample.tolist()} makes tiles that are not square; make the patches "
            "again with CLAM"
        )
    return int(sizes[0])


def _check_same(file: SlideFile, own: np.ndarray | None, patches: np.ndarray | None) -> None:
    """The file of the patches must be of the same tiles."""
    if own is not None and (patches is None or not np.array_equal(own, patches)):
        raise InputError(
            f"{file.path} and {file.coords_path} have different coordinates, so not the same tiles; "
            "extract the features again from these patches"
        )


def _patch_folders(folder: Path) -> list[Path]:
    above = [folder.parent, folder.parent.parent] if folder.name in SUBFOLDERS else [folder.parent]
    return [place / _PATCHES for place in (folder, *above)]


def _coordinates_near(folder: Path) -> dict[str, Path]:
    """Files with coordinates, by slide."""
    places = _patch_folders(folder)
    if folder.name == "pt_files":
        places.append(folder.with_name("h5_files"))
    found: dict[str, Path] = {}
    for place in places:
        if place.is_dir():
            found = {
                path.stem: path for path in place.iterdir() if path.suffix.lower() in hdf5.SUFFIXES
            } | found
    return found

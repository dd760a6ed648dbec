"""One door to tile features: the slides of a folder, each read as a `Slide`, whatever tool wrote it."""

from __future__ import annotations

import itertools
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from modaltune_jax.inputs.readers import (
    arrays,
    clam,
    gigapath,
    hdf5,
    modaltune_pt,
    stamp,
    trident,
    zarr_store,
)
from modaltune_jax.inputs.readers.contents import Contents
from modaltune_jax.inputs.readers.slide_file import SlideFacts, SlideFile, SlideOptions
from modaltune_jax.types import InputError, Slide


class Layout(NamedTuple):
    """A way in which tools keep tile features.

    Attributes:
      suffixes: of its files.
      fits: whether a file of these contents is one.
      read: reads a slide.
      locate: the slides of files; None where each file is a slide named after it.
    """

    suffixes: tuple[str, ...]
    fits: Callable[[Contents], bool]
    read: Callable[[SlideFile, SlideOptions], tuple[Slide, SlideFacts]]
    locate: Callable[[Sequence[Path]], list[SlideFile]] | None = None


LAYOUTS = {
    trident.NAME: Layout(trident.SUFFIXES, trident.fits, trident.read),
    stamp.NAME: Layout(stamp.SUFFIXES, stamp.fits, stamp.read),
    clam.NAME: Layout(clam.SUFFIXES, clam.fits, clam.read, clam.locate),
    gigapath.NAME: Layout(gigapath.SUFFIXES, gigapath.fits, gigapath.read),
    modaltune_pt.NAME: Layout(
        modaltune_pt.SUFFIXES, modaltune_pt.fits, modaltune_pt.read, modaltune_pt.locate
    ),
    arrays.NAME: Layout(arrays.SUFFIXES, arrays.fits, arrays.read, arrays.locate),
    zarr_store.NAME: Layout(zarr_store.SUFFIXES, zarr_store.fits, zarr_store.read),
}
"""By name. At most one fits a file, but for bare HDF5 files: those are CLAM's where CLAM puts them."""

SUFFIXES = tuple(sorted({suffix for layout in LAYOUTS.values() for suffix in layout.suffixes}))

_PEEK = {
    **dict.fromkeys(hdf5.SUFFIXES, hdf5.peek),
    **dict.fromkeys(modaltune_pt.SUFFIXES, modaltune_pt.peek),
    **dict.fromkeys(arrays.SUFFIXES, arrays.peek),
    **dict.fromkeys(zarr_store.SUFFIXES, zarr_store.peek),
}
_NUM_PROBED = 16
"""Files of each suffix that are looked into to tell a folder's layout."""


def find_slides(folder: Path, options: SlideOptions) -> list[SlideFile]:
    """The slides of a folder, sorted by id; none of them is read.

    Files in the folder itself, or else in CLAM's `h5_files` and `pt_files` below it. The layout is told by
    what some of the files hold; `read_slide` looks at every one.

    Args:
      folder: with the features; a single file is a folder of one.
      options: `layout` is taken without looking.

    Raises:
      InputError: no files to read, files of two layouts or of none, or a slide twice.
    """
    if options.layout and options.layout not in LAYOUTS:
        raise InputError(f"--layout is {options.layout!r}; it must be one of {', '.join(LAYOUTS)}")
    suffixes = LAYOUTS[options.layout].suffixes if options.layout else SUFFIXES
    paths = _feature_files(folder, suffixes)
    name = options.layout or _layout_of(paths)
    locate = LAYOUTS[name].locate
    files = [SlideFile(path.stem, name, path) for path in paths] if locate is None else locate(paths)
    files.sort(key=lambda file: file.id)
    for first, second in itertools.pairwise(files):
        if first.id == second.id:
            raise InputError(
                f"{first.path} and {second.path} are both of slide {first.id}; take one of them away"
            )
    return files


def read_slide(file: SlideFile, options: SlideOptions) -> tuple[Slide, SlideFacts]:
    """Reads a slide, its features bit for bit in their own type.

    Raises:
      InputError: the file is damaged, of another layout than its folder, says too little, or contradicts the
        options.
    """
    layout = LAYOUTS[file.layout]
    if not options.layout:
        contents = _PEEK[file.path.suffix.lower()](file.path)
        found = _fitting(file.path, contents)
        # The place of a bare HDF5 file tells whose it is, and a folder was taken for the one or the other.
        if found != file.layout and not {found, file.layout} <= {clam.NAME, gigapath.NAME}:
            raise InputError(
                f"{file.path} has {contents}, which is {found or 'no layout that is known'} and not "
                f"{file.layout} like other files of its folder; move it to a folder of its own"
            )
    return layout.read(file, options)


def _feature_files(folder: Path, suffixes: Sequence[str]) -> list[Path]:
    if folder.exists() and _is_slide(folder, suffixes):
        return [folder]
    if not folder.is_dir():
        raise InputError(
            f"{folder} is {'a file of another kind' if folder.exists() else 'not there'}; give the folder "
            f"with the tile features, files that end in {', '.join(suffixes)}"
        )
    paths = _with_suffix(folder, suffixes)
    if paths:
        return paths
    by_id: dict[str, Path] = {}
    for name in clam.SUBFOLDERS:
        for path in _with_suffix(folder / name, suffixes):
            by_id.setdefault(path.stem, path)
    if by_id:
        return sorted(by_id.values())
    below = [place.name for place in sorted(folder.iterdir()) if _with_suffix(place, suffixes)]
    raise InputError(
        f"{folder} has no files that end in {', '.join(suffixes)}; "
        + (
            f"its folders {', '.join(below[:5])} have, give one of them"
            if below
            else "give the folder that has"
        )
    )


def _with_suffix(folder: Path, suffixes: Sequence[str]) -> list[Path]:
    """Files of a folder, hidden ones left out, such as those that macOS adds to archives."""
    if not folder.is_dir():
        return []
    return sorted(path for path in folder.iterdir() if _is_slide(path, suffixes))


def _is_slide(path: Path, suffixes: Sequence[str]) -> bool:
    """Whether a file is to be read; a link that leads nowhere is, so that somebody hears of it.

    Raises:
      InputError: its name is no text.
    """
    suffix = path.suffix.lower()
    if suffix not in suffixes or path.name.startswith("."):
        return False
    try:
        str(path).encode()
    except UnicodeEncodeError as error:
        raise InputError(f"{os.fsencode(path)!r}: the name is not in UTF-8; rename the file") from error
    is_folder = suffix in zarr_store.SUFFIXES
    return path.is_dir() if is_folder else path.is_file() or (path.is_symlink() and not path.exists())


def _layout_of(paths: Sequence[Path]) -> str:
    """The one layout of some of the files; those that cannot be read are left for `read_slide` to report."""
    found: dict[str, Path] = {}
    mistakes = []
    for path in _some_of_each_suffix(paths):
        try:
            contents = _PEEK[path.suffix.lower()](path)
        except InputError as error:
            mistakes.append(error)
            continue
        name = _fitting(path, contents)
        if name:
            found.setdefault(name, path)
        else:
            mistakes.append(
                InputError(
                    f"{path} has {contents}, which is no layout that is known; known are {', '.join(LAYOUTS)}"
                )
            )
    if len(found) > 1:
        (first, path), (second, other) = [*found.items()][:2]
        raise InputError(
            f"{path} is {first} and {other} is {second}; give a folder of one layout, or choose with --layout"
        )
    if not found:
        raise mistakes[0]
    return next(iter(found))


def _some_of_each_suffix(paths: Sequence[Path]) -> list[Path]:
    """Evenly spaced, as files of two sources often differ in how their names begin."""
    some = []
    for suffix in sorted({path.suffix.lower() for path in paths}):
        alike = [path for path in paths if path.suffix.lower() == suffix]
        rows = np.linspace(0, len(alike) - 1, min(len(alike), _NUM_PROBED)).astype(int)
        some += [alike[row] for row in rows]
    return some


def _fitting(path: Path, contents: Contents) -> str:
    """Name of the layout of a file, `""` if there is none."""
    name = next((name for name, layout in LAYOUTS.items() if layout.fits(contents)), "")
    return clam.NAME if name == gigapath.NAME and clam.is_home(path) else name

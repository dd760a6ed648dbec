"""One case between its feature files and the records: read, checked, written to a file of its own.

What becomes of a case depends on nothing but the case, so any process can do it, and what is done need not be
done again. The file's name is a hash of everything that decides its content.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
import uuid
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from jaxtyping import Shaped

import modaltune_jax
from modaltune_jax.inputs.readers.failures import UnavailableError, unreachable
from modaltune_jax.inputs.readers.slide_file import SlideFile, SlideOptions
from modaltune_jax.inputs.slide_files import read_slide
from modaltune_jax.inputs.storage import examples
from modaltune_jax.inputs.storage.example_bytes import serialize
from modaltune_jax.packing.planned_case import PlannedCase, Quarantined
from modaltune_jax.packing.source_files import files_of, sha256, stamps, why_unreadable
from modaltune_jax.types import InputError, Slide

ENCODING = 2
"""Raised whenever a case would give other bytes, or another verdict, than before."""

# Where the exponent's bits of a number are all ones it is infinite or NaN: found without arithmetic.
_EXPONENT = {"float16": 0x7C00, "bfloat16": 0x7F80, "float32": 0x7F800000}
_BLOCK_BYTES = 1 << 20
"""Looked at in one go: what stays in a core's cache."""


class TileLayout(NamedTuple):
    """What tiles of one data set have in common."""

    width: int
    dtype: str

    def __str__(self) -> str:
        return f"{self.dtype} [tiles, {self.width}]"


class PackedSlide(NamedTuple):
    """A slide that can be packed; a row of slides.parquet, but for `width` and `dtype`.

    Attributes:
      path, coords_path: as of `SlideFile`.
      bytes, sha256: of the slide's files together.
    """

    slide_id: str
    case_id: str
    path: str
    coords_path: str | None
    layout: str
    bytes: int
    sha256: str
    encoder: str
    mpp: float | None
    magnification: float | None
    frame: str
    tile_size: str
    num_tiles: int
    patch_size_level0: int
    width: int
    dtype: str

    @property
    def tile_layout(self) -> TileLayout | None:
        """None for a slide without tiles, which fits everywhere."""
        return TileLayout(self.width, self.dtype) if self.num_tiles else None


class Verdict(NamedTuple):
    """What became of a case.

    Attributes:
      slides: those that can be packed.
      faults: those that cannot.
      num_bytes, crc32: of the record; 0 bytes if there is none, as the slides do not tell one tile layout.
    """

    slides: tuple[PackedSlide, ...]
    faults: tuple[Quarantined, ...]
    num_bytes: int
    crc32: int


class CaseTask(NamedTuple):
    """A case to be packed.

    Attributes:
      case: with its slides.
      options: how they are read.
      folder: where the record and the verdict go.
      key: their names.
      num_bytes: of the feature files.
      unreadable: slides that are not to be read, with the reason.
    """

    case: PlannedCase
    options: SlideOptions
    folder: Path
    key: str
    num_bytes: int
    unreadable: tuple[tuple[str, str], ...] = ()

    @property
    def record(self) -> Path:
        """The record."""
        return self.folder / f"{self.key}.record"

    @property
    def verdict(self) -> Path:
        """The verdict, written after the record."""
        return self.folder / f"{self.key}.json"


def plan_case(case: PlannedCase, options: SlideOptions, folder: Path) -> CaseTask:
    """The task of a case, named by what decides its record: labels, expression, and its files' stamps.

    Raises:
      InputError: a file is gone.
    """
    stamped: list[list[tuple[str, int, int]]] = []
    unreadable = []
    for slide in case.slides:
        try:
            paths = files_of(slide)
            reason = why_unreadable(paths)
            stamped.append([] if reason else stamps(paths))
        except OSError as error:
            raise unreachable(slide.path, error) from error
        if reason:
            unreadable.append((slide.id, reason))
    identity = [
        *(
            ENCODING,
            modaltune_jax.__version__,
            case.id,
            case.site,
            case.split,
            dataclasses.asdict(case.labels),
            dict(case.variables),
        ),
        *(
            dataclasses.asdict(options),
            [(slide.id, slide.layout) for slide in case.slides],
            stamped,
            unreadable,
        ),
    ]
    digest = hashlib.sha256(json.dumps(identity).encode())
    if case.expression is not None:
        digest.update(case.expression.astype(np.float32).tobytes())
    num_bytes = sum(size for files in stamped for _, size, _ in files)
    return CaseTask(case, options, folder, digest.hexdigest()[:32], num_bytes, tuple(unreadable))


def pack_case(task: CaseTask) -> Verdict:
    """Reads the slides of a case, writes its record, then its verdict.

    A verdict with faults is not written: what was wrong may be mended without a change of the files.

    Raises:
      UnavailableError: a file cannot be reached any more, or the memory does not suffice.
    """
    try:
        tiles, slides, faults = read_case(task)
        num_bytes = crc32 = 0
        if len({slide.tile_layout for slide in slides} - {None}) <= 1:
            num_bytes, crc32 = _write_record(task, tiles)
    except MemoryError as error:
        raise UnavailableError(
            f"case {task.case.id}: there is not enough memory for its {task.num_bytes / 1e9:.1f} GB; give it"
            " fewer --workers or a larger machine"
        ) from error
    verdict = Verdict(tuple(slides), tuple(faults), num_bytes, crc32)
    if not faults:
        write_atomically(task.verdict, [json.dumps(verdict).encode()])
    return verdict


def read_case(task: CaseTask) -> tuple[list[Slide], list[PackedSlide], list[Quarantined]]:
    """Reads the slides of a case: those that can be packed, and why the others cannot.

    Raises:
      UnavailableError: a file cannot be reached any more, or the memory does not suffice.
    """
    tiles: list[Slide] = []
    slides: list[PackedSlide] = []
    faults: list[Quarantined] = []
    unreadable = dict(task.unreadable)
    for file in task.case.slides:
        try:
            if file.id in unreadable:
                raise InputError(unreadable[file.id])
            slide, packed = _read(file, task)
        except UnavailableError:
            raise
        except InputError as error:
            faults.append(Quarantined(task.case.id, file.id, str(file.path), str(error)))
        else:
            tiles.append(slide)
            slides.append(packed)
    return tiles, slides, faults


def read_verdict(path: Path) -> Verdict | None:
    """A verdict that was written before, None if there is none, or only a damaged one."""
    try:
        slides, faults, num_bytes, crc32 = json.loads(path.read_bytes())
        return Verdict(
            tuple(PackedSlide(*slide) for slide in slides),
            tuple(Quarantined(*fault) for fault in faults),
            num_bytes,
            crc32,
        )
    except (FileNotFoundError, ValueError, TypeError):
        return None


def write_atomically(path: Path, buffers: Sequence[bytes | memoryview]) -> None:
    """Writes a file that appears whole or not at all."""
    temporary = path.with_name(f"{path.name}-{uuid.uuid4().hex[:8]}.partial")
    try:
        with temporary.open("wb", buffering=0) as file:
            for buffer in buffers:
                _write_all(file.fileno(), buffer)
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def _write_record(task: CaseTask, tiles: Sequence[Slide]) -> tuple[int, int]:
    """Bytes and CRC-32 of the record."""
    buffers = serialize(examples.encode(task.case.with_slides(tuple(tiles))))
    write_atomically(task.record, buffers)
    crc32 = 0
    for buffer in buffers:
        crc32 = zlib.crc32(buffer, crc32)
    return sum(len(buffer) for buffer in buffers), crc32


def _write_all(descriptor: int, buffer: bytes | memoryview) -> None:
    """Linux writes at most 2 GiB in one go."""
    rest = memoryview(buffer)
    while len(rest):
        rest = rest[os.write(descriptor, rest) :]


def _read(file: SlideFile, task: CaseTask) -> tuple[Slide, PackedSlide]:
    try:
        paths = files_of(file)
        try:
            slide, facts = read_slide(file, task.options)
            _check(slide, str(file.path))
        except InputError:
            # Not every library tells damage from a disk or network that fails: a plain read does.
            sha256(paths)
            raise
        size, digest = sum(path.stat().st_size for path in paths), sha256(paths)
    except OSError as error:
        raise unreachable(file.path, error) from error
    packed = PackedSlide(
        slide_id=file.id,
        case_id=task.case.id,
        path=str(file.path),
        coords_path=None if file.coords_path is None else str(file.coords_path),
        layout=file.layout,
        bytes=size,
        sha256=digest,
        **facts._asdict(),
        num_tiles=len(slide.features),
        patch_size_level0=int(slide.patch_size_level0),
        width=slide.features.shape[1],
        dtype=slide.features.dtype.name,
    )
    return slide, packed


def _check(slide: Slide, where: str) -> None:
    """What a reader need not have looked at."""
    features, coords = slide.features, slide.coords
    dtype = features.dtype.name
    if features.ndim != 2 or dtype not in _EXPONENT:
        raise InputError(
            f"{where}: features are {dtype} of shape {features.shape}; they must be [tiles, width] in"
            f" {', '.join(_EXPONENT)}"
        )
    if coords.shape != (len(features), 2):
        raise InputError(f"{where}: {len(features)} tiles but coordinates of shape {coords.shape}")
    if slide.patch_size_level0 <= 0:
        raise InputError(f"{where}: patch_size_level0 is {slide.patch_size_level0}; it must be positive")
    row = _first_not_finite(features)
    if row is not None:
        raise InputError(f"{where}: tile {row} has NaN or infinite features; extract the slide again")


def _first_not_finite(features: Shaped[np.ndarray, "l d"]) -> int | None:
    """The first row with NaN or an infinite value."""
    exponent = _EXPONENT[features.dtype.name]
    bits = np.ascontiguousarray(features).view(f"u{features.itemsize}")
    num_rows = max(1, _BLOCK_BYTES // max(bits.itemsize * bits.shape[1], 1))
    for start in range(0, len(bits), num_rows):
        block = bits[start : start + num_rows] & bits.dtype.type(exponent)
        if block.size and block.max() == exponent:
            return start + int((block == exponent).any(axis=1).argmax())
    return None

"""Records of single cases to the large files of a split: which goes where, and the copying."""

from __future__ import annotations

import hashlib
import json
import os
import zlib
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

from modaltune_jax.inputs.readers.failures import shortly
from modaltune_jax.inputs.storage import tfds_writer
from modaltune_jax.inputs.storage.record_folder import FORMAT, NAME
from modaltune_jax.inputs.storage.tfds_writer import SplitSize, open_shard, shard_name
from modaltune_jax.packing.work_folder import WorkFolder, sync
from modaltune_jax.types import InputError


class CaseRecord(NamedTuple):
    """The record of a case, in a file of its own."""

    case_id: str
    path: Path
    num_bytes: int
    crc32: int


class Shard(NamedTuple):
    """A file of records to be written.

    Attributes:
      name: of the file.
      records: in their order.
      work: where.
    """

    name: str
    records: tuple[CaseRecord, ...]
    work: WorkFolder

    @property
    def key(self) -> str:
        """Names what is in the file."""
        content = [FORMAT, self.name, [(record.path.name, record.crc32) for record in self.records]]
        return hashlib.sha256(json.dumps(content).encode()).hexdigest()[:32]

    @property
    def num_bytes(self) -> int:
        """Of the records."""
        return sum(record.num_bytes for record in self.records)

    @property
    def is_done(self) -> bool:
        """Whether the file has been written, and has its size since."""
        mark, path = self.work.done / self.key, self.work.records / self.name
        return mark.exists() and path.exists() and mark.read_text() == str(path.stat().st_size)


def plan_shards(split: str, records: Iterable[CaseRecord], work: WorkFolder) -> list[Shard]:
    """Files of a split, filled one after the other."""
    groups: list[list[CaseRecord]] = []
    room = 0
    for record in records:
        if room <= 0:
            groups.append([])
            room = tfds_writer.SHARD_BYTES
        groups[-1].append(record)
        room -= record.num_bytes
    return [Shard(shard_name(NAME, split, i), tuple(group), work) for i, group in enumerate(groups)]


def split_size(shards: Iterable[Shard]) -> SplitSize:
    """What TFDS wants to know of a split."""
    shards = list(shards)
    return SplitSize([len(shard.records) for shard in shards], sum(shard.num_bytes for shard in shards))


def write_shard(shard: Shard) -> None:
    """Writes a file, then removes the records that it was made of.

    Raises:
      InputError: there is no room; or a record is not as it was written: it is removed, so that the next run
        makes it again.
    """
    path = shard.work.records / shard.name
    temporary = path.with_name(f"{path.name}.partial")
    temporary.unlink(missing_ok=True)
    try:
        _copy(shard.records, temporary)
    except RuntimeError as error:
        temporary.unlink(missing_ok=True)
        raise InputError(
            f"{path} cannot be written ({shortly(error)}), most likely as the disk is full: make room; the"
            " same command goes on where this one stopped"
        ) from error
    # Nothing else holds the cases once their own files are gone.
    sync(temporary)
    os.replace(temporary, path)
    sync(path.parent)
    (shard.work.done / shard.key).write_text(str(path.stat().st_size))
    sync(shard.work.done)
    for record in shard.records:
        record.path.unlink()


def _copy(records: Iterable[CaseRecord], path: Path) -> None:
    writer = open_shard(path)
    try:
        for record in records:
            writer.write(_content(record))
    finally:
        writer.close()


def _content(record: CaseRecord) -> bytes:
    content = record.path.read_bytes()
    if len(content) != record.num_bytes or zlib.crc32(content) != record.crc32:
        record.path.unlink()
        raise InputError(
            f"case {record.case_id}: {record.path} is not as it was written; check the disk, then run the"
            " same command again, which goes on where this one stopped"
        )
    return content

"""Writes a TFDS data set of ArrayRecord files, record by record, without TensorFlow."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

SHARD_BYTES = 1 << 30
"""A file that has grown beyond this is closed and another begun."""

# As grain wants them: one record a group. Zstandard would save 8 % of tile features and halve reading speed.
_OPTIONS = "group_size:1,uncompressed"
_TEMPLATE = "{DATASET}-{SPLIT}.{FILEFORMAT}-{SHARD_INDEX}"


def shard_name(name: str, split: str, index: int) -> str:
    """File name of one of a split's files."""
    return f"{name}-{split}.array_record-{index:05d}"


def open_shard(path: Path) -> Any:
    """A writer of one file, with `write(record)` and `close()`."""
    from array_record.python.array_record_module import ArrayRecordWriter

    return ArrayRecordWriter(str(path), _OPTIONS)


class SplitSize(NamedTuple):
    """Records in each file of a split, and their bytes together."""

    lengths: list[int]
    num_bytes: int


def write_dataset_info(
    directory: Path,
    *,
    name: str,
    version: str,
    description: str,
    features: Any,
    splits: Mapping[str, SplitSize],
) -> None:
    """Writes dataset_info.json and features.json, so that TFDS reads the files in a directory."""
    import tensorflow_datasets as tfds

    identity = tfds.core.DatasetIdentity(
        name=name, version=tfds.core.Version(version), data_dir=str(directory), module_name=__name__
    )
    info = tfds.core.DatasetInfo(builder=identity, features=features, description=description)
    info.set_file_format("array_record")
    infos = []
    for split, size in splits.items():
        template = tfds.core.ShardedFileTemplate(
            dataset_name=name,
            data_dir=str(directory),
            split=split,
            filetype_suffix="array_record",
            template=_TEMPLATE,
        )
        infos.append(
            tfds.core.SplitInfo(
                name=split,
                shard_lengths=size.lengths,
                num_bytes=size.num_bytes,
                filename_template=template,
            )
        )
    info.set_splits(tfds.core.SplitDict(infos))
    info.write_to_directory(str(directory))


class TfdsWriter:
    """Appends records to the splits of one data set; a context manager that closes its files.

    Unlike `tfds.core.SequentialWriter` it does not compress, nor rewrite its metadata at every example.

    Args:
      directory: existing and empty.
      name: of the data set.
    """

    def __init__(self, directory: Path, name: str):
        self._directory, self._name = directory, name
        self._splits: dict[str, _Split] = {}

    def add(self, split: str, record: bytes) -> None:
        """Appends a serialized example to a split, which begins to exist with its first example."""
        if split not in self._splits:
            self._splits[split] = _Split(self._directory, self._name, split)
        self._splits[split].add(record)

    def finish(self) -> dict[str, SplitSize]:
        """Closes the files and says what is in them, for `write_dataset_info`."""
        self.close()
        return {name: SplitSize(split.lengths, split.num_bytes) for name, split in self._splits.items()}

    def close(self) -> None:
        """Closes the files."""
        for split in self._splits.values():
            split.close()

    def __enter__(self) -> TfdsWriter:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()


class _Split:
    """The growing files of one split."""

    def __init__(self, directory: Path, name: str, split: str):
        self.lengths: list[int] = []
        self.num_bytes = 0
        self._directory, self._name, self._split = directory, name, split
        self._room = 0
        self._writer: Any = None

    def add(self, record: bytes) -> None:
        if self._room <= 0:
            self.close()
            self._writer = open_shard(
                self._directory / shard_name(self._name, self._split, len(self.lengths))
            )
            self._room = SHARD_BYTES
            self.lengths.append(0)
        self._writer.write(record)
        self.lengths[-1] += 1
        self.num_bytes += len(record)
        self._room -= len(record)

    def close(self) -> None:
        if self._writer is not None:
            self._writer.close()
            self._writer = None

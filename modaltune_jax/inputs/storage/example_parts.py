"""A serialized `tf.train.Example` taken apart without reading its large arrays.

In protocol buffers, a field is a tag, its length, its content. An example is one field of entries; an entry
is a field with a key and a feature; a feature is a field with a list; a list of one array is a field with its
bytes.
"""

from __future__ import annotations

from typing import NamedTuple

from modaltune_jax.inputs.storage.array_record import Record
from modaltune_jax.inputs.storage.example_bytes import varint

# Field number << 3 | 2 for what has a length.
_FIELD_1, _FIELD_2 = 0x0A, 0x12
# Tags, lengths and the longest key of an entry.
_FRONT = 128


class Place(NamedTuple):
    """Where the bytes of an array or a text are in a record."""

    start: int
    size: int


def take_apart(record: Record, *names: str) -> tuple[bytes, list[Place]]:
    """The serialized example without some features, and where these are; they may be anywhere in it.

    Args:
      record: a serialized example.
      names: features of one array or text each.

    Raises:
      ValueError: the record is no example, or has no such feature.
    """
    entry, end = _field(record.read(0, _FRONT), 0, _FIELD_1)
    end += entry
    if end != len(record):
        raise ValueError(f"it is no example: {end} bytes in a record of {len(record)}")
    rest = b""
    places = {}
    while entry < end:
        front = record.read(entry, _FRONT)
        at, size = _field(front, 0, _FIELD_1)
        following = entry + at + size
        key, size = _field(front, at, _FIELD_1)
        at = key + size
        name = front[key:at].decode()
        if name in names:
            for tag in (_FIELD_2, _FIELD_1, _FIELD_1):
                at, size = _field(front, at, tag)
                if entry + at + size != following:
                    raise ValueError(f"{name} is not one array or text")
            places[name] = Place(entry + at, size)
        else:
            rest += record.read(entry, following - entry)
        entry = following
    if missing := [name for name in names if name not in places]:
        raise ValueError(f"it lacks {', '.join(missing)}")
    return bytes([_FIELD_1]) + varint(len(rest)) + rest, [places[name] for name in names]


def _field(content: bytes, at: int, tag: int) -> tuple[int, int]:
    """Where the content of the field at a place begins, and its size."""
    if content[at : at + 1] != bytes([tag]):
        raise ValueError(f"it is no example: field {tag} is not where it should be")
    size = 0
    for k, digit in enumerate(content[at + 1 : at + 11]):
        size |= (digit & 0x7F) << (7 * k)
        if digit < 0x80:
            return at + 2 + k, size
    raise ValueError("it is no example: a length does not end")

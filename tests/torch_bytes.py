"""Torch files put together by hand, from operations of their pickles, where torch is not installed."""

import zipfile
from collections.abc import Mapping
from pathlib import Path

ORDERED_DICT = b"ccollections\nOrderedDict\n)R"

BATCH_NORM = (
    b"\x80\x02ccollections\nOrderedDict\nq\x00)Rq\x01(X\x06\x00\x00\x00weightq\x02ctorch._utils"
    b"\n_rebuild_tensor_v2\nq\x03((X\x07\x00\x00\x00storageq\x04ctorch\nFloatStorage\nq\x05"
    b"X\x01\x00\x00\x000q\x06X\x03\x00\x00\x00cpuq\x07K\x02tq\x08QK\x00K\x02\x85q\tK\x01\x85q\n\x89h\x00)Rq\x0btq"
    b"\x0cRq\rX\x04\x00\x00\x00biasq\x0eh\x03((h\x04h\x05X\x01\x00\x00\x001q\x0fh\x07K\x02tq\x10QK\x00K\x02\x85q"
    b"\x11K\x01\x85q\x12\x89h\x00)Rq\x13tq\x14Rq\x15X\x0c\x00\x00\x00running_meanq\x16h\x03((h\x04h\x05X\x01\x00"
    b"\x00\x002q\x17h\x07K\x02tq\x18QK\x00K\x02\x85q\x19K\x01\x85q\x1a\x89h\x00)Rq\x1btq\x1cRq\x1dX\x0b\x00\x00"
    b'\x00running_varq\x1eh\x03((h\x04h\x05X\x01\x00\x00\x003q\x1fh\x07K\x02tq QK\x00K\x02\x85q!K\x01\x85q"'
    b"\x89h\x00)Rq#tq$Rq%X\x13\x00\x00\x00num_batches_trackedq&h\x03((h\x04ctorch\nLongStorage\nq'X\x01\x00\x00\x004"
    b"q(h\x07K\x01tq)QK\x00))\x89h\x00)Rq*tq+Rq,u}q-X\t\x00\x00\x00_metadataq.h\x00)Rq/X\x00\x00\x00\x00q0}q1X"
    b"\x07\x00\x00\x00versionq2K\x02sssb."
)
"""The pickle that torch 2.13 wrote for `nn.BatchNorm1d(2).state_dict()`."""

BATCH_NORM_STORAGES = {
    "0": b"\x00\x00\xc0?\x00\x00\x00\xc0",
    "1": b"\x00\x00\x80>\x00\x00\x00A",
    "2": bytes(8),
    "3": b"\x00\x00\x80?\x00\x00\x80?",
    "4": bytes(8),
}
"""weight = (1.5, -2), bias = (0.25, 8), mean 0, variance 1, no batches."""

LEGACY = (
    b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19.\x80\x02M\xe9\x03.\x80\x02}q\x00(X\x10\x00\x00\x00protocol"
    b"_versionq\x01M\xe9\x03X\r\x00\x00\x00little_endianq\x02\x88X\n\x00\x00\x00type_sizesq\x03}q\x04(X\x05\x00\x00\x00short"
    b"q\x05K\x02X\x03\x00\x00\x00intq\x06K\x04X\x04\x00\x00\x00longq\x07K\x04uu.\x80\x02ccollections\nOrderedDict\n"
    b"q\x00)Rq\x01(X\x01\x00\x00\x00wq\x02ctorch._utils\n_rebuild_tensor_v2\nq\x03((X\x07\x00\x00\x00storageq\x04"
    b"ctorch\nFloatStorage\nq\x05X\x0e\x00\x00\x0094639675210784q\x06X\x03\x00\x00\x00cpuq\x07K\x06Ntq\x08QK\x00K"
    b"\x02K\x03\x86q\tK\x03K\x01\x86q\n\x89h\x00)Rq\x0btq\x0cRq\rX\x01\x00\x00\x00tq\x0eh\x03((h\x04h\x05X\x0e\x00"
    b"\x00\x0094639675210784q\x0fh\x07K\x06Ntq\x10QK\x00K\x03K\x02\x86q\x11K\x01K\x03\x86q\x12\x89h\x00)Rq\x13tq"
    b"\x14Rq\x15X\x04\x00\x00\x00stepq\x16h\x03((h\x04ctorch\nLongStorage\nq\x17X\x0e\x00\x00\x0094639675221632q"
    b"\x18h\x07K\x01Ntq\x19QK\x00))\x89h\x00)Rq\x1atq\x1bRq\x1cu.\x80\x02]q\x00(X\x0e\x00\x00\x0094639675210784q"
    b"\x01X\x0e\x00\x00\x0094639675221632q\x02e.\x06\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x80?\x00"
    b"\x00\x00@\x00\x00@@\x00\x00\x80@\x00\x00\xa0@\x01\x00\x00\x00\x00\x00\x00\x00\x07\x00\x00\x00\x00\x00\x00\x00"
)
"""What torch 2.13 wrote in the format before 1.6 for w = arange(6.).reshape(2, 3), t = w.t() and step = 7."""


def text(value: str) -> bytes:
    data = value.encode("utf-8", "surrogatepass")
    return b"X" + len(data).to_bytes(4, "little") + data


def integer(value: int) -> bytes:
    data = value.to_bytes(value.bit_length() // 8 + 1, "little", signed=True)
    return b"\x8a" + bytes([len(data)]) + data


def row(*items: bytes) -> bytes:
    return b"(" + b"".join(items) + b"t"


def integers(*values: int) -> bytes:
    return row(*map(integer, values))


def name(module: str, attribute: str) -> bytes:
    return f"c{module}\n{attribute}\n".encode()


def storage(kind: str, key: str, size: int, *view: bytes) -> bytes:
    module = "torch.storage" if kind == "UntypedStorage" else "torch"
    return row(text("storage"), name(module, kind), text(key), text("cpu"), integer(size), *view) + b"Q"


def tensor(source: bytes, shape: tuple[int, ...], strides: tuple[int, ...], offset: int = 0) -> bytes:
    """A tensor as torch describes it, on a `storage`."""
    arguments = row(source, integer(offset), integers(*shape), integers(*strides), b"\x89", ORDERED_DICT)
    return name("torch._utils", "_rebuild_tensor_v2") + arguments + b"R"


def mapping(items: Mapping[str, bytes]) -> bytes:
    return ORDERED_DICT + b"(" + b"".join(text(key) + value for key, value in items.items()) + b"u"


def pickle(value: bytes) -> bytes:
    return b"\x80\x02" + value + b"."


def write_zip(
    path: Path, data: bytes, storages: Mapping[str, bytes], root: str = "weights", **extra: bytes
) -> Path:
    """A file in today's format; `extra` are further entries."""
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr(f"{root}/data.pkl", data)
        for key, content in storages.items():
            archive.writestr(f"{root}/data/{key}", content)
        for key, content in {"byteorder": b"little", "version": b"3\n", **extra}.items():
            archive.writestr(f"{root}/{key}", content)
    return path


def legacy(value: bytes, storages: Mapping[str, tuple[int, bytes]], is_little_endian: bool = True) -> bytes:
    """A file in the format before torch 1.6; storages are numbers of elements and bytes."""
    system = b"}" + text("little_endian") + (b"\x88" if is_little_endian else b"\x89") + b"s"
    keys = b"](" + b"".join(map(text, storages)) + b"e"
    head = (integer(0x1950A86A20F9469CFC6C), integer(1001), system, value, keys)
    data = (size.to_bytes(8, "little") + content for size, content in storages.values())
    return b"".join(map(pickle, head)) + b"".join(data)

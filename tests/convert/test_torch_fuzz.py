"""Thousands of damaged and forged weight files: each is read or refused, and none does anything else.

Run as a script, this file reads them with little memory to spare and under an audit hook that forbids the
interpreter everything but opening files for reading, and prints what came of them.
"""

import codecs
import collections
import io
import itertools
import json
import os
import pickle
import pickletools
import random
import resource
import subprocess
import sys
import tempfile
import time
import zipfile
from pathlib import Path

import numpy as np
from safetensors.numpy import save

from modaltune_jax.convert.tensor_file import open_tensors
from modaltune_jax.convert.torch_writer import write_torch
from modaltune_jax.types import InputError
from tests import torch_bytes as tb

ROOT = Path(__file__).parents[2]
NUM_FILES = 12_000
SECONDS_PER_FILE = 1.0
SPARE_MEMORY = 512 << 20
FORGED = (
    tb.name("posix", "system"),
    tb.name("builtins", "eval"),
    tb.text("true"),
    *(
        b"R",
        b"b",
        b"o",
        b"Q",
        b"\x81",
        b"\x92",
        b"\x93",
        b"\x85",
        b"(",
        b"t",
        b"0",
        b"2",
        b"a",
        b"e",
        b"s",
        b"u",
    ),
    *(
        b"\x82\x01",
        b"(iposix\nsystem\n",
        b"Pid\n",
        b"h\x00",
        b"h\x05",
        b"q\x03",
        b"\x94",
        b"\x8a\x09" + b"\xff" * 9,
    ),
    *(
        b"r\xff\xff\xff\xff",
        b"X\xff\xff\xff\xff",
        b"\x8b\xff\xff\xff\x7f",
        b"\x8e" + b"\xff" * 8,
        b"K\x00",
        b"N",
    ),
)


class ForbiddenError(BaseException):
    """No part of the reader may catch this."""


is_watched = False


def watch(event, arguments):
    if not is_watched or (event == "open" and arguments[1] in ("r", "rb")):
        return
    raise ForbiddenError(f"{event} {arguments}")


def sources(folder):
    """Whole files: (storages by name, operations of the pickle), or bytes in the format before 1.6."""
    path = folder / "whole.pth"
    rng = np.random.default_rng(0)
    dtypes = ("float32", "float16", "int64", "bool", "int8")
    tensors = {f"block.{i}.{d}": rng.normal(size=(i, 2)).astype(d) for i, d in enumerate(dtypes)}
    for under in (None, "model"):
        write_torch(path, tensors, under=under)
        with zipfile.ZipFile(path) as archive:
            entries = {name.removeprefix("archive/"): archive.read(name) for name in archive.namelist()}
        yield operations(entries.pop("data.pkl")), entries
    yield operations(tb.BATCH_NORM), {f"data/{key}": value for key, value in tb.BATCH_NORM_STORAGES.items()}
    shared = tb.storage("FloatStorage", "0", 6)
    views = {"w": tb.tensor(shared, (2, 3), (3, 1)), "t": tb.tensor(shared, (2,), (3,), 1)}
    yield operations(tb.pickle(tb.mapping(views))), {"data/0": bytes(24), "byteorder": b"little"}


def operations(data):
    """The pickle in pieces, one an operation."""
    starts = [position for _, _, position in pickletools.genops(data)]
    return [data[start:stop] for start, stop in itertools.pairwise([*starts, len(data)])]


def damaged(rng, data):
    """A few bytes flipped, overwritten, cut, added or moved."""
    data = bytearray(data)
    at, length = rng.randrange(len(data)), rng.choice((1, 2, 4, 8, 40))
    match rng.randrange(6):
        case 0:
            for _ in range(rng.choice((1, 1, 3))):
                data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
        case 1:
            data[at : at + length] = rng.choice((b"\x00", b"\xff", b"(", rng.randbytes(1))) * length
        case 2:
            del data[at:]
        case 3:
            data[at:at] = rng.randbytes(length)
        case 4:
            del data[at : at + length]
        case 5:
            other = rng.randrange(len(data))
            data[at : at + length] = data[other : other + length]
    return bytes(data)


def forged(rng, steps):
    """Operations swapped, doubled, left out, replaced, or put in from elsewhere."""
    steps = list(steps)
    for _ in range(rng.choice((1, 1, 1, 2, 5))):
        i, j = rng.randrange(len(steps)), rng.randrange(len(steps))
        match rng.randrange(6):
            case 0:
                steps[i], steps[j] = steps[j], steps[i]
            case 1:
                steps.insert(i, steps[j])
            case 2 if len(steps) > 1:
                del steps[i]
            case 3:
                steps[i] = rng.choice(FORGED)
            case 4:
                steps.insert(i, rng.choice(FORGED))
            case _:
                steps[i] = steps[i][:1] + damaged(rng, steps[i])[1:]
    return steps


def zipped(data, entries):
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        for name, content in {"data.pkl": data, **entries}.items():
            archive.writestr(zipfile.ZipInfo(f"archive/{name}"), content)
    return file.getvalue()


def mutants(seed, folder):
    """(kind, bytes) without end."""
    rng = random.Random(seed)
    wholes = list(sources(folder))
    head, tail = operations_of_legacy()
    safe = save({"a": np.ones((2, 3), np.float32), "b": np.ones(40, bool)}, {"format": "pt"})
    while True:
        steps, entries = rng.choice(wholes)
        yield "container", damaged(rng, zipped(b"".join(steps), entries))
        yield "pickle bytes", zipped(damaged(rng, b"".join(steps)), entries)
        yield "pickle operations", zipped(b"".join(forged(rng, steps)), entries)
        yield "legacy", damaged(rng, tb.LEGACY)
        yield "legacy operations", b"".join(forged(rng, head)) + tail
        yield "safetensors", damaged(rng, safe)


def operations_of_legacy():
    stream = io.BytesIO(tb.LEGACY)
    steps = []
    for _ in range(5):
        start = stream.tell()
        for _ in pickletools.genops(stream):
            pass
        steps += operations(tb.LEGACY[start : stream.tell()])
    return steps, stream.read()


def read_all(path):
    with open_tensors(path) as file:
        for name in file:
            assert file[name].shape == file.shapes[name]


def attempt(path):
    """What reading leads to: "read", "refused", or an exception that should not be."""
    global is_watched
    is_watched = True
    try:
        read_all(path)
    except InputError as error:
        return "refused" if str(error).startswith(str(path)) else f"no file named: {error}"
    except (Exception, ForbiddenError) as error:
        return f"{type(error).__name__}: {error}"
    finally:
        is_watched = False
    return "read"


def main(seed, count):
    resource.setrlimit(resource.RLIMIT_AS, (used_memory() + SPARE_MEMORY,) * 2)
    for codec in ("cp437", "raw_unicode_escape"):  # Python loads these of its own when they are first used
        codecs.lookup(codec)
    sys.addaudithook(watch)
    outcomes = collections.defaultdict(collections.Counter)
    slowest = 0.0
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "mutant.pth"
        for kind, data in itertools.islice(mutants(seed, Path(folder)), count):
            path.write_bytes(data)
            start = time.process_time()
            outcome = attempt(path)
            slowest = max(slowest, time.process_time() - start)
            outcomes[kind][outcome] += 1
            if outcome not in ("read", "refused"):
                print(f"{kind}: {outcome} for {data!r}", file=sys.stderr)
    print(json.dumps({"outcomes": outcomes, "slowest": slowest, "hook": hook_works()}))


def used_memory():
    pages = Path("/proc/self/statm").read_text().split()[0]
    return int(pages) * resource.getpagesize()


def hook_works():
    """Whether the hook would have noticed: pickle itself, given such a file, is stopped."""
    global is_watched
    is_watched = True
    try:
        pickle.loads(tb.pickle(tb.name("posix", "system") + tb.row(tb.text("true")) + b"R"))
    except ForbiddenError:
        return True
    finally:
        is_watched = False
    return False


def test_mutants_are_read_or_refused_and_nothing_else():
    done = subprocess.run(
        [sys.executable, __file__, "0", str(NUM_FILES)],
        capture_output=True,
        text=True,
        timeout=300,
        env={**os.environ, "PYTHONPATH": str(ROOT), "OPENBLAS_NUM_THREADS": "1"},
    )
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    result = json.loads(done.stdout)
    print(result)
    assert result["hook"]
    assert result["slowest"] < SECONDS_PER_FILE
    assert sum(sum(counts.values()) for counts in result["outcomes"].values()) == NUM_FILES
    for kind, counts in result["outcomes"].items():
        assert set(counts) == {"read", "refused"}, kind
        assert min(counts.values()) > NUM_FILES / 200, (kind, counts)


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]))

"""manifest.json beside results: which code, data, splits, seed and machine gave them, and how long it took.

::

    status              "running", "stopped" (a signal or an error) or "finished"
    seeds               of the run; of all runs, in the manifest of a work folder
    config_sha256       of the config, with sorted keys
    versions            of this package, Python and the libraries that compute
    git                 commit and whether files differ from it, where the package is a checkout
    data                folder of the records, their sha256, cases, and the sha256 of their splits
    hardware            system, processor, cores, memory, devices that jax sees
    started, ended      the first start and the latest end, UTC
    wall_seconds        summed over all times that the run went on; what a kill cut off is not in it
"""

from __future__ import annotations

import contextlib
import datetime
import hashlib
import importlib.metadata
import json
import os
import platform
import subprocess
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import jax
from absl import logging

import modaltune_jax
from modaltune_jax.inputs.records import Records
from modaltune_jax.inputs.splits import Splits
from modaltune_jax.inputs.storage.record_folder import INDEX, METADATA

NAME = "manifest.json"
"""Of the file, in the folder of every run and in the work folder."""

_LIBRARIES = (
    *("jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "grain", "array_record", "tensorflow-datasets"),
    *("numpy", "scipy", "pandas", "scikit-learn", "scikit-survival", "ml-collections"),
)


@contextlib.contextmanager
def recorded(
    folder: Path, config: dict[str, Any], records: Records, seeds: Sequence[int], *, is_writing: bool = True
) -> Iterator[None]:
    """Writes the manifest of what happens inside: at the start, and again at the end, however it ends.

    A manifest that cannot be written is a warning: no run waits for it or fails by it.

    Args:
      folder: of the run; made if need be.
      config: the whole config, as plain values.
      records: the cases.
      seeds: of the run or runs.
      is_writing: False for processes that leave it to the first.
    """
    if not is_writing:
        yield
        return
    before = _read(folder / NAME)
    manifest = {
        "status": "running",
        "seeds": list(seeds),
        "config_sha256": hashlib.sha256(json.dumps(config, sort_keys=True).encode()).hexdigest(),
        "versions": _versions(),
        "git": _git(),
        "data": _data(records),
        "hardware": _hardware(),
        "started": before.get("started", _now()),
        "ended": None,
        "wall_seconds": before.get("wall_seconds", 0.0),
    }
    _write(folder / NAME, manifest)
    start, status = time.monotonic(), "stopped"
    try:
        yield
        status = "finished"
    finally:
        seconds = round(manifest["wall_seconds"] + time.monotonic() - start, 1)
        _write(folder / NAME, manifest | {"status": status, "ended": _now(), "wall_seconds": seconds})


def data_sha256(records: Records) -> str:
    """Of the labels, expression, splits and sizes of records, and of all that their pack noted.

    Bytes of tile features enter by the hashes of their files in the manifest of packed records. Other records
    have none: there, features enter by their numbers alone.
    """
    digest = hashlib.sha256()
    for name in (METADATA, INDEX, NAME):
        path = records.directory / name
        if path.is_file():
            digest.update(name.encode() + b"\0" + hashlib.sha256(path.read_bytes()).digest())
    for path in sorted(records.directory.glob("*.array_record-*")):
        digest.update(f"{path.name}\0{path.stat().st_size}\n".encode())
    return digest.hexdigest()


def _data(records: Records) -> dict[str, Any]:
    splits = dict(zip(records.table["case_id"], records.table["split"], strict=True))
    return {
        "directory": str(records.directory),
        "sha256": data_sha256(records),
        "splits_sha256": Splits(splits, "").sha256,
        "num_cases": records.num_cases,
        "num_by_split": {split: list(splits.values()).count(split) for split in sorted(set(splits.values()))},
    }


def _versions() -> dict[str, str]:
    found = {"modaltune_jax": modaltune_jax.__version__, "python": platform.python_version()}
    for name in _LIBRARIES:
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            found[name] = importlib.metadata.version(name)
    return found


def _git() -> dict[str, Any] | None:
    root = Path(modaltune_jax.__file__).parents[1]
    if not (root / "pyproject.toml").is_file() or not (root / ".git").exists():
        return None
    try:
        commit, changed = (
            subprocess.run(
                ["git", "-C", str(root), *words], capture_output=True, text=True, timeout=10, check=True
            ).stdout.strip()
            for words in (("rev-parse", "HEAD"), ("status", "--porcelain", "--untracked-files=no"))
        )
    except (OSError, subprocess.SubprocessError):
        return None  # without git, or in a checkout of somebody else's
    return {"commit": commit, "has_changes": bool(changed)}


def _hardware() -> dict[str, Any]:
    devices = jax.devices()
    return {
        "system": f"{platform.system()} {platform.machine()}",
        "cpu": _cpu_model(),
        "cores": os.cpu_count(),
        "memory_gib": _memory_gib(),
        "devices": f"{len(devices)} x {devices[0].device_kind}",
        "processes": jax.process_count(),
    }


def _cpu_model() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor()
    models = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return models[0] if models else platform.processor()


def _memory_gib() -> float | None:
    try:
        return round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30, 1)
    except (AttributeError, ValueError, OSError):
        return None  # not on every system


def _now() -> str:
    return datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")


def _read(path: Path) -> dict[str, Any]:
    """What was noted when the run began, {} if it begins now or nobody can read it."""
    try:
        before = json.loads(path.read_text(encoding="utf-8"))
        return {"started": str(before["started"]), "wall_seconds": float(before["wall_seconds"])}
    except FileNotFoundError:
        return {}
    except (OSError, ValueError, KeyError, TypeError) as error:
        logging.warning("%s cannot be read (%r): its time is counted from now", path, error)
        return {}


def _write(path: Path, manifest: dict[str, Any]) -> None:
    temporary = path.with_name(f".{path.name}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary.write_text(json.dumps(manifest, indent=1), encoding="utf-8")
        os.replace(temporary, path)
    except OSError as error:
        logging.warning("%s cannot be written: %s", path, error)

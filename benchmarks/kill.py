"""Runs that are killed again and again, beside one that is not: the same bits at the end?

    python benchmarks/kill.py --kills 30
    python benchmarks/kill.py --kills 10 --signal TERM    # which saves, and must exit with 0

The demo, shrunk to one variant and a few epochs, with a checkpoint every other second. It runs twice
undisturbed, then in fresh folders: every process gets a random time to live between nothing and that of an
undisturbed run, and the same command is started again until it ends. Then weights, optimizer state, position
in the data, metrics.jsonl but its speeds, embeddings and tables must be those of the undisturbed run, bit by
bit.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

ROOT = Path(__file__).parents[1]
CONFIG = """
from configs import pancancer

def get_config():
    config = pancancer.get_config("demo")
    config.compare = config.compare[:1]
    config.data.simulation.cases_per_site = 160
    config.optim.update({"epochs": 8, "warmup_epochs": 1})
    config.checkpoint.update({"every_epochs": 2, "every_minutes": 2 / 60})
    return config
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--kills", type=int, default=30, help="default 30")
    parser.add_argument("--signal", choices=("KILL", "TERM"), default="KILL", help="default KILL")
    parser.add_argument("--seed", type=int, default=0, help="of the moments; default 0")
    parser.add_argument("--json", type=Path, help="file to write the numbers to")
    arguments = parser.parse_args()
    sys.path.insert(0, str(ROOT))
    with tempfile.TemporaryDirectory() as name:
        facts = measure(Path(name), arguments.kills, f"SIG{arguments.signal}", random.Random(arguments.seed))
    print(to_text(facts))
    if arguments.json:
        arguments.json.write_text(json.dumps(facts, indent=1) + "\n")
    sys.exit(0 if all(run["different"] == [] for run in facts["runs"]) else 1)


def measure(folder: Path, num_kills: int, name: str, rng: random.Random) -> dict[str, Any]:
    """Undisturbed runs, then as many disturbed ones as `num_kills` take."""
    (folder / "kill.py").write_text(CONFIG)
    finish(folder, "first")
    started = time.monotonic()
    finish(folder, "undisturbed")
    seconds = time.monotonic() - started
    expected = outcome(folder / "undisturbed")
    runs = [{"run": "first", "different": differences(expected, outcome(folder / "first")), "kills": []}]
    print(f"undisturbed: {seconds:.1f} s, {len(expected['metrics.jsonl'])} lines of metrics", flush=True)
    while (left := num_kills - sum(len(run["kills"]) for run in runs)) > 0:
        workdir = f"run{len(runs)}"
        kills = disturb(folder, workdir, seconds, left, getattr(signal, name), rng)
        different = differences(expected, outcome(folder / workdir))
        runs.append({"run": workdir, "different": different, "kills": kills})
    return {"signal": name, "seconds": seconds, "lines": len(expected["metrics.jsonl"]), "runs": runs}


def disturb(
    folder: Path, workdir: str, seconds: float, num_kills: int, number: signal.Signals, rng: random.Random
) -> list[dict[str, Any]]:
    """Starts a run again and again until it ends, or `num_kills` are done and it may end."""
    kills: list[dict[str, Any]] = []
    while len(kills) < num_kills:
        lifetime = rng.uniform(0, seconds)
        process = start(folder, workdir)
        try:
            process.wait(lifetime)
        except subprocess.TimeoutExpired:
            process.send_signal(number)
        sent = time.monotonic()
        _, err = process.communicate()
        if process.returncode == 0 and (folder / workdir / "results.png").exists():
            return kills
        code = 0 if number == signal.SIGTERM else -signal.SIGKILL
        if process.returncode != code and (number == signal.SIGKILL or lifetime > 3):
            raise RuntimeError(f"exit code {process.returncode}: {err}")
        kills.append(
            {
                "after": lifetime,
                "code": process.returncode,
                "seconds to end": time.monotonic() - sent,
                "logged": last_step(folder / workdir),
                "saved": last_saved(folder / workdir),
            }
        )
        print(f"{workdir}: {kills[-1]}", flush=True)
    finish(folder, workdir)
    return kills


def start(folder: Path, workdir: str) -> subprocess.Popen:
    command = [sys.executable, "-m", "modaltune_jax.main", "--config=kill.py", f"--workdir={workdir}"]
    # A cache of their own: killed processes may leave half an entry.
    environment = {
        **os.environ,
        "PYTHONPATH": str(ROOT),
        "JAX_PLATFORMS": "cpu",
        "JAX_COMPILATION_CACHE_DIR": str(folder / "xla"),
    }
    return subprocess.Popen(
        command, cwd=folder, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
    )


def finish(folder: Path, workdir: str) -> None:
    """Runs to the end."""
    process = start(folder, workdir)
    _, err = process.communicate()
    if process.returncode:
        raise RuntimeError(err)


def outcome(workdir: Path) -> dict[str, Any]:
    """What a run leaves, by name, without what tells how fast it was."""
    import jax
    from absl import logging

    logging.set_verbosity(logging.ERROR)
    from modaltune_jax.checkpoints import Checkpoints
    from modaltune_jax.experiment import config_of_run
    from modaltune_jax.monitor import read_metrics

    run = workdir / "full/seed0"
    found: dict[str, Any] = {}
    with Checkpoints(run / "checkpoints", config_of_run(run).checkpoint) as checkpoints:
        for which in ("latest", "best"):
            state, found[f"{which} meta"] = checkpoints.restore_as_saved(which)
            flat = jax.tree_util.tree_flatten_with_path(state)[0]
            found |= {f"{which}{jax.tree_util.keystr(path)}": np.asarray(leaf) for path, leaf in flat}
    rows = read_metrics(run / "metrics.jsonl")
    found["metrics.jsonl"] = [{k: v for k, v in row.items() if "per_second" not in k} for row in rows]
    with np.load(run / "embeddings.npz") as arrays:
        found |= {f"embeddings.npz {name}": arrays[name] for name in arrays}
    for path in (run / "probes.csv", run / "probes.json", run / "probes_val.csv", workdir / "results.csv"):
        found[path.name] = path.read_text()
    return found


def differences(expected: dict[str, Any], found: dict[str, Any]) -> list[str]:
    """Names of what is not the same to the last bit."""
    names = sorted(expected.keys() | found.keys())
    return [n for n in names if n not in expected or n not in found or not same(expected[n], found[n])]


def same(a: Any, b: Any) -> bool:
    if isinstance(a, np.ndarray):
        return a.dtype == b.dtype and a.shape == b.shape and a.tobytes() == b.tobytes()
    return a == b


def last_step(workdir: Path) -> int:
    """Of the lines of metrics; 0 if there are none."""
    from modaltune_jax.monitor import read_metrics

    return max((row["step"] for row in read_metrics(workdir / "full/seed0/metrics.jsonl")), default=0)


def last_saved(workdir: Path) -> int:
    """Step of the latest whole checkpoint; 0 if there is none."""
    latest = workdir / "full/seed0/checkpoints/latest"
    return max((int(path.name) for path in latest.glob("*") if path.name.isdigit()), default=0)


def to_text(facts: dict[str, Any]) -> str:
    kills = [kill for run in facts["runs"] for kill in run["kills"]]
    lost = [kill["logged"] - kill["saved"] for kill in kills]
    lines = [
        f"{len(kills)} x {facts['signal']} in {len(facts['runs']) - 1} runs of {facts['lines']} lines",
        f"before the first checkpoint: {sum(kill['saved'] == 0 for kill in kills)}",
        f"steps lost, as far as logged: median {np.median(lost):g}, most {max(lost)}",
        f"seconds from signal to end: most {max(kill['seconds to end'] for kill in kills):.1f}",
    ]
    for run in facts["runs"]:
        verdict = "identical" if not run["different"] else f"DIFFERENT: {', '.join(run['different'][:8])}"
        lines.append(f"{run['run']}, stopped {len(run['kills'])} times: {verdict}")
    return "\n".join(lines)


if __name__ == "__main__":
    main()

"""Experiments in processes of their own: one that dies ends no other."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from pathlib import Path

from modaltune_jax.sweeping.grid import Experiment
from modaltune_jax.sweeping.ledger import DONE, FAILED, RUNNING, STOPPED, Ledger

_GRACE_SECONDS = 60.0
_TAIL_BYTES = 4096


class Sweep:
    """Runs experiments, `num_jobs` at a time, and notes what becomes of them.

    Args:
      experiments: in this order.
      ledger: gets every change.
      num_jobs: processes side by side; each has its share of the processor's cores.
      say: is told of each run that ends.
    """

    def __init__(
        self, experiments: Sequence[Experiment], ledger: Ledger, num_jobs: int, say: Callable[[str], None]
    ):
        self._experiments, self._ledger, self._say = experiments, ledger, say
        self._cores = _shares(num_jobs)
        self._lock = threading.Lock()
        self._children: set[subprocess.Popen] = set()
        self._is_stopping = False

    def run(self) -> None:
        """Returns when all are through.

        Raises:
          KeyboardInterrupt: Ctrl-C or SIGTERM; runs under way have saved, the same sweep goes on from there.
        """
        pool = ThreadPoolExecutor(len(self._cores))
        try:
            waiting = {pool.submit(self._run_experiment, experiment) for experiment in self._experiments}
            while waiting:
                # A signal just before a wait, or in another thread, does not end it: time does.
                ended, waiting = wait(waiting, timeout=1.0)
                for future in ended:
                    future.result()
        finally:
            self._stop()
            pool.shutdown(cancel_futures=True)

    def _run_experiment(self, experiment: Experiment) -> None:
        """All runs of an experiment. The first unfinished one is to blame when its process fails."""
        seeds = list(experiment.config.seeds)
        while seeds and not self._is_stopping:
            waiting = [run for run in experiment.runs if run[1] in seeds and not experiment.is_finished(*run)]
            if not waiting:
                return
            for run in waiting:
                self._ledger.set(experiment, *run, RUNNING)
            code, log = self._run_process(experiment, seeds)
            for run in waiting:
                if experiment.is_finished(*run):
                    self._note(experiment, run, DONE)
            left = [run for run in waiting if not experiment.is_finished(*run)]
            if not left or self._is_stopping:
                for run in left:
                    self._note(experiment, run, STOPPED)
                return
            error = f"exit code {code}: {last_line(log)}"
            self._note(experiment, left[0], FAILED, error)
            seeds.remove(left[0][1])
            for run in left[1:]:
                if run[1] not in seeds:
                    self._note(experiment, run, FAILED, f"not tried: {left[0][0]} of this seed failed")

    def _run_process(self, experiment: Experiment, seeds: Sequence[int]) -> tuple[int, Path]:
        experiment.workdir.mkdir(parents=True, exist_ok=True)
        log = experiment.workdir / "log.txt"
        with self._lock:
            cores = self._cores.pop()
        try:
            with log.open("ab") as file:
                child = subprocess.Popen(
                    [*pinned(cores), *command(experiment, seeds)],
                    stdin=subprocess.DEVNULL,
                    stdout=file,
                    stderr=subprocess.STDOUT,
                    start_new_session=True,  # Ctrl-C is for the sweep, which passes it on
                )
                with self._lock:
                    self._children.add(child)
                if self._is_stopping:
                    child.terminate()
                code = child.wait()
        finally:
            with self._lock:
                self._cores.append(cores)
                self._children.discard(child)
        return code, log

    def _note(self, experiment: Experiment, run: tuple[str, int], status: str, error: str = "") -> None:
        variant, seed = run
        self._ledger.set(experiment, variant, seed, status, error)
        self._say(f"{experiment.name}, {variant}, seed {seed}: {status}{f' ({error})' if error else ''}")

    def _stop(self) -> None:
        """SIGTERM, on which training saves; those that do not end are killed."""
        self._is_stopping = True
        with self._lock:
            children = list(self._children)
        for child in children:
            child.terminate()
        for child in children:
            try:
                child.wait(_GRACE_SECONDS)
            except subprocess.TimeoutExpired:
                child.kill()


def command(experiment: Experiment, seeds: Sequence[int]) -> list[str]:
    """The command line of an experiment with these seeds."""
    overrides = [one for one in experiment.overrides if not one.startswith("seeds=")]
    return [
        *(sys.executable, "-m", "modaltune_jax.main", f"--config={experiment.words}"),
        f"--workdir={experiment.workdir}",
        *(f"--config.{override}" for override in overrides),
        f"--config.seeds=({','.join(map(str, seeds))},)",
    ]


def pinned(cores: Sequence[int]) -> list[str]:
    """What to write before a command so that it keeps to some cores; none for all."""
    if not cores:
        return []
    keep = f"import os, sys; os.sched_setaffinity(0, {list(cores)}); os.execv(sys.argv[1], sys.argv[1:])"
    return [sys.executable, "-c", keep]


def last_line(log: Path) -> str:
    """What a process said last."""
    with log.open("rb") as file:
        file.seek(max(log.stat().st_size - _TAIL_BYTES, 0))
        lines = file.read().decode(errors="replace").split("\n")
    return next((line.strip() for line in reversed(lines) if line.strip()), "it said nothing")


def _shares(num_jobs: int) -> list[list[int]]:
    """The cores in equal parts, one a job; with more jobs than cores some share one. Empty: all cores."""
    if num_jobs == 1 or not hasattr(os, "sched_getaffinity"):  # which macOS lacks
        return [[] for _ in range(num_jobs)]
    cores = sorted(os.sched_getaffinity(0))
    if num_jobs >= len(cores):
        return [[cores[i % len(cores)]] for i in range(num_jobs)]
    return [cores[i * len(cores) // num_jobs : (i + 1) * len(cores) // num_jobs] for i in range(num_jobs)]

"""Tasks in several processes: one that takes its process down is known, and takes nothing else down.

Libraries written in C answer some damaged files by a segmentation fault, or never. `concurrent.futures` gives
all up then, and does not say which task it was. Here every process has one task at a time.
"""

from __future__ import annotations

import contextlib
import ctypes
import math
import multiprocessing
import multiprocessing.connection
import os
import resource
import signal
import threading
import traceback
from collections.abc import Callable, Iterator, Sequence
from multiprocessing.connection import Connection
from typing import Any, NamedTuple, TypeVar

from modaltune_jax.host_memory import keep_memory
from modaltune_jax.types import InputError

Task = TypeVar("Task")
Result = TypeVar("Result")

_CRASHES = {signal.SIGSEGV, signal.SIGBUS, signal.SIGABRT, signal.SIGILL, signal.SIGFPE}
_PR_SET_PDEATHSIG = 1
"""In Linux' prctl.h."""


class Lost(NamedTuple):
    """Stands for the result of a task that took its process down.

    Attributes:
      reason: how it ended, as the rest of a sentence about the task.
    """

    reason: str


def map_unordered(
    function: Callable[[Task], Result],
    tasks: Sequence[Task],
    workers: int,
    name: Callable[[Task], str],
    seconds: Callable[[Task], float] = lambda task: math.inf,
) -> Iterator[tuple[Task, Result | Lost]]:
    """Applies a function to every task; results come as they are ready.

    Args:
      function: can be pickled; what it raises is raised here.
      tasks: handed out in this order.
      workers: number of processes, no more than there are tasks; 0 works in this one, which a task may then
        take down.
      name: of a task, for people.
      seconds: of computing that a task may take. Waiting, as for a network, does not count.

    Yields:
      A task, and its result, or `Lost` if it crashed or took longer.

    Raises:
      InputError: a process was killed from outside; the message names its task.
    """
    if workers == 0:
        for task in tasks:
            yield task, function(task)
        return
    queue = iter(tasks)
    pool = [_Worker(function) for _ in range(min(workers, len(tasks)))]
    try:
        while pool:
            pipes = multiprocessing.connection.wait([worker.pipe for worker in pool])
            for worker in [worker for worker in pool if worker.pipe in pipes]:
                try:
                    done = worker.take()
                except EOFError:
                    pool.remove(worker)
                    done = worker.bury(name, workers)
                    pool.append(_Worker(function))
                else:
                    if not worker.give(queue, seconds):
                        pool.remove(worker)
                yield from done
    finally:
        for worker in pool:
            worker.kill()


def limit_computing(seconds: float) -> None:
    """Ends a process of the pool after further seconds of computing, and no other one."""
    if multiprocessing.parent_process() is None:
        return
    used = resource.getrusage(resource.RUSAGE_SELF)
    hard = resource.getrlimit(resource.RLIMIT_CPU)[1]
    soft = hard if math.isinf(seconds) else math.ceil(used.ru_utime + used.ru_stime + seconds)
    if hard != resource.RLIM_INFINITY:
        soft = min(soft, hard)
    resource.setrlimit(resource.RLIMIT_CPU, (soft, hard))


class _Worker:
    """A process with at most one task."""

    def __init__(self, function: Callable[[Any], Any]):
        # A forked process could inherit locks that are held.
        context = multiprocessing.get_context("spawn")
        self.pipe, other = context.Pipe()
        self._held: list[tuple[Any, float]] = []
        self._process = context.Process(target=_serve, args=(other, function), daemon=True)
        self._process.start()
        other.close()

    def give(self, queue: Iterator[Any], seconds: Callable[[Any], float]) -> bool:
        """Hands over the next task; without any the process ends."""
        for task in queue:
            self._held = [(task, seconds(task))]
            with contextlib.suppress(OSError):  # its end is told when its result is taken
                self.pipe.send(self._held[0])
            return True
        self.kill()
        return False

    def take(self) -> list[tuple[Any, Any]]:
        """Its task with the result; nothing when it has just started.

        Raises:
          EOFError: the process has ended.
        """
        try:
            result, error = self.pipe.recv()
        except ConnectionResetError:
            raise EOFError from None
        if error is not None:
            raise error
        held, self._held = self._held, []
        return [(task, result) for task, _ in held]

    def bury(self, name: Callable[[Any], str], workers: int) -> list[tuple[Any, Lost]]:
        """The task of a process that has ended, lost.

        Raises:
          InputError: the task was not the cause.
        """
        self._process.join()
        code = self._process.exitcode or 0
        for task, _ in self._held:
            if -code in _CRASHES:
                return [(task, Lost(f"crashes the process that reads it ({signal.Signals(-code).name})"))]
            if -code == signal.SIGXCPU:
                return [(task, Lost("keeps a process busy without end"))]
        what = "a process " + (
            "was killed, most likely for want of memory" if code < 0 else f"ended by {code}"
        )
        tasks = " ".join(name(task) for task, _ in self._held)
        remedy = f"with fewer --workers than {workers}" if workers > 1 else "on a machine with more memory"
        raise InputError(
            f"{what}, while {f'at work on {tasks}' if tasks else 'it started'}; run the same command again"
            f" {remedy}"
        )

    def kill(self) -> None:
        """Ends the process, whatever it does."""
        self._process.kill()
        self._process.join()
        self.pipe.close()


def _serve(pipe: Connection, function: Callable[[Any], Any]) -> None:
    """The life of a process: says that it is there, then does one task after the other."""
    _prepare()
    pipe.send((None, None))
    while True:
        task, seconds = pipe.recv()
        limit_computing(seconds)
        reply: tuple[Any, Exception | None]
        try:
            reply = function(task), None
        except Exception as error:
            if not isinstance(error, InputError | OSError):
                error.add_note(traceback.format_exc())
            reply = None, error
        pipe.send(reply)


def _prepare() -> None:
    """Ctrl-C is the parent's affair; and a process whose parent was killed must not live on."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    # A crash is nothing to keep gigabytes of memory for.
    resource.setrlimit(resource.RLIMIT_CORE, (0, resource.getrlimit(resource.RLIMIT_CORE)[1]))
    library = ctypes.CDLL(None)
    if hasattr(library, "prctl"):  # elsewhere than on Linux only the thread below sees to it
        library.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    keep_memory()
    parent = multiprocessing.parent_process()
    if parent is not None:
        threading.Thread(target=_end_with, args=(parent.sentinel,), daemon=True).start()


def _end_with(sentinel: int) -> None:
    with contextlib.suppress(OSError):
        multiprocessing.connection.wait([sentinel])
    os._exit(1)

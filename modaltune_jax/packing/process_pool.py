"""Tasks in several processes: few at a time, so that memory does not grow with their number."""

from __future__ import annotations

import contextlib
import multiprocessing
import multiprocessing.connection
import os
import signal
import threading
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from typing import Any, TypeVar

from modaltune_jax.host_memory import keep_memory
from modaltune_jax.types import InputError

Task = TypeVar("Task")
Result = TypeVar("Result")


def map_unordered(
    function: Callable[[Task], Result],
    tasks: Iterable[Task],
    workers: int,
    name: Callable[[Task], str],
) -> Iterator[tuple[Task, Result]]:
    """Applies a function to every task; results come as they are ready.

    Args:
      function: can be pickled; what it raises is raised here.
      tasks: taken when a process is free.
      workers: number of processes; 1 works in this one.
      name: of a task, for people.

    Raises:
      InputError: a process was killed; the message names the tasks it may have worked at.
    """
    if workers == 1:
        for task in tasks:
            yield task, function(task)
        return
    # A forked process could inherit locks that are held.
    context = multiprocessing.get_context("spawn")
    running: dict[Future, Task] = {}
    with ProcessPoolExecutor(workers, mp_context=context, initializer=_start) as pool:
        try:
            for task in tasks:
                running[pool.submit(function, task)] = task
                while len(running) > workers:
                    yield from _ready(running)
            while running:
                yield from _ready(running)
        except BrokenProcessPool:
            names = sorted(name(task) for task in running.values())
            raise InputError(
                f"a process was killed, most likely for want of memory, while at work on {', '.join(names)};"
                f" run the same command again with fewer --workers than {workers}"
            ) from None
        finally:
            pool.shutdown(cancel_futures=True)


def _ready(running: dict[Future, Any]) -> Iterator[tuple[Any, Any]]:
    """Waits for a result, and takes all there are from `running`."""
    done, _ = wait(running, return_when=FIRST_COMPLETED)
    for future in done:
        result = future.result()
        yield running.pop(future), result


def _start() -> None:
    """Ctrl-C is the parent's affair; and a process whose parent was killed must not live on."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    keep_memory()
    parent = multiprocessing.parent_process()
    if parent is not None:
        threading.Thread(target=_end_with, args=(parent.sentinel,), daemon=True).start()


def _end_with(sentinel: int) -> None:
    with contextlib.suppress(OSError):
        multiprocessing.connection.wait([sentinel])
    os._exit(1)

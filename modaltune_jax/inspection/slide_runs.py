"""A function over many slides by several processes, with a bar; results in the order of the slides."""

from __future__ import annotations

import functools
import math
import os
from collections.abc import Callable, Sequence
from typing import TypeVar

from modaltune_jax.packing.process_pool import Lost, limit_computing, map_unordered
from modaltune_jax.types import InputError

Item = TypeVar("Item")
Result = TypeVar("Result")

_RUN = 8
"""Neighbours that go to one process together: slides of a case share what is read."""
FEWEST = 1
"""Processes where nobody says how many; 0 would be this one, which a damaged slide may take down."""
_SECONDS = 300.0
"""Of computing at a slide; more is a reader that does not end."""


def map_slides(
    function: Callable[[Item], Result],
    items: Sequence[Item],
    *,
    workers: int | None = None,
    description: str = "",
    progress: bool = False,
    lost: Callable[[Item, str], Result] | None = None,
) -> list[Result]:
    """Applies a function to every slide.

    Args:
      function: can be pickled; what it raises is raised here.
      items: what stands for the slides.
      workers: number of processes; None takes one a core, at most 8, and only one for a few slides, of which
        it would be done before another has started.
      description: before the bar.
      progress: show a bar where stderr is a terminal.
      lost: the result of a slide that crashed its process or did not end, from it and the reason.

    Raises:
      InputError: a process was killed, or a slide crashed it and there is no `lost`.
    """
    from tqdm import tqdm

    if workers is None:
        workers = max(FEWEST, min(os.cpu_count() or 1, 8, len(items) // (4 * _RUN)))
    starts = range(0, len(items), _RUN)
    runs = [(start, items[start : start + _RUN]) for start in starts]
    results: dict[int, list[Result]] = {}
    work = functools.partial(_work, function)
    with tqdm(
        total=len(items), desc=description, unit="slide", disable=None if progress else True, leave=False
    ) as bar:
        crashed = []
        for run, done in map_unordered(work, runs, workers, _name):
            if isinstance(done, Lost):
                crashed.append(run)
                continue
            results[run[0]] = done
            bar.update(len(done))
        for start, of_run in crashed:
            results[start] = _one_by_one(work, start, of_run, lost)
            bar.update(len(of_run))
    return [result for start in starts for result in results[start]]


def _one_by_one(
    work: Callable[[tuple[int, Sequence[Item]]], list[Result]],
    start: int,
    items: Sequence[Item],
    lost: Callable[[Item, str], Result] | None,
) -> list[Result]:
    """The results of a run of which one slide at least takes its process down."""
    results: dict[int, Result] = {}
    for run, done in map_unordered(work, [(start + i, [item]) for i, item in enumerate(items)], 1, _name):
        number, (item,) = run
        if not isinstance(done, Lost):
            (results[number],) = done
        elif lost is None:
            raise InputError(f"{_name(run)}: {done.reason}; take it away, or extract it again")
        else:
            results[number] = lost(item, done.reason)
    return [results[number] for number in sorted(results)]


def _work(function: Callable[[Item], Result], run: tuple[int, Sequence[Item]]) -> list[Result]:
    results = []
    for item in run[1]:
        limit_computing(_SECONDS)
        results.append(function(item))
    limit_computing(math.inf)
    return results


def _name(run: tuple[int, Sequence[object]]) -> str:
    start, items = run
    if len(items) == 1:
        return f"slide {start + 1}"
    return f"slides {start + 1} to {start + len(items)}"

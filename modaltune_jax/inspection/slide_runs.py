"""A function over many slides by several processes, with a bar; results in the order of the slides."""

from __future__ import annotations

import functools
import os
from collections.abc import Callable, Sequence
from typing import TypeVar

from modaltune_jax.packing.process_pool import map_unordered

Item = TypeVar("Item")
Result = TypeVar("Result")

_RUN = 8
"""Neighbours that go to one process together: slides of a case share what is read."""


def map_slides(
    function: Callable[[Item], Result],
    items: Sequence[Item],
    *,
    workers: int | None = None,
    description: str = "",
    progress: bool = False,
) -> list[Result]:
    """Applies a function to every slide.

    Args:
      function: can be pickled; what it raises is raised here.
      items: what stands for the slides.
      workers: number of processes, this one alone if 1; None takes one a core, at most 8, and only this one
        for a few slides, of which it would be done before another process has started.
      description: before the bar.
      progress: show a bar on stderr.

    Raises:
      InputError: a process was killed.
    """
    from tqdm import tqdm

    if workers is None:
        workers = max(1, min(os.cpu_count() or 1, 8, len(items) // (4 * _RUN)))
    starts = range(0, len(items), _RUN)
    runs = [(start, items[start : start + _RUN]) for start in starts]
    results: dict[int, list[Result]] = {}
    work = functools.partial(_work, function)
    with tqdm(total=len(items), desc=description, unit="slide", disable=not progress, leave=False) as bar:
        for (start, _), done in map_unordered(work, runs, workers, _name):
            results[start] = done
            bar.update(len(done))
    return [result for start in starts for result in results[start]]


def _work(function: Callable[[Item], Result], run: tuple[int, Sequence[Item]]) -> list[Result]:
    return [function(item) for item in run[1]]


def _name(run: tuple[int, Sequence[object]]) -> str:
    start, items = run
    return f"slides {start + 1} to {start + len(items)}"

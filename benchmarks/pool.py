"""Cells of a benchmark, in this process or in several."""

from __future__ import annotations

import multiprocessing
import os
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from typing import Any, TypeVar

from distill3d.sweep.local import cores

B = TypeVar("B")
C = TypeVar("C")
T = TypeVar("T")


def at_once(
    task: Callable[[B, C, str], T], bench: B, work: Sequence[tuple[C, str]], deadline: float, jobs: int
) -> Iterator[T]:
    """``task(bench, cell, key)`` of each pair, in the order in which they end, by ``jobs`` processes.

    Nothing begins after ``deadline`` (of `time.monotonic`). Each process has its own copy of the bench.
    """
    in_time = (one for one in work if time.monotonic() < deadline)
    if jobs == 1 or len(work) < 2:
        yield from (task(bench, *one) for one in in_time)
        return
    os.environ.setdefault("OMP_NUM_THREADS", str(max(cores() // jobs, 1)))  # the processes take their share from it
    spawn = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(jobs, spawn, initializer=_keep, initargs=(bench,)) as pool:
        yield from _spread(lambda one: pool.submit(_with_kept, task, *one), in_time, jobs)


_kept: list[object] = []


def _keep(bench: object) -> None:
    """In a process of the pool: the bench stays, with what it has loaded, from one cell to the next."""
    _kept[:] = [bench]


def _with_kept(task: Callable[[Any, C, str], T], cell: C, key: str) -> T:
    return task(_kept[0], cell, key)


def _spread(submit: Callable[[tuple[C, str]], Future[T]], work: Iterable[tuple[C, str]], jobs: int) -> Iterator[T]:
    queue, running = iter(work), set[Future[T]]()
    while True:
        while len(running) < jobs and (one := next(queue, None)) is not None:
            running.add(submit(one))
        if not running:
            return
        ended, running = wait(running, return_when=FIRST_COMPLETED)
        yield from (future.result() for future in ended)

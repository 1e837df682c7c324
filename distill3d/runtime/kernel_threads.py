"""Threads for the CPU kernels: compiled without the GIL, each call works on its own share of the output.

A pool of plain threads, not numba's parallel loops: those take longer to compile, and one of their threading layers
aborts the process when two Python threads meet in it.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor

import torch

_pools: dict[tuple[int, int], ThreadPoolExecutor] = {}


def run_parallel(task: Callable[..., None], arguments: Iterable[tuple]) -> None:
    """``task(*a)`` for each tuple of arguments, on as many threads as torch uses; the order of calls is free.

    Results depend neither on the order nor on the number of threads as long as each call owns what it writes.
    """
    count = torch.get_num_threads()
    if count == 1:
        for a in arguments:
            task(*a)
    else:
        # list() waits for all, and raises what a task raised
        list(_pool(count).map(lambda a: task(*a), arguments))


def shares(total: int, parts: int) -> list[tuple[int, int]]:
    """``0 .. total`` cut into at most ``parts`` nearly equal ranges, none of them empty."""
    parts = max(1, min(parts, total))
    return [(total * i // parts, total * (i + 1) // parts) for i in range(parts)]


def _pool(count: int) -> ThreadPoolExecutor:
    """One pool for each size and process (threads do not survive a fork)."""
    key = (os.getpid(), count)
    if key not in _pools:
        _pools[key] = ThreadPoolExecutor(count, thread_name_prefix="kernel")
    return _pools[key]

"""The command line of a benchmark of suites: which cells, and where they are done once."""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

from ledger import is_done, read_ledger

from distill3d.sweep.local import cores

RESULTS = Path(__file__).resolve().parent / "results"
C = TypeVar("C")
Run = Callable[[Path, float], None]  # of the ledger, and the time (of `time.monotonic`) after which nothing begins


def suite_parser(description: str | None, suites: Iterable[str], work: str, judge: str) -> argparse.ArgumentParser:
    """The arguments that such benchmarks share. ``work`` and ``judge`` are the defaults of these two."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--suite", action="append", choices=sorted(suites), help="may be repeated; default: all")
    parser.add_argument("--minutes", type=float, default=float("inf"), help="begin no cell after that")
    parser.add_argument("--cells", type=int, default=None, help="only the first so many of each suite")
    parser.add_argument("--jobs", type=int, default=min(cores(), 2), help="cells at once")
    parser.add_argument("--report", action="store_true", help="run nothing, write table and pictures")
    parser.add_argument("--judge", default=judge, help="auto, none, embedded, or as in launch.py --evaluate")
    parser.add_argument("--work", type=Path, default=Path(work), help="trials and pictures of cells")
    parser.add_argument("--results", type=Path, default=RESULTS, help="ledger, table and pictures")
    parser.add_argument("settings", nargs="*", help="key=value for every cell")
    return parser


def chosen(args: argparse.Namespace, suites: Mapping[str, Callable[[], Iterable[C]]]) -> list[C]:
    """The cells of the suites that the arguments name."""
    return [cell for name in args.suite or suites for cell in list(suites[name]())[: args.cells]]


def done_cells(
    args: argparse.Namespace, work: Sequence[tuple[C, str]], ledger: str, run: Run
) -> list[tuple[C, dict[str, Any]]]:
    """Run what is open, unless only a report is wanted; each finished cell (with its key) and its line."""
    path = args.results / ledger
    if not args.report:
        run(path, time.monotonic() + 60.0 * args.minutes)
    lines = read_ledger(path)
    return [(cell, lines[key]) for cell, key in work if is_done(lines.get(key))]


def command_words(script: str, args: argparse.Namespace) -> list[str]:
    """The beginning of the command that makes a table again."""
    return [f"python benchmarks/{script}", *(f"--suite {name}" for name in args.suite or ()), f"--jobs {args.jobs}"]

"""SDS, LMC-SDS and L_cond alone, by guidance scale: python benchmarks/lmc_vs_sds.py --first [--jobs 2].

Each cell is one training as launch.py makes it, in a process of one thread. A finished cell is a line of the ledger and
is never run again under the same prior, b_psi and judge, so the command can be stopped and started at any time. Suites:
3d (the 32x32 profile), 2d, 64 (a comparison at 64x64), noise (fixed against fresh eps), translation; ``--first`` is the
first part of each, without it they are widened after. ``--report`` runs nothing and writes the table and the pictures.
Settings at the end hold for all cells: trainer.max_steps=50.
"""

# ruff: noqa: T201  a benchmark prints

from __future__ import annotations

import argparse
import os
import platform
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import torch
from ledger import append, is_done, pending, read_ledger
from lmc_bench import Bench
from lmc_cells import SUITES, Cell
from lmc_report import write_report
from pool import at_once

from distill3d.config.check import ConfigError
from distill3d.sweep.local import cores

Work = tuple[Cell, str]


def run_cells(bench: Bench, work: Sequence[Work], ledger: Path, deadline: float, jobs: int) -> None:
    """Run what the ledger has no line of; nothing begins after ``deadline`` (of `time.monotonic`)."""
    done, unique = read_ledger(ledger), {key: cell for cell, key in reversed(work)}
    wanted = sorted(((cell, key) for key, cell in reversed(unique.items())), key=lambda one: one[0].stage)
    waiting = list(pending([cell for cell, _ in wanted], [key for _, key in wanted], done))
    print(f"{len(wanted) - len(waiting)} of {len(wanted)} trainings are done", flush=True)
    number = 0
    for number, line in enumerate(at_once(finished, bench, waiting, deadline, jobs), 1):
        append(ledger, line)
        outcome = line.get("error") or f"{line['seconds']:.0f} s, judged in {line['judging_seconds']:.1f} s"
        name = f"{line['suite']} {line['rule']} w={line['scale']:g} {line['prompt']!r} seed {line['seed']}"
        print(f"[{number}/{len(waiting)}] {name}: {outcome}", flush=True)
    if number < len(waiting):
        print(f"the time is over; {len(waiting) - number} trainings are left")


def finished(bench: Bench, cell: Cell, key: str) -> dict[str, Any]:
    """A cell's line for the ledger, with what went wrong."""
    about = {"key": key, **{name: getattr(cell, name) for name in FIELDS}, "hardware": hardware()}
    try:
        return {**about, **bench.run(cell, key)}
    except (ConfigError, OSError):
        raise  # a mistake in the settings is one in every cell
    except (RuntimeError, ValueError) as error:
        return {**about, "error": str(error)}


def hardware() -> str:
    """What one cell had, and its machine."""
    return (
        f"{torch.get_num_threads()} of {os.cpu_count()} threads a cell, {platform.machine()}, torch {torch.__version__}"
    )


ROOT = Path(__file__).resolve().parent
FIELDS = ("suite", "config", "rule", "scale", "prompt", "seed", "variant")


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--suite", action="append", choices=sorted(SUITES), help="may be repeated; default: all")
    parser.add_argument("--minutes", type=float, default=float("inf"), help="begin no cell after that")
    parser.add_argument("--cells", type=int, default=None, help="only the first so many of each suite")
    parser.add_argument("--first", action="store_true", help="only the first part of each suite: 45 minutes on 2 cores")
    parser.add_argument("--jobs", type=int, default=min(cores(), 2), help="cells at once")
    parser.add_argument("--report", action="store_true", help="run nothing, write table and pictures")
    parser.add_argument("--judge", default="embedded", help="embedded, none, or as in launch.py --evaluate")
    parser.add_argument("--work", type=Path, default=Path("outputs/lmc_vs_sds"), help="trials and pictures of cells")
    parser.add_argument("--results", type=Path, default=ROOT / "results", help="ledger, table and grids")
    parser.add_argument("settings", nargs="*", help="key=value for every cell")
    args = parser.parse_args(arguments)
    begun = time.monotonic()
    bench = Bench(args.work, args.judge, tuple(args.settings))
    cells = [cell for name in args.suite or SUITES for cell in list(SUITES[name]())[: args.cells]]
    work = [(cell, cell.key(bench.conditions(cell))) for cell in cells if not (args.first and cell.stage)]
    ledger = args.results / "lmc_vs_sds.jsonl"
    if not args.report:
        run_cells(bench, work, ledger, begun + 60.0 * args.minutes, args.jobs)
    lines = read_ledger(ledger)
    own = [(cell, lines[key]) for cell, key in work if is_done(lines.get(key))]
    print(write_report(own, bench.picture, args.results, command(args)))


def command(args: argparse.Namespace) -> str:
    """What would write the table again."""
    suites = [f"--suite {name}" for name in args.suite or ()]
    parts = ["python benchmarks/lmc_vs_sds.py", *suites, *(["--first"] if args.first else []), f"--jobs {args.jobs}"]
    return " ".join([*parts, *args.settings])


if __name__ == "__main__":
    main()

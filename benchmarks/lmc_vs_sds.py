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
from collections.abc import Sequence
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import torch
from ledger import append, pending, read_ledger
from lmc_bench import Bench
from lmc_cells import SUITES, Cell
from lmc_report import write_report
from pool import at_once
from suites import chosen, command_words, done_cells, suite_parser

from distill3d.config.check import ConfigError

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


FIELDS = ("suite", "config", "rule", "scale", "prompt", "seed", "variant")


def main(arguments: Sequence[str] | None = None) -> None:
    parser = suite_parser(__doc__, SUITES, "outputs/lmc_vs_sds", "embedded")
    parser.add_argument("--first", action="store_true", help="only the first part of each suite: 90 minutes on 2 cores")
    args = parser.parse_args(arguments)
    bench = Bench(args.work, args.judge, tuple(args.settings))
    cells = [cell for cell in chosen(args, SUITES) if not (args.first and cell.stage)]
    work = [(cell, cell.key(bench.conditions(cell))) for cell in cells]
    done = done_cells(args, work, "lmc_vs_sds.jsonl", lambda path, end: run_cells(bench, work, path, end, args.jobs))
    print(write_report(done, bench.picture, args.results, command(args)))


def command(args: argparse.Namespace) -> str:
    """What would write the table again."""
    words = command_words("lmc_vs_sds.py", args)
    words[-1:-1] = ["--first"] if args.first else []
    return " ".join([*words, *args.settings])


if __name__ == "__main__":
    main()

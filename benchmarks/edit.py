"""Editing by posterior distillation and its rivals: python benchmarks/edit.py --assets PATH [--suite nerf] [--jobs 2].

Scenes, pictures and a drawing are changed to show another prompt: recoloured, exchanged, added to, reshaped. Methods:
PDS (also refined), DDS, SDS, LMC-SDS, iterative dataset update by SDEdit, each at three settings. Suites: nerf, image,
svg, and psi (what psi buys: identity against change). --assets is a folder of meshes with index.csv; without it text to
3D makes the scenes. All suites are meant to take about 15 minutes on two idle cores with --jobs 2.

A finished cell is a line of the ledger and is never run again under the same prior and b_psi, so the command can be
stopped and started at any time; a judge that came later, or has other weights, judges the pictures that were kept.
--report runs nothing and writes table and picture. Settings at the end hold for all cells:
system.prior.pretrained_model_name_or_path=FOLDER.
"""

# ruff: noqa: T201  a benchmark prints

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from functools import partial
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from edit_bench import EditBench
from edit_cells import SUITES
from edit_pool import run_cells
from edit_report import write_report
from suites import chosen, command_words, done_cells, suite_parser

SIZE = 32  # of the edited pictures, in pixels


def main(arguments: Sequence[str] | None = None) -> None:
    parser = suite_parser(__doc__, SUITES, "outputs/edit", "auto")
    parser.add_argument("--assets", type=Path, help="a folder of meshes with index.csv, whose objects are edited")
    parser.add_argument("--size", type=int, default=SIZE, help="of the edited pictures, in pixels: 32 or 64")
    args = parser.parse_args(arguments)
    bench = EditBench(args.work.absolute(), args.assets, args.size, args.judge, tuple(args.settings))
    cells = chosen(args, {name: partial(suite, args.size) for name, suite in SUITES.items()})
    work = [(cell, cell.key(bench.conditions(cell))) for cell in cells]
    say = partial(print, flush=True)
    done = done_cells(args, work, "edit.jsonl", lambda path, end: run_cells(bench, work, path, end, args.jobs, say))
    print(write_report(done, bench.picture, args.results, command(args)))


def command(args: argparse.Namespace) -> str:
    """What makes these figures again."""
    words = command_words("edit.py", args)
    words += ["--assets PATH"] if args.assets else []
    words += [f"--size {args.size}"] if args.size != SIZE else []
    return " ".join([*words, *args.settings])


if __name__ == "__main__":
    main()

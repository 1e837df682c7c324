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
import time
from collections.abc import Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from edit_bench import EditBench
from edit_cells import SUITES
from edit_pool import run_cells
from edit_report import write_report
from ledger import is_done, read_ledger

from distill3d.sweep.local import cores

ROOT = Path(__file__).resolve().parent
SIZE = 32  # of the edited pictures, in pixels


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--suite", action="append", choices=sorted(SUITES), help="may be repeated; default: all")
    parser.add_argument("--assets", type=Path, help="a folder of meshes with index.csv, whose objects are edited")
    parser.add_argument("--size", type=int, default=SIZE, help="of the edited pictures, in pixels: 32 or 64")
    parser.add_argument("--minutes", type=float, default=float("inf"), help="begin no cell after that")
    parser.add_argument("--jobs", type=int, default=min(cores(), 2), help="cells at once")
    parser.add_argument("--cells", type=int, default=None, help="only the first so many of each suite")
    parser.add_argument("--report", action="store_true", help="run nothing, write table and picture")
    parser.add_argument("--judge", default="auto", help="auto, none, embedded, or as in launch.py --evaluate")
    parser.add_argument("--work", type=Path, default=Path("outputs/edit"), help="sources, trials, pictures of cells")
    parser.add_argument("--results", type=Path, default=ROOT / "results", help="ledger, table and pictures")
    parser.add_argument("settings", nargs="*", help="key=value for every cell")
    args = parser.parse_args(arguments)
    begun = time.monotonic()
    bench = EditBench(args.work.absolute(), args.assets, args.size, args.judge, tuple(args.settings))
    cells = [cell for name in args.suite or SUITES for cell in list(SUITES[name](args.size))[: args.cells]]
    work = [(cell, cell.key(bench.conditions(cell))) for cell in cells]
    ledger = args.results / "edit.jsonl"
    if not args.report:
        run_cells(bench, work, ledger, begun + 60.0 * args.minutes, args.jobs, lambda text: print(text, flush=True))
    lines = read_ledger(ledger)
    done = [(cell, lines[key]) for cell, key in work if is_done(lines.get(key))]
    print(write_report(done, bench.picture, args.results, command(args)))


def command(args: argparse.Namespace) -> str:
    """What makes these figures again."""
    words = ["python benchmarks/edit.py", *(f"--suite {name}" for name in args.suite or ()), f"--jobs {args.jobs}"]
    words += ["--assets PATH"] if args.assets else []
    words += [f"--size {args.size}"] if args.size != SIZE else []
    return " ".join([*words, *args.settings])


if __name__ == "__main__":
    main()

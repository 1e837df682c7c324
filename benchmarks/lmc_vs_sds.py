"""SDS, LMC-SDS and L_cond alone, by guidance scale: python benchmarks/lmc_vs_sds.py [--suite 3d] [--minutes 60].

Each cell is one training as launch.py makes it, in this process. A finished cell is a line of the ledger and is never
run again under the same prior, so the command can be stopped and started at any time. Suites: 3d (the 32x32 profile),
2d, 64 (a comparison at 64x64), noise (fixed against fresh eps), translation. ``--report`` runs nothing and writes the
table and the pictures. Settings at the end hold for all cells: trainer.max_steps=50.
"""

# ruff: noqa: T201  a benchmark prints

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from ledger import append, is_done, pending, read_ledger
from lmc_cells import SUITES, Bench, Cell
from lmc_report import write_report

from distill3d.config_check import ConfigError
from distill3d.evaluate.judges import choose_judge
from distill3d.prior.loader import model_identity
from distill3d.prior.settings import PriorConfig


def run_cells(bench: Bench, cells: Sequence[Cell], keys: Sequence[str], ledger: Path, deadline: float) -> None:
    done = read_ledger(ledger)
    waiting = list(pending(cells, keys, done))
    print(f"{len(cells) - len(waiting)} of {len(cells)} cells are done")
    for number, (cell, key) in enumerate(waiting, 1):
        if time.monotonic() > deadline:
            print(f"the time is over; {len(waiting) - number + 1} cells are left")
            return
        about = {"key": key, **{name: getattr(cell, name) for name in FIELDS}}
        try:
            line = {**about, **bench.run(cell, key)}
        except (ConfigError, OSError):
            raise  # a mistake in the settings is one in every cell
        except (RuntimeError, ValueError) as error:
            line = {**about, "error": str(error)}
        append(ledger, line)
        outcome = line.get("error") or f"{line['seconds']:.0f} s"
        print(f"[{number}/{len(waiting)}] {cell.suite} {cell.rule} w={cell.scale:g} {cell.prompt!r}: {outcome}")


ROOT = Path(__file__).resolve().parent
FIELDS = ("suite", "config", "rule", "scale", "prompt", "seed", "variant")


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--suite", action="append", choices=sorted(SUITES), help="may be repeated; default: all")
    parser.add_argument("--minutes", type=float, default=float("inf"), help="begin no cell after that")
    parser.add_argument("--cells", type=int, default=None, help="only the first so many of each suite")
    parser.add_argument("--report", action="store_true", help="run nothing, write table and pictures")
    parser.add_argument("--judge", default="embedded", help="embedded, none, or as in launch.py --evaluate")
    parser.add_argument("--work", type=Path, default=Path("outputs/lmc_vs_sds"), help="trials and pictures of cells")
    parser.add_argument("--results", type=Path, default=ROOT / "results", help="ledger, table and grids")
    parser.add_argument("settings", nargs="*", help="key=value for every cell")
    args = parser.parse_args(arguments)
    begun = time.monotonic()
    settings = tuple(args.settings)
    prior = model_identity(PriorConfig(_prior_name(settings)))
    cells = [cell for name in args.suite or SUITES for cell in list(SUITES[name]())[: args.cells]]
    ledger = args.results / "lmc_vs_sds.jsonl"
    bench = Bench(args.work, None if args.report else choose_judge(args.judge, "embedded"), settings)
    keys = [cell.key("/".join((prior, *settings))) for cell in cells]
    if not args.report:
        run_cells(bench, cells, keys, ledger, begun + 60.0 * args.minutes)
    lines = read_ledger(ledger)
    own = [(cell, lines[key]) for cell, key in zip(cells, keys, strict=True) if is_done(lines.get(key))]
    print(write_report(own, bench.picture, args.results))


def _prior_name(settings: Sequence[str]) -> str:
    name = "system.prior.pretrained_model_name_or_path="
    return next((s.removeprefix(name) for s in settings if s.startswith(name)), "embedded")


if __name__ == "__main__":
    main()

"""One run of a sweep, as a process: ``python -m distill3d.sweep.child SWEEP RUN [--fresh] [--launch PATH]``.

It takes the run's lock before anything else and keeps it to its end. So whoever starts a run that another process
still does (an orphan of a sweep that was killed) waits for that process, and then finds the run done.
"""

from __future__ import annotations

import argparse
import runpy
import sys
from collections.abc import Sequence
from pathlib import Path

from distill3d.config.files import IN_CHECKOUT, PACKAGE, PROJECT
from distill3d.runtime.lock import locked
from distill3d.sweep.folder import RUNS, SweepFolder
from distill3d.sweep.ledger import Ledger

LAUNCH = PROJECT / "launch.py" if IN_CHECKOUT else PACKAGE / "__main__.py"


def main(argv: Sequence[str] | None = None) -> int:
    """Exit code 0 when the run is done, also if another process did it."""
    parser = argparse.ArgumentParser(prog="python -m distill3d.sweep.child")
    parser.add_argument("sweep", type=Path)
    parser.add_argument("run")
    parser.add_argument("--fresh", action="store_true", help="start from scratch instead of resuming from a checkpoint")
    parser.add_argument("--launch", type=Path, default=LAUNCH)
    given = parser.parse_args(argv)
    folder = SweepFolder(given.sweep)
    planned = Ledger(folder.ledger).planned(given.run)
    if planned is None:
        parser.error(f"{folder.ledger} plans no run {given.run}")
    with locked(folder.run_lock(given.run)):
        if folder.status(given.run) != "open":
            return 0
        return _launch(given.launch, arguments(folder, given.run, planned["overrides"], given.fresh))


def arguments(folder: SweepFolder, run_id: str, overrides: Sequence[str], fresh: bool = False) -> list[str]:
    """The command line of the run, which resumes from its checkpoint if it has one."""
    checkpoint = folder.trial(run_id) / "ckpts" / "last.ckpt"
    parsed = folder.trial(run_id) / "configs" / "parsed.yaml"
    resume = []
    if checkpoint.is_file() and parsed.is_file() and not fresh:
        resume = [f"resume={checkpoint}"]
    else:
        folder.set_aside(run_id)
    place = [f"exp_root_dir={folder.root}", f"name={RUNS}", f"tag={run_id}", "use_timestamp=false"]
    return ["--config", str(folder.config), "--train", *overrides, *place, *resume]


def _launch(launch: Path, argv: list[str]) -> int:
    sys.argv = [str(launch), *argv]
    try:
        runpy.run_path(str(launch), run_name="__main__")
    except SystemExit as end:
        if isinstance(end.code, str):
            sys.stderr.write(end.code + "\n")
        return end.code if isinstance(end.code, int) else int(end.code is not None)
    return 0


if __name__ == "__main__":
    sys.exit(main())

"""Cells of `edit.py`, in this process or in several, each cell done once."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from edit_bench import EditBench
from edit_cells import EditCell
from ledger import append, pending, read_ledger
from pool import at_once

from distill3d.config.check import ConfigError

Work = tuple[EditCell, str]


def run_cells(
    bench: EditBench, work: Sequence[Work], ledger: Path, deadline: float, jobs: int, say: Callable[[str], None]
) -> None:
    """Run what the ledger has no line of. Sources first: those of one edit are shared by all of its methods."""
    done = read_ledger(ledger)
    waiting = list(pending([cell for cell, _ in work], [key for _, key in work], done))
    say(f"{len(work) - len(waiting)} of {len(work)} cells are done")
    for cell, key in work:
        newer = bench.judge_again(cell, done[key]) if key in done and "figures" in done[key] else None
        if newer is not None:
            append(ledger, newer)
    first = {(cell.scene, cell.edit.source): (cell, key) for cell, key in reversed(waiting) if cell.scene != "svg"}
    for (scene, name), _, error in at_once(prepared, bench, list(first.values()), deadline, jobs):
        say(f"source: {scene} of {name}{f': {error}' if error else ''}")
    for number, (name, line, error) in enumerate(at_once(finished, bench, waiting, deadline, jobs), 1):
        append(ledger, line)
        say(f"[{number}/{len(waiting)}] {' '.join(name)}: {error or format(line['seconds'], '.0f') + ' s'}")


def prepared(bench: EditBench, cell: EditCell, key: str) -> tuple[tuple[str, ...], dict[str, Any], str]:
    """The source of a cell. One that cannot be made is said again by each of its cells."""
    try:
        bench.prepare_source(cell)
    except (RuntimeError, ValueError) as error:
        return (cell.scene, cell.edit.source), {}, str(error)
    return (cell.scene, cell.edit.source), {}, ""


def finished(bench: EditBench, cell: EditCell, key: str) -> tuple[tuple[str, ...], dict[str, Any], str]:
    """A cell's name, its line for the ledger, and what went wrong."""
    edit, method = cell.edit, cell.method.name
    about = {"key": key, "suite": cell.suite, "method": method, "kind": edit.kind, "edit": edit.name}
    about |= {"size": cell.size, "steps": cell.steps, "seed": cell.seed}
    name = (cell.suite, method, edit.name)
    try:
        return name, {**about, **bench.run(cell, key)}, ""
    except (ConfigError, OSError):
        raise  # a mistake in the settings is one in every cell
    except (RuntimeError, ValueError) as error:
        return name, {**about, "error": str(error)}, str(error)

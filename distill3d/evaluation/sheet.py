"""grid.png: the front view of every run, rows prompts, columns settings."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from jaxtyping import UInt8
from torch import Tensor
from torch.nn.functional import interpolate

from distill3d.evaluation.samples import read_strip
from distill3d.runtime.pictures import blank, labelled_grid, to_uint8, whole_label, write_png

if TYPE_CHECKING:
    from distill3d.evaluation.report import ReportedRun

MAX_ROWS, MAX_COLUMNS = 60, 24


def write_grid(runs: Sequence[ReportedRun], path: Path) -> None:
    """Write the picture; nothing where no run has a picture."""
    seen = [run for run in runs if "color" in run.pictures]
    if not seen:
        return
    rows = list(dict.fromkeys(run.entry.prompt for run in seen))[:MAX_ROWS]
    columns = list(dict.fromkeys(run.entry.label for run in seen))[:MAX_COLUMNS]
    tiles: dict[tuple[str, str], UInt8[Tensor, "1 3 S S"]] = {}
    for run in sorted(seen, key=lambda run: run.entry.seed, reverse=True):  # of several seeds the lowest stays
        tiles[run.entry.prompt, run.entry.label] = to_uint8(read_strip(run.pictures["color"])[:1])
    size = max(whole_label(name) for name in columns)
    size = max(size, *(tile.shape[-1] for tile in tiles.values()))
    none = blank(size, size)[None]
    cells = [[interpolate(tiles.get((row, column), none), (size, size))[0] for column in columns] for row in rows]
    write_png(path, labelled_grid(cells, columns, rows))

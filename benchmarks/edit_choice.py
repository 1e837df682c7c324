"""At which of its settings a method of `edit.py` is compared with the others: at its best one, found alike for all."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from edit_cells import EditCell

from distill3d.evaluation.confidence import interval

Line = tuple[EditCell, dict[str, Any]]
Keyed = dict[tuple[str, int], float]


def chosen(lines: Sequence[Line]) -> list[Line]:
    """The lines of each method at its best setting, methods in the order of the cells."""
    best = {name: best_setting(of(lines, name)) for name in dict.fromkeys(cell.method.name for cell, _ in lines)}
    return [(cell, line) for cell, line in lines if cell.method.at == best[cell.method.name]]


def best_setting(lines: Sequence[Line]) -> str:
    """Where ``score gained x SSIM to source`` is largest, both means over edits: changed as asked, and still the same.

    Without a judge nobody says what was gained; it is then the setting in the middle of the grid.
    """
    settings = list(dict.fromkeys(cell.method.at for cell, _ in lines))
    worth = {at: balance([line for line in lines if line[0].method.at == at]) for at in settings}
    known = {at: value for at, value in worth.items() if value is not None}
    return max(known, key=lambda at: known[at]) if known else settings[len(settings) // 2]


def balance(lines: Sequence[Line]) -> float | None:
    gained, kept = (interval(keyed(lines, name)) for name in ("score_gain", "ssim"))
    return None if gained is None or kept is None else gained.mean * kept.mean


def of(lines: Sequence[Line], method: str, at: str | None = None) -> list[Line]:
    """The lines of one method, at one setting or at all."""
    return [line for line in lines if line[0].method.name == method and at in (None, line[0].method.at)]


def keyed(lines: Sequence[Line], name: str) -> Keyed:
    """A figure by edit and seed."""
    values = {(cell.edit.name, cell.seed): line["figures"].get(name) for cell, line in lines}
    return {key: value for key, value in values.items() if value is not None}

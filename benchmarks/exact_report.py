"""The ledger of benchmarks/exact.py, a line for each training, and its tables and picture."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from claims import Claim, claim_table
from tables import table

from distill3d.sweep.ledger import Ledger

COLUMNS = {"iou": 3, "chamfer_percent": 2, "psnr_db": 1, "janus": 2, "detail": 2, "saturation": 2, "seconds": 0}
FIGURES = ("IoU", "Chamfer, % of the diagonal", "albedo, dB", "Janus", "detail", "saturation", "s")
HEAD = ("condition", "rule", "w", "object", *FIGURES)


@dataclass(frozen=True)
class Row:
    """The figures of one training."""

    name: str  # of the settings
    object: str
    condition: str
    rule: str
    iou: float
    chamfer_percent: float  # of the diagonal of the truth's bounding box
    psnr_db: float
    janus: float  # share of views
    seconds: float  # of training, without export and turntable
    key: str
    scale: float | None = None  # of the guidance; None: the config's
    kilobytes: float | None = None  # of the file that holds the scene
    detail: float | None = None  # the share of energy in high frequencies, over the truth's
    saturation: float | None = None  # over the truth's
    seed: int = 0


def read_rows(ledger: Path) -> list[Row]:
    return [Row(**record) for record in Ledger(ledger).records()]


def report(rows: list[Row], command: str, settings: list[str], claims: Mapping[str, Sequence[Claim]]) -> str:
    """Means by condition, rule and scale, then every object, and the claims by part."""
    lines = [text_row(group, "mean of " + str(len(group))) for group in groups(rows)]
    lines += [text_row([row], f"{row.object}, seed {row.seed}" if row.seed else row.object) for row in rows]
    given = f"\nSettings beside the config: `{' '.join(settings)}`.\n" if settings else "\n"
    parts = "".join(f"\n## Claims: {part}\n\n{claim_table(own)}\n" for part, own in claims.items())
    return f"# The exact prior\n\n`{command}`\n{given}\n{table(HEAD, lines)}\n{parts}"


def beside(rows: list[Row], names: Sequence[str]) -> str:
    """Means of the named settings by condition, rule and scale, over the objects that all of them have."""
    lines = []
    for group in groups([row for row in rows if row.name in names]):
        shared = set.intersection(*({row.object for row in group if row.name == name} for name in names))
        for name in names if shared else ():
            chosen = [row for row in group if row.name == name and row.object in shared]
            lines.append([*text_row(chosen, f"{name}, mean of {len(chosen)}"), mean(chosen, "kilobytes", 0)])
    return table((*HEAD, "kB"), lines)


def write_sheet(path: Path, sheets: Sequence[Path]) -> None:
    """The sheets of all trainings, one below the other; nothing where there is none."""
    from PIL import Image

    pictures = [np.array(Image.open(sheet).convert("RGB")) for sheet in sheets]
    if pictures:
        Image.fromarray(np.concatenate(pictures)).save(path, quality=90)


def groups(rows: list[Row]) -> list[list[Row]]:
    keys = dict.fromkeys((row.condition, row.rule, row.scale) for row in rows)
    return [[row for row in rows if (row.condition, row.rule, row.scale) == key] for key in keys]


def text_row(rows: list[Row], name: str) -> list[str]:
    scale = "" if rows[0].scale is None else f"{rows[0].scale:g}"
    return [rows[0].condition, rows[0].rule, scale, name, *(mean(rows, *field) for field in COLUMNS.items())]


def mean(rows: Sequence[Row], field: str, digits: int) -> str:
    """Over the rows that have the figure; a dash where none has."""
    values = [value for row in rows if (value := getattr(row, field)) is not None]
    return f"{np.mean(values):.{digits}f}" if values else "-"

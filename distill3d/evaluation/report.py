"""A report as files: evaluation.json, evaluation.csv, grid.png, and report.html, which needs no other file."""

from __future__ import annotations

import base64
import csv
import html
import io
import json
import re
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from jaxtyping import UInt8
from torch import Tensor
from torch.nn.functional import interpolate

from distill3d.evaluation.collect import Entry
from distill3d.evaluation.compare import Comparison, Measured, compare
from distill3d.evaluation.confidence import interval
from distill3d.evaluation.samples import read_strip
from distill3d.evaluation.scene_report import FIGURES
from distill3d.evaluation.settings import EvaluateSettings
from distill3d.runtime.files import write_atomically, write_json
from distill3d.runtime.foreign import open_image
from distill3d.runtime.pictures import blank, labelled_grid, to_uint8, whole_label, write_png

PAGE = Path(__file__).parent / "page"
MAX_ROWS, MAX_COLUMNS = 60, 24  # of grid.png
TURNING_RUNS = 200  # a page of more shows one view each: it would not open otherwise


@dataclass
class ReportedRun:
    """One trial, evaluated."""

    entry: Entry
    figures: dict[str, float | None]
    judge: str | None = None
    error: str = ""
    pictures: dict[str, Path] = field(default_factory=dict)  # strips of views

    @property
    def error_text(self) -> str:
        return self.error or self.entry.error

    def as_dict(self) -> dict[str, Any]:
        return {
            "id": self.entry.id,
            "prompt": self.entry.prompt,
            "seed": self.entry.seed,
            "settings": dict(self.entry.settings),
            "label": self.entry.label,
            "status": self.entry.status,
            "judge": self.judge,
            "figures": self.figures,
            "error": self.error_text,
        }


@dataclass
class Report:
    """Everything that the files tell."""

    name: str
    settings: EvaluateSettings
    runs: list[ReportedRun]

    def figure_names(self) -> list[str]:
        """Figures that at least one run has, in the order of their table."""
        return [name for name in FIGURES if any(run.figures.get(name) is not None for run in self.runs)]

    @property
    def title(self) -> str:
        """What was made and what differs: ``6 runs of 3 prompts: guidance_type (sds, lmc-sds)``."""
        prompts = list(dict.fromkeys(run.entry.prompt for run in self.runs))
        what = prompts[0] or self.name if len(prompts) == 1 else f"{len(prompts)} prompts"
        if len(self.runs) == 1:
            return what
        keys = dict.fromkeys(key for run in self.runs for key in run.entry.settings)
        values = {key: dict.fromkeys(run.entry.settings.get(key, "none") for run in self.runs) for key in keys}
        differing = [f"{key.rpartition('.')[2]} ({', '.join(map(str, own))})" for key, own in values.items()]
        return f"{len(self.runs)} runs of {what}" + (": " if differing else "") + ", ".join(differing)

    def comparisons(self) -> list[Comparison]:
        measured = [Measured(r.entry.prompt, r.entry.seed, r.entry.settings, r.figures) for r in self.runs]
        names = [name for name in self.figure_names() if name != "steps"]
        return compare(measured, names, self.settings.resamples)

    def as_dict(self) -> dict[str, Any]:
        names = self.figure_names()
        return {
            "name": self.name,
            "settings": asdict(self.settings),
            "judges": sorted({run.judge for run in self.runs if run.judge}),
            "figures": {name: asdict(FIGURES[name]) for name in names},
            "runs": [run.as_dict() for run in self.runs],
            "means": self._means(names),
            "comparisons": [comparison.as_dict() for comparison in self.comparisons()],
        }

    def _means(self, names: list[str]) -> list[dict[str, Any]]:
        """Each figure of each choice of settings, with its interval over prompts and seeds."""
        rows = []
        for label in dict.fromkeys(run.entry.label for run in self.runs):
            for name in names:
                values = {
                    (run.entry.prompt, run.entry.seed): value
                    for run in self.runs
                    if run.entry.label == label and (value := run.figures.get(name)) is not None
                }
                found = interval(values, self.settings.resamples)
                if found is not None:
                    rows.append({"label": label, "figure": name, **asdict(found)})
        return rows


def write_report(report: Report, out: Path) -> None:
    """Write all four files into a folder, each beside and renamed."""
    out.mkdir(parents=True, exist_ok=True)
    content = report.as_dict()
    write_json(out / "evaluation.json", content)
    write_atomically(out / "evaluation.csv", csv_text(report))
    write_atomically(out / "report.html", page(report, content))
    write_grid(report.runs, out / "grid.png")


def csv_text(report: Report) -> str:
    """One row for each run: settings, then figures."""
    settings = list(dict.fromkeys(key for run in report.runs for key in run.entry.settings))
    names = report.figure_names()
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(["id", "prompt", "seed", *settings, "status", "judge", *names, "error"])
    for run in report.runs:
        own = [run.entry.settings.get(key, "") for key in settings]
        values = ["" if run.figures.get(name) is None else run.figures[name] for name in names]
        row = [run.entry.id, run.entry.prompt, run.entry.seed, *own, run.entry.status, run.judge or "", *values]
        writer.writerow([_as_text(cell) for cell in (*row, run.error_text)])
    return out.getvalue()


def _as_text(cell: Any) -> Any:
    """A quote before texts that a spreadsheet would run as a formula; numbers stay as they are."""
    if not isinstance(cell, str):
        return cell
    text = cell.replace("\r\n", "\n").replace("\r", "\n")  # a lone \r would end the row for some readers
    return f"'{text}" if text.startswith(("=", "+", "-", "@", "\t", "\n")) else text


def page(report: Report, content: dict[str, Any]) -> str:
    """The page, with its data, script, style and pictures inlined."""
    frames = None if len(report.runs) <= TURNING_RUNS else 1
    runs = [
        {**data, "pictures": {name: data_uri(path, frames) for name, path in run.pictures.items()}}
        for data, run in zip(content["runs"], report.runs, strict=True)
    ]
    fill = {
        "title": html.escape(report.title),
        "style": (PAGE / "report.css").read_text(encoding="utf-8"),
        "script": (PAGE / "report.js").read_text(encoding="utf-8"),
        "data": json.dumps({**content, "runs": runs}, ensure_ascii=False).replace("<", "\\u003c"),
    }
    template = (PAGE / "report.html").read_text(encoding="utf-8")
    return re.sub(r"\{\{(\w+)\}\}", lambda match: fill[match.group(1)], template)


def data_uri(strip: Path, frames: int | None = None) -> dict[str, Any]:
    """A strip of square views as a JPEG within the page, and how many views it has."""
    image = open_image(strip).convert("RGB")
    count = image.width // image.height
    if frames is not None and count > frames:
        image, count = image.crop((0, 0, frames * image.height, image.height)), frames
    out = io.BytesIO()
    image.save(out, format="JPEG", quality=85)
    return {"uri": "data:image/jpeg;base64," + base64.b64encode(out.getvalue()).decode(), "views": count}


def write_grid(runs: Sequence[ReportedRun], path: Path) -> None:
    """The front view of every run, rows prompts, columns settings; nothing where no run has a picture."""
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

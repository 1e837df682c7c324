"""The last lines of a run: what was made, what to open, and where the rest lies."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from distill3d.runtime.foreign import read_record

# what a person opens first: the end of a file's name, what it is, and how it is opened
_TO_OPEN = (
    ("viewer.html", "a page that opens by double-click"),
    (".glb", "for Blender and other programs"),
    (".usdz", "for an iPhone or a Mac"),
    (".3mf", "for a slicer"),
    (".stl", "for a slicer"),
    (".obj", "for Blender and other programs"),
    ("final.svg", "the drawing"),
    (".ply", "for a viewer of meshes or points"),
    ("-final.png", "the picture"),
    (".mp4", "the video"),
    (".png", "the picture"),
)
_KINDS = {"viewer.html": "page", ".glb": "mesh", ".mp4": "video", ".svg": "drawing", ".png": "pictures"}


def summary(root: Path, command: str) -> list[str]:
    """Three lines on a trial folder, by its metrics.json and the files that are there; one line if nothing was written.

    ``command`` is how the program was called, for the line that says how to train on.
    """
    metrics = read_record(root / "metrics.json")
    files = [root / name for name in metrics.get("files", []) if (root / name).is_file()]
    if not files:
        return [f"done: {root}"]
    first = min(reversed(files), key=_rank)  # of what a run made twice, the newer one
    note = next((note for end, note in _TO_OPEN if first.name.endswith(end)), "the result")
    more = f"{root} ({_rest(files, first)}){_next(root, command)}"
    return [f"made: {_made(metrics)}", f"open: {first} ({note})", f"more: {more}"]


def _made(metrics: Mapping[str, Any]) -> str:
    prompt, steps, seconds = metrics.get("prompt"), metrics.get("steps", 0), metrics.get("seconds_total", 0.0)
    figures = metrics.get("export") or {}
    faces = f", {figures['faces']} faces" if figures.get("faces") else ""
    closed = ", closed" if figures.get("watertight") else ""
    state = ", but training diverged: see the warnings" if metrics.get("diverged") else ""
    what = f'"{prompt}"' if prompt else "a result"
    return f"{what} in {steps} steps and {_duration(seconds)}{faces}{closed}{state}"


def _rest(files: list[Path], first: Path) -> str:
    others = sorted((path for path in files if path != first), key=_rank)
    names: dict[str, None] = {}
    for path in others:
        kind = next((kind for end, kind in _KINDS.items() if path.name.endswith(end)), path.suffix.lstrip("."))
        names[kind] = None
    return ", ".join([*names, "figures in metrics.json"])


def _next(root: Path, command: str) -> str:
    last = root / "ckpts" / "last.ckpt"
    if not last.is_file():
        return ""
    return f"; train on: {command} --config {root / 'configs' / 'parsed.yaml'} resume={last} trainer.max_steps=N"


def _rank(path: Path) -> int:
    return next((i for i, (end, _) in enumerate(_TO_OPEN) if path.name.endswith(end)), len(_TO_OPEN))


def _duration(seconds: float) -> str:
    return f"{seconds:.0f} s" if seconds < 180 else f"{seconds / 60:.0f} min"

"""What an export loses, by changing one thing at a time: cells of a table of settings by trials, kept in a JSON file.

Every cell compares the mesh with the volume of the trial at cameras that nothing was fitted to: those of training,
drawn anew. PSNR is of the pixels that either covers, before white.
"""

from __future__ import annotations

import json
import resource
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from tables import table
from torch import Tensor
from torch.nn import functional as F

from distill3d.camera import random_cameras
from distill3d.evaluation.loaded_trial import LoadedTrial, load_trial
from distill3d.export.exporter import MadeAsset, MeshExporter
from distill3d.export.preview import likeness, render_asset
from distill3d.export.query import SceneField
from distill3d.export.surface.extraction import framed_views, object_box, seen_views
from distill3d.export.views import AlbedoViews, fitting_cameras
from distill3d.runtime.files import write_json
from distill3d.scenes.base import Solid

VIEWS, PIXELS, SEED = 16, 128, 20261127
SUPERSAMPLE = 3
AIM_DB, AIM_OVERLAP = 24.0, 0.97
LEAST_OPACITY = 0.3

SHIPPED, SHARPENED_ALONE = "as shipped", "sharpened, not fitted"
CHANGES: dict[str, dict[str, Any]] = {
    SHIPPED: {},
    "texture of 256": {"texture_size": 256},
    "texture of 2048": {"texture_size": 2048},
    "60 000 faces": {"faces": 60_000},
    "blurred by .015": {"blur": 0.015},
    "smoothed 10 times": {"smooth": 10},
    "grid 192": {"resolution": 192},
    "grid 512": {"resolution": 512},
    "64 views": {"fit_count": 64},
    "views of 128 pixels": {"fit_size": 128},
    "fitted, not sharpened": {"sharpen": False},
    SHARPENED_ALONE: {},
    "neither": {"fit_count": 0},
}
TRUE_COLOR = "same mesh, true colour per pixel"
OWN_OUTLINE = "the volume cut at opacity .5, true colour"
SHARP_VOLUME = "the sharpened volume itself"


@dataclass(frozen=True)
class Cell:
    """One export against its volume."""

    psnr_db: float
    overlap: float
    seconds: float = 0.0
    peak_mb: float = 0.0
    watertight: int = 0


def trials_in(given: Sequence[Path]) -> list[Path]:
    """Finished trials: each folder given, or the runs of a sweep's folder."""
    folders = [run for folder in given for run in (sorted((folder / "runs").glob("*")) or [folder])]
    return [folder for folder in folders if (folder / "ckpts" / "last.ckpt").is_file()]


def titled(trial: Path) -> str:
    """The trial's prompt before its folder's name: a sweep names its trials by hashes alone."""
    metrics = trial / "metrics.json"
    if not metrics.is_file():
        return trial.name
    return f"{json.loads(metrics.read_text(encoding='utf-8'))['prompt']}@{trial.name}"


def held_out(trial: LoadedTrial, pixels: int = PIXELS) -> AlbedoViews:
    """The volume at cameras of the training's distribution."""
    ranges = trial.data.views.camera_ranges
    cameras = random_cameras(ranges, VIEWS, pixels, pixels, torch.Generator().manual_seed(SEED), True)
    solid = trial.system.scene.surface()
    parts = [seen_views(solid, cameras[[i]]) for i in range(VIEWS)]
    return AlbedoViews(cameras, torch.cat([p.color for p in parts]), torch.cat([p.opacity for p in parts]))


def measured(folder: str, change: str, resolution: int, threads: int) -> dict[str, Cell]:
    """The cell of a change, and with the shipped settings those of the limits, too."""
    torch.set_num_threads(threads)
    trial = load_trial(Path(folder))
    solid: Solid = trial.system.scene.surface()
    exporter = MeshExporter(MeshExporter.Config(**{"resolution": resolution, **CHANGES[change]}))
    start = time.perf_counter()
    made = sharpened_alone(exporter, solid) if change == SHARPENED_ALONE else exporter.make(solid, {})
    seconds, peak_mb = time.perf_counter() - start, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024.0
    views = held_out(trial)
    color, _, mask = render_asset(made.asset, views.cameras)
    cells = {change: cell(color, mask, views, seconds, peak_mb, int(made.figures["watertight"]))}
    if change == SHIPPED:
        cells[TRUE_COLOR] = cell(over_white(views.own_color(LEAST_OPACITY), mask), mask, views)
        cells[OWN_OUTLINE] = cell(*own_outline(trial), views)
        sharp = seen_views(sharp_volume(exporter, solid), views.cameras)
        cells[SHARP_VOLUME] = cell(sharp.color, sharp.opacity, views)
    return cells


def cell(
    color: Float[Tensor, "B 3 H W"],
    mask: Float[Tensor, "B 1 H W"],
    views: AlbedoViews,
    seconds: float = 0.0,
    peak_mb: float = 0.0,
    watertight: int = 0,
) -> Cell:
    found = likeness(color, mask, views)
    return Cell(found["mesh_psnr_foreground"], found["mesh_silhouette_overlap"], seconds, peak_mb, watertight)


def over_white(color: Float[Tensor, "B 3 H W"], mask: Float[Tensor, "B 1 H W"]) -> Float[Tensor, "B 3 H W"]:
    return color * mask + 1.0 - mask


def own_outline(trial: LoadedTrial) -> tuple[Float[Tensor, "B 3 H W"], Float[Tensor, "B 1 H W"]]:
    """What a surface with the volume's own outline and colours would show: no mesh can be much more alike."""
    fine = held_out(trial, PIXELS * SUPERSAMPLE)
    mask = (fine.opacity > 0.5).float()
    color = over_white(fine.own_color(LEAST_OPACITY), mask)
    return F.avg_pool2d(color, SUPERSAMPLE), F.avg_pool2d(mask, SUPERSAMPLE)


def sharp_volume(exporter: MeshExporter, solid: Solid) -> Solid:
    """The scene as the exporter sharpens it."""
    box = object_box(SceneField.of(solid), None)
    fit = framed_views(solid, fitting_cameras(box, exporter.cfg.fit_count, exporter.cfg.fit_size))
    return exporter.sharp(solid, fit, float(box.extent.max()))


def sharpened_alone(exporter: MeshExporter, solid: Solid) -> MadeAsset:
    """The mesh of a thin volume: level by silhouettes, colours along normals."""
    return MeshExporter(replace(exporter.cfg, fit_count=0)).make(sharp_volume(exporter, solid), {})


def read_cells(path: Path, resolution: int) -> dict[str, dict[str, Cell]]:
    """Cells by change, by trial; nothing where there is no file, or one of another resolution."""
    content = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    if content.get("resolution") != resolution:
        return {}
    trials = content["trials"].items()
    return {trial: {change: Cell(**figures) for change, figures in cells.items()} for trial, cells in trials}


def write_cells(path: Path, cells: dict[str, dict[str, Cell]], resolution: int) -> None:
    content = {trial: {change: vars(one) for change, one in row.items()} for trial, row in cells.items()}
    write_json(path, {"resolution": resolution, "torch": torch.__version__, "trials": content})


def report(cells: dict[str, dict[str, Cell]]) -> str:
    """PSNR on the object of every change by trial with the mean, and what the shipped settings reach."""
    names = [name.split("@")[0].replace("_", " ") for name in cells]
    rows = []
    for change in (SHIPPED, TRUE_COLOR, OWN_OUTLINE, SHARP_VOLUME, *list(CHANGES)[1:]):
        found = [row.get(change) for row in cells.values()]
        known = [one.psnr_db for one in found if one is not None]
        if known:
            mean = f"{sum(known) / len(known):.1f}" if len(known) == len(cells) else "-"
            rows.append([change, *("-" if one is None else f"{one.psnr_db:.1f}" for one in found), mean])
    lines = [table(["dB on the object", *names, "mean"], rows), ""]
    shipped = [(name, row[SHIPPED]) for name, row in zip(names, cells.values(), strict=True) if SHIPPED in row]
    head = [SHIPPED, "dB", "overlap", "seconds", "peak MB", "closed"]
    figures = [[name, *figures_of(one)] for name, one in shipped]
    reached = sum(c.psnr_db >= AIM_DB and c.overlap >= AIM_OVERLAP for _, c in shipped)
    aim = f"{reached} of {len(shipped)} reach {AIM_DB:g} dB on the object and an overlap of {AIM_OVERLAP:g}."
    return "\n".join([*lines, table(head, figures), "", aim])


def figures_of(one: Cell) -> list[str]:
    closed = "yes" if one.watertight else "no"
    return [f"{one.psnr_db:.1f}", f"{one.overlap:.3f}", f"{one.seconds:.0f}", f"{one.peak_mb:.0f}", closed]

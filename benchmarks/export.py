"""How exact, fast and large an export is: python benchmarks/export.py [TRIAL ... | --config YAML --resume CHECKPOINT].

Without arguments, spheres, tori and boxes of known size: volume, Chamfer distance, orientation, and the baked texture
against the albedo. With a checkpoint, its scene at several resolutions: seconds, peak memory, and the PSNR between the
mesh and the scene. With the folders of trials, or of a sweep: what an export of each loses, by changing one setting at
a time (`export_table`). A stopped table goes on where it was: cells that ``--cells`` holds are not measured again.
Each export runs in a process of its own; where seconds count, nothing else may run meanwhile.
"""

# ruff: noqa: T201  a benchmark prints

from __future__ import annotations

import argparse
import json
import math
import multiprocessing
import resource
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "tests"))

import numpy as np
import torch
from export_table import CHANGES, measured, read_cells, report, titled, trials_in, write_cells

PROJECT = Path(__file__).resolve().parent.parent
GRID = 256  # of the table of changes
SHAPES = {
    "sphere": 4.0 / 3.0 * math.pi * 0.5**3,
    "torus": 2.0 * math.pi**2 * 0.4 * 0.15**2,
    "box": 8.0 * 0.4 * 0.3 * 0.2,
}
SAMPLES = 100_000


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("trials", nargs="*", type=Path, help="folders of trials, or of a sweep")
    parser.add_argument("--changes", nargs="*", default=list(CHANGES), choices=list(CHANGES), metavar="CHANGE")
    parser.add_argument("--cells", type=Path, default=PROJECT / "outputs" / "export" / "cells.json")
    parser.add_argument("--config", help="the trial's configs/parsed.yaml")
    parser.add_argument("--resume", help="its checkpoint")
    parser.add_argument("--resolutions", type=int, nargs="+", default=[128, 192, 256, 512])
    parser.add_argument("--threads", type=int, default=2)
    arguments = parser.parse_args()
    if (arguments.config is None) != (arguments.resume is None):
        parser.error("--config and --resume go together")
    if arguments.trials:
        return print_changes(arguments)
    rows = []
    for resolution in arguments.resolutions:
        if arguments.config is None:
            rows += [isolated(analytic, shape, resolution, arguments.threads) for shape in SHAPES]
        else:
            rows.append(isolated(trained, arguments.config, arguments.resume, resolution, arguments.threads))
    print_table(rows)


def print_changes(arguments: argparse.Namespace) -> None:
    """Measure the cells that are missing, trial by trial, and print the tables of all that were asked for."""
    trials = trials_in(arguments.trials)
    if not trials:
        raise SystemExit(f"no finished trial in {', '.join(map(str, arguments.trials))}: each needs ckpts/last.ckpt")
    resolution = arguments.resolutions[0] if len(arguments.resolutions) == 1 else GRID
    cells = read_cells(arguments.cells, resolution)
    for trial in trials:
        row = cells.setdefault(trial.name, {})
        for change in arguments.changes:
            if change not in row:
                row |= isolated(measured, str(trial), change, resolution, arguments.threads)
                arguments.cells.parent.mkdir(parents=True, exist_ok=True)
                write_cells(arguments.cells, cells, resolution)
                print(f"{trial.name}, {change}: {row[change].psnr_db:.1f} dB", file=sys.stderr, flush=True)
    print(report({titled(trial): cells[trial.name] for trial in trials}))


def isolated(function: Any, *arguments: Any) -> dict[str, Any]:
    """Run in a fresh process, so that memory is that of one export."""
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        return pool.apply(function, arguments)


def analytic(shape: str, resolution: int, threads: int) -> dict[str, Any]:
    import export_scenes

    from distill3d.export.exporter import MeshExporter
    from distill3d.export.surface.extraction import find_surface

    torch.set_num_threads(threads)
    distance = getattr(export_scenes, shape)
    renderer = export_scenes.MarchingRenderer(export_scenes.AnalyticGeometry(distance), steps=64)
    exporter = MeshExporter(MeshExporter.Config(resolution=resolution, threshold=1000.0, view_count=1, view_size=16))
    start = time.perf_counter()
    found = find_surface(renderer, exporter.surface_settings(renderer))
    asset, _ = exporter.colored(found, {})
    seconds = time.perf_counter() - start
    points = random_points(np.concatenate([asset.vertices, asset.uv], axis=1), asset.faces)
    return {
        "scene": shape,
        "resolution": resolution,
        "seconds": seconds,
        "peak MB": peak_megabytes(),
        "faces": len(asset.faces),
        "closed": found.figures["watertight"],
        "volume %": 100.0 * (found.surface.volume / SHAPES[shape] - 1.0),
        "distance/voxel": float(distance(points[:, :3]).abs().mean()) / float(found.figures["voxel"]),
        "texture/255": texture_error(asset, points, export_scenes.smooth_colors),
    }


def trained(config: str, checkpoint: str, resolution: int, threads: int) -> dict[str, Any]:
    from distill3d.config.experiment import build, load
    from distill3d.config.registry import find
    from distill3d.runtime.checkpoint import read_checkpoint

    experiment = load(config).experiment
    kind = find("system", experiment.system_type)
    system = kind(build(kind.Config, experiment.system, "system"), seed=experiment.seed)
    content = read_checkpoint(checkpoint)
    system.on_load_checkpoint(content)
    system.load_state_dict(content["state_dict"])
    return {
        "scene": experiment.prompt,
        "resolution": resolution,
        **exported(system.scene.surface(), resolution, threads),
    }


def exported(solid: Any, resolution: int, threads: int) -> dict[str, Any]:
    """One export into a folder that is thrown away, and what it took."""
    from distill3d.export.exporter import MeshExporter

    torch.set_num_threads(threads)
    exporter = MeshExporter(MeshExporter.Config(resolution=resolution))
    with tempfile.TemporaryDirectory() as folder:
        start = time.perf_counter()
        result = exporter.export(solid, Path(folder), {"prompt": "benchmark"})
        seconds = time.perf_counter() - start
        megabytes = result.files[0].stat().st_size / 1e6
    figures = result.figures
    return {
        "seconds": seconds,
        **{name.removeprefix("seconds_"): figures[name] for name in figures if name.startswith("seconds_")},
        "peak MB": peak_megabytes(),
        "GLB MB": megabytes,
        "faces": figures["faces"],
        "closed": figures["watertight"],
        "PSNR dB": figures["mesh_psnr"],
        "PSNR object dB": figures["mesh_psnr_foreground"],
    }


def peak_megabytes() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024.0


def random_points(attributes: np.ndarray, faces: np.ndarray) -> torch.Tensor:
    """Uniform on the surface; the first three attributes are the position."""
    from distill3d.export.surface.mesh import Surface, face_normals

    draw = np.random.default_rng(0)
    area = np.linalg.norm(face_normals(Surface(attributes[:, :3], faces)), axis=1)
    chosen = draw.choice(len(area), SAMPLES, p=area / area.sum())
    weights = draw.dirichlet((1.0, 1.0, 1.0), SAMPLES).astype(np.float32)
    return torch.from_numpy(np.einsum("pk,pka->pa", weights, attributes[faces[chosen]]))


def texture_error(asset: Any, points: torch.Tensor, albedo: Any) -> float:
    """Mean difference between the texture, looked up bilinearly at surface points, and the albedo there."""
    texture = torch.from_numpy(asset.base_color.copy()).permute(2, 0, 1)[None].float()
    seen = torch.nn.functional.grid_sample(texture, 2.0 * points[None, None, :, 3:] - 1.0, align_corners=False)
    return float((seen[0, :, 0].T - 255.0 * albedo(points[:, :3])).abs().mean())


def print_table(rows: list[dict[str, Any]]) -> None:
    columns = list(rows[0])
    text = [[f"{row[c]:.3g}" if isinstance(row[c], float) else str(row[c]) for c in columns] for row in rows]
    widths = [max(len(c), *(len(line[i]) for line in text)) for i, c in enumerate(columns)]
    for line in [columns, *text]:
        print("  ".join(cell.rjust(width) for cell, width in zip(line, widths, strict=True)))
    print(json.dumps({"torch": torch.__version__, "rows": rows}))


if __name__ == "__main__":
    main()

"""What the pipeline makes of a perfect prior: objects with known meshes under the exact prior of their views.

    python benchmarks/exact.py --jobs 2    # eight objects x text, view words, camera x SDS, LMC-SDS
    python benchmarks/exact.py --objects car duck --conditions camera --rules sds
    python benchmarks/exact.py --meshes FOLDER --set system.loss.lambda_sds=20 --name heavier
    python benchmarks/exact.py --among-all --rules sds lmc-sds csd nfsd vsd ism sdi --scales 0 1 10 --name rules
    python benchmarks/exact.py --name splats --against shipped --set system.scene_type=splats    # both in one table

Each training is a line of OUT/exact.jsonl, and is not done again; views and trials are in WORK. Figures are means over
held-out views: IoU of the silhouettes, PSNR of the albedo where object or truth is (before grey), Chamfer distance
between visible surfaces in per cent of the diagonal, the Janus rate, high frequencies and saturation as shares of the
truth's, and seconds of training. Meshes for these figures need no texture, so the export is a short one (EXPORT).
"""

from __future__ import annotations

import argparse
import hashlib
import itertools
import json
import logging
import math
import os
import shutil
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from claims import claim_records
from exact_claims import claims_of
from exact_objects import OBJECTS
from exact_report import Row, beside, read_rows, report, write_sheet
from ledger import append
from pool import at_once
from truth import (
    albedo_psnr_db,
    around,
    chamfer_percent,
    detail_ratio,
    janus_rate,
    kilobytes,
    over_grey,
    saturation_ratio,
    scene_views,
    silhouette_iou,
)

from distill3d import cli
from distill3d.camera import random_cameras, ranges_of
from distill3d.data.mesh_file import SUFFIXES, load_mesh_file
from distill3d.data.posed.files import training_views
from distill3d.data.posed.write import write_posed_images
from distill3d.evaluation.loaded_trial import LoadedTrial, load_trial
from distill3d.evaluation.render_views import RenderViewsSettings, mesh_views, view_cameras
from distill3d.runtime.files import write_atomically, write_json
from distill3d.runtime.pictures import contact_sheet, write_png
from distill3d.runtime.rng import rng
from distill3d.scenes.mesh.raster import Mesh

RESULTS = Path(__file__).parent / "results"
CONFIGS = {"sds": "dreamfusion-exact.yaml", "lmc-sds": "dreamfusion-lmc-exact.yaml"}
RULES = (*CONFIGS, "csd", "nfsd", "vsd", "ism", "sdi")
CONDITIONS = ("text", "view-words", "camera")
EXPORT = tuple(f"system.exporter.{one}" for one in ("resolution=96", "mode=vertex", "viewer=false"))
VIEWS = 640
HELD_OUT = 24  # views that no prior saw
TURNS = 24  # views of the truth around it, among which a Janus view is looked for
SHIPPED = "shipped"  # the name of the configs' own settings
SHEET = "views.png"  # of each trial: the truth over what was made of it


def main(arguments: Sequence[str] | None = None) -> int:
    args = parse(arguments)
    out, work = Path(args.out), Path(args.work)
    ledger = out / "exact.jsonl"
    meshes = chosen_meshes(args)
    views = {name: rendered(work, name, mesh, args.views) for name, mesh in meshes.items()}
    cells: dict[str, Cell] = {}  # by key
    known = tuple(views) if args.among_all else ()
    for seed, name, *about in itertools.product(args.seeds, meshes, args.conditions, args.rules, args.scales):
        cell = Cell(args.name, name, *about, tuple(args.set), known, seed)
        cells[row_key(cell, args.views)] = cell
    done = {row.key for row in read_rows(ledger)}
    waiting = [(cell, key) for key, cell in cells.items() if key not in done]
    begun, bench = time.monotonic(), Bench(work, meshes, views)
    for count, row in enumerate(at_once(train_and_measure, bench, waiting, math.inf, args.jobs), 1):
        append(ledger, asdict(row))
        left = (time.monotonic() - begun) / count * (len(waiting) - count) / 60
        sys.stderr.write(f"{json.dumps(asdict(row))}\n{count} of {len(waiting)}, {left:.0f} minutes left\n")
    by_key = {row.key: row for row in read_rows(ledger)}
    rows = [by_key[key] for key in cells]
    if args.against:
        sys.stdout.write(beside(read_rows(ledger), [args.against, args.name]) + "\n")
    stem = "exact" if args.name == SHIPPED else f"exact-{args.name}"
    parts = claims_of(rows)
    write_atomically(out / f"{stem}.md", report(rows, command(args), args.set, parts))
    if parts:
        write_json(out / f"{stem}.json", {"claims": {part: claim_records(own) for part, own in parts.items()}})
    sheets = [work / "exact-trials" / row.key / SHEET for row in rows]
    if all(sheet.is_file() for sheet in sheets):  # else the picture of those trainings stays
        write_sheet(out / f"{stem}.jpg", sheets)
    return 0


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--objects", nargs="*", default=None, help=f"of {', '.join(OBJECTS)}; none with --meshes")
    parser.add_argument("--meshes", nargs="*", default=[], help="mesh files, or folders of them")
    parser.add_argument("--up", default="auto", choices=("auto", "y", "z"), help="axis of the mesh files")
    parser.add_argument("--conditions", nargs="+", default=list(CONDITIONS), choices=CONDITIONS)
    parser.add_argument("--rules", nargs="+", default=list(CONFIGS), choices=RULES)
    parser.add_argument("--scales", nargs="+", type=float, default=[None], help="of the guidance; the config's")
    parser.add_argument("--seeds", nargs="+", type=int, default=[0])
    parser.add_argument("--among-all", action="store_true", help="the prior knows all objects, and goes by the caption")
    parser.add_argument("--views", type=int, default=VIEWS)
    parser.add_argument("--set", nargs="*", default=[], help="settings of the experiment, key=value")
    parser.add_argument("--jobs", type=int, default=1, help="trainings at once")
    parser.add_argument("--name", default=SHIPPED, help="of these settings, in the table")
    parser.add_argument("--against", default="", help="the name of other settings, to print beside these")
    parser.add_argument("--out", default=str(RESULTS), help="of the ledger, the table and the picture")
    parser.add_argument("--work", default="outputs/exact", help="of views and trials")
    args = parser.parse_args(arguments)
    unknown = [name for name in args.objects or () if name not in OBJECTS]
    if unknown:
        parser.error(f"--objects {' '.join(unknown)}: choose of {', '.join(OBJECTS)}, or give files with --meshes")
    return args


# -- objects ---------------------------------------------------------------------------------------------------------


def chosen_meshes(args: argparse.Namespace) -> dict[str, Mesh]:
    """Meshes by name, centred, their farthest vertex at 0.5."""
    names = args.objects if args.objects is not None else ([] if args.meshes else list(OBJECTS))
    meshes = {name: OBJECTS[name]().normalized() for name in names}
    for given in map(Path, args.meshes):
        files = sorted(p for p in given.rglob("*") if p.suffix.lower() in SUFFIXES) if given.is_dir() else [given]
        meshes |= {f"{file.parent.name} {file.stem}": load_mesh_file(file, args.up) for file in files}
    return meshes


def rendered(work: Path, name: str, mesh: Mesh, count: int) -> Path:
    """The folder of the object's views, written where it is not there yet."""
    folder = work / "exact-views" / f"{name.replace(' ', '_')}-{count}"
    if not folder.is_dir():
        settings = RenderViewsSettings(train_views=count, test_views=HELD_OUT)
        splits = {
            split: mesh_views(mesh, view_cameras(settings, n, i), "albedo")
            for i, (split, n) in enumerate((("train", count), ("test", HELD_OUT)))
        }
        write_posed_images(folder, splits, name, caption=name)
    return folder


# -- one training ----------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Bench:
    """What all trainings share: objects and the folders of their views, by name."""

    work: Path
    meshes: Mapping[str, Mesh]
    views: Mapping[str, Path]


@dataclass(frozen=True)
class Cell:
    """What is trained: an object, what the prior is told of it, and by which rule."""

    name: str  # of the settings
    object: str
    condition: str
    rule: str
    scale: float | None
    settings: tuple[str, ...]
    known: tuple[str, ...] = ()  # the objects that the prior knows, where it knows more than this one
    seed: int = 0

    @property
    def config(self) -> str:
        return CONFIGS.get(self.rule, CONFIGS["sds"])

    def overrides(self) -> list[str]:
        rule = [] if self.rule in CONFIGS else [f"system.guidance_type={self.rule}"]
        scale = [] if self.scale is None else [f"system.guidance.guidance_scale={self.scale:g}"]
        seed = [f"seed={self.seed}"] if self.seed else []
        return [*rule, *scale, *seed, *EXPORT, *self.settings]


def train_and_measure(bench: Bench, cell: Cell, key: str) -> Row:
    logging.getLogger("distill3d").setLevel(logging.WARNING)
    root, views = bench.work / "exact-trials" / key, bench.views[cell.object]
    shutil.rmtree(root, ignore_errors=True)  # of a training that was stopped
    known = "[" + ", ".join(str(bench.views[name]) for name in cell.known or (cell.object,)) + "]"
    given = [
        f"system.prior.views={known}",
        f"data.cameras_like={views}",
        f"system.prior.condition={cell.condition}",
        "trainer.enable_progress_bar=false",
        f"system.prompt_processor.prompt={cell.object}",
        f"exp_root_dir={root}",
        "data.n_test_views=1",
        *cell.overrides(),
    ]
    before = dict(os.environ)
    status = cli.main(["--config", cell.config, "--train", *given])
    os.environ.clear()
    os.environ.update(before)
    if status != 0:
        raise RuntimeError(f"the training of {cell.object} ({cell.condition}, {cell.rule}) failed")
    metrics = json.loads(next(root.rglob("metrics.json")).read_text(encoding="utf-8"))
    trial = load_trial(next(root.rglob("metrics.json")).parent)
    figures = measure(trial, bench.meshes[cell.object], views, root / SHEET)
    seconds = metrics["seconds_per_step"]["total"] * metrics["steps"]
    about = (cell.name, cell.object, cell.condition, cell.rule)
    measured = {**figures, "seconds": round(seconds, 1), "kilobytes": kilobytes(trial.trial)}
    return Row(*about, **measured, key=key, scale=cell.scale, seed=cell.seed)


@torch.no_grad()
def measure(trial: LoadedTrial, mesh: Mesh, views: Path, sheet: Path) -> dict[str, float]:
    """Every figure but the time, and a picture: the truth over what was made of it."""
    ranges = ranges_of(training_views(views, "--out").cameras)
    held_out = random_cameras(ranges, HELD_OUT, 64, 64, rng("camera", 0, 1), stratified_azimuth=True)
    truth, made = mesh_views(mesh, held_out, "albedo"), scene_views(trial, held_out)
    turns = around(TURNS, ranges.camera_distance_range[1], ranges.fovy_range[1])
    true_turns, made_turns = mesh_views(mesh, turns, "albedo"), scene_views(trial, turns)
    picks = slice(0, TURNS, TURNS // 8)
    write_png(sheet, contact_sheet([over_grey(true_turns)[picks], over_grey(made_turns)[picks]]))
    return {
        "iou": round(silhouette_iou(made.alpha, truth.alpha), 4),
        "chamfer_percent": round(chamfer_percent(trial, mesh), 3),
        "psnr_db": round(albedo_psnr_db(made, truth), 2),
        "janus": round(janus_rate(over_grey(made_turns), over_grey(true_turns)), 3),
        "detail": round(detail_ratio(made, truth), 3),
        "saturation": saturation_ratio(made, truth),
    }


def row_key(cell: Cell, views: int) -> str:
    """The same for the same training, whatever its settings are named."""
    about = [cell.object, cell.condition, cell.rule, sorted(cell.overrides()), views, config_text(cell.config)]
    content = json.dumps([*about, *cell.known])
    return hashlib.blake2b(content.encode(), digest_size=8).hexdigest()


def config_text(config: str) -> str:
    """The experiment as it is now: other settings are other trainings."""
    from distill3d.config.experiment import load

    experiment = load(config, ["system.prior.views=."], check=False).experiment
    return json.dumps([experiment.system, experiment.data, experiment.trainer], sort_keys=True, default=str)


def command(args: argparse.Namespace) -> str:
    """What would write the table again, but for --set, which stands below it."""
    lists = {name: getattr(args, name) for name in ("objects", "conditions", "rules", "scales", "seeds")}
    usual = {"objects": None, "conditions": list(CONDITIONS), "rules": list(CONFIGS), "scales": [None], "seeds": [0]}
    parts = [f"--{key} {' '.join(map(str, value))}" for key, value in lists.items() if value != usual[key]]
    parts += ["--among-all"] if args.among_all else []
    parts += [f"--views {args.views}"] if args.views != VIEWS else []
    parts += [f"--name {args.name}"] if args.name != SHIPPED else []
    return " ".join(["python benchmarks/exact.py", *parts])


if __name__ == "__main__":
    begun = time.monotonic()
    status = main()
    sys.stderr.write(f"{time.monotonic() - begun:.0f} s\n")
    raise SystemExit(status)

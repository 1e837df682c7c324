r"""Text to 3D over the words of the prior: python benchmarks/text_to_3d.py [--config dreamfusion-lmc.yaml] [--jobs 2].

Every tenth noun of the embedded prior (``--every 1``: all), then as many of the combinations that it never saw of nouns
that it knows, one config, one seed. All contact sheets, failures included, and the judge's ranks go to
benchmarks/results/. With ``--assets``, the folder of meshes that the prior was taught, so do F-scores of the exported
meshes and the albedo's PSNR; and what a person saw, from text_to_3d_by_eye.json there (prompt: yes, half or no). A
stopped run resumes, and ``--report`` writes the tables of what it has made. ``--against FILE`` (text_to_3d.json of
another config) also writes both side by side, for the prompts that both have, to against.md:

    python benchmarks/text_to_3d.py --every 1 --jobs 2 --assets FOLDER
    python benchmarks/text_to_3d.py --every 6 --jobs 2 --assets FOLDER --config splats-lmc.yaml \
        --results benchmarks/results/splats --against benchmarks/results/text_to_3d.json
    python benchmarks/text_to_3d.py --pairs 16 --jobs 2 --assets FOLDER --results benchmarks/results/pairs
"""

# ruff: noqa: T201  a benchmark prints

from __future__ import annotations

import argparse
import itertools
import json
import logging
import random
import re
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import numpy as np
import torch
from PIL import Image, ImageDraw
from tables import table
from truth import (
    albedo_psnr_db,
    around,
    detail_ratio,
    exported_mesh,
    f_score,
    kilobytes,
    saturation_ratio,
    scene_views,
    silhouette_iou,
)

from distill3d.config.files import EMBEDDED_WEIGHTS
from distill3d.config.yaml_text import dump_yaml
from distill3d.data.assets import load_mesh, read_index
from distill3d.embedded.captions import RELATIONS, SceneCaption, Thing, with_article
from distill3d.embedded.judge import Judge, load_judge
from distill3d.embedded.mesh_scenes import read_held_out
from distill3d.evaluation.evaluation import evaluate_folder
from distill3d.evaluation.loaded_trial import load_trial
from distill3d.evaluation.render_views import mesh_views
from distill3d.evaluation.samples import read_strip
from distill3d.priors.parts import pair_of, read_extents
from distill3d.runtime.files import write_atomically, write_json
from distill3d.runtime.logs import set_up_logging
from distill3d.scenes.mesh.raster import Mesh
from distill3d.sweep.local import LocalEngine
from distill3d.sweep.loop import Sweep
from distill3d.sweep.plan import make_plan

PROJECT = Path(__file__).resolve().parent.parent
WORDS = PROJECT / "distill3d" / "embedded" / "weights" / "words.json"
PROMPT = "system.prompt_processor.prompt"
LEAST_F_SCORE, LEAST_PSNR_DB = 0.6, 17.0  # the aims
LEAST_MESH_DB, LEAST_OVERLAP = 24.0, 0.97  # of the mesh against the volume
VIEWS = 8  # of which the albedo is compared
LABEL_HEIGHT = 16


@dataclass(frozen=True)
class Result:
    """What became of a prompt. Ranks are over views, 1 is best, among all nouns and the combinations."""

    prompt: str
    median_rank: float
    worst_rank: int
    top_nouns: list[str]  # most often first among the views, by the judge
    f_score: float | None  # against the mesh that the prior was taught; None without one
    psnr_db: float | None  # of the albedo on the object, against the same
    by_eye: str  # yes, half, no, or nothing
    mesh_db: float | None  # PSNR of the exported mesh against the volume, on the object
    overlap: float | None  # of their outlines
    seconds: float
    warnings: list[str]
    pictures: list[str]
    iou: float | None = None  # of the silhouettes, against the mesh
    kilobytes: float | None = None  # of the file that holds the scene
    detail: float | None = None  # high frequencies over the mesh's
    saturation: float | None = None  # over the mesh's

    @property
    def label(self) -> str:
        shape = "" if self.f_score is None else f", F {self.f_score:.2f}"
        albedo = "" if self.psnr_db is None else f", {self.psnr_db:.1f} dB"
        return f"{self.prompt}: median rank {self.median_rank:g}{shape}{albedo}; by eye {self.by_eye or '-'}"


def combinations() -> list[str]:
    """The colours, materials and pairs that neither the prior nor the judge was taught."""
    return [scene.text() for scene in read_held_out().scenes()]


def pairs_of(nouns: Sequence[str], count: int, seed: int = 0) -> list[str]:
    """Pairs of different nouns, on top of and next to each other in turn, drawn alike every time."""
    draw = random.Random(seed)
    drawn = [draw.sample(nouns, 2) for _ in range(count)]
    relations = itertools.cycle(("on top of", "next to"))
    return [
        SceneCaption(Thing(a), relation, Thing(b)).text() for (a, b), relation in zip(drawn, relations, strict=False)
    ]


def prompts_of(nouns: Sequence[str], every: int = 10) -> list[str]:
    """Every so many nouns by rank, from the first on, then as many of the combinations of nouns that are among them."""
    scenes = [scene for scene in read_held_out().scenes() if {thing.noun for thing in scene.things} <= set(nouns)]
    return [with_article(noun) for noun in nouns[::every]] + [scene.text() for scene in scenes][::every]


def without_paths(error: str) -> str:
    """An error as a table may show it anywhere: the last part of each path alone."""
    return re.sub(r"/\S*/", "", error)


def taught_mesh(prompt: str, assets: Path | None) -> Mesh | None:
    """The first mesh of the noun that a prompt names and nothing else, or those of the two that it names, placed.

    None for others, or without a folder. Two are placed as the embedded prior places what it knows of them.
    """
    if assets is None:
        return None
    pair = pair_of(prompt, read_extents(EMBEDDED_WEIGHTS))
    if pair is None:
        found = [entry for entry in read_index(assets) if with_article(entry.noun) == prompt]
        return load_mesh(min(found, key=lambda entry: entry.variant)) if found else None
    objects = [(taught_mesh(part.text, assets), part) for part in (pair.first, pair.second)]
    placed = [mesh.transformed(part.scale, part.center) for mesh, part in objects if mesh is not None]
    return Mesh.merged(placed) if len(placed) == 2 else None


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--config", default="dreamfusion-lmc.yaml")
    parser.add_argument("--jobs", type=int, default=1)
    parser.add_argument("--every", type=int, default=10, help="every so many nouns by rank; 1: all")
    parser.add_argument("--pairs", type=int, help="instead of the nouns so many pairs of them, drawn by chance")
    parser.add_argument("--assets", type=Path, help="the folder of meshes that the prior was taught, for F-scores")
    parser.add_argument("--out", type=Path, default=PROJECT / "outputs" / "text-to-3d")
    parser.add_argument("--results", type=Path, default=PROJECT / "benchmarks" / "results")
    parser.add_argument(
        "--report", nargs="?", const="", metavar="SWEEP", help="train nothing; report what this sweep has so far"
    )
    parser.add_argument("--against", type=Path, help="text_to_3d.json of another config, to print beside this one")
    parser.add_argument("--picture", type=Path, help="also write four sides of the --chosen prompts here")
    parser.add_argument("--chosen", nargs="*", default=[], help="prompts, for --picture")
    parser.add_argument("settings", nargs="*", help="key=value, for all runs")
    given = parser.parse_args()
    set_up_logging()
    nouns = json.loads(WORDS.read_text(encoding="utf-8"))["nouns"]
    prompts = prompts_of(nouns, given.every) if given.pairs is None else pairs_of(nouns, given.pairs)
    folder = train(given, prompts)
    seen = read_by_eye(given.results)
    content = json.loads((evaluate_folder(folder) / "evaluation.json").read_text(encoding="utf-8"))
    judge = load_judge()
    candidates = judge.captions + combinations()
    exported = lambda run: any((folder / "runs" / run["id"]).glob("save/*export/model.glb"))  # noqa: E731
    made = [run for run in content["runs"] if not run.get("error") and exported(run)]
    results = [judged(run, folder / "runs" / run["id"], judge, candidates, given.assets, seen) for run in made]
    failed: dict[str, list[str]] = {}
    for run in content["runs"]:
        if run not in made:
            error = run.get("error") or "without a mesh"
            why = "not run" if error.endswith("not finished") else without_paths(error)
            failed.setdefault(why, []).append(run["prompt"])
    write(given, results, failed)
    if given.against:
        both = beside(json.loads(given.against.read_text(encoding="utf-8")), given.config, results)
        write_atomically(given.results / "against.md", f"# Two configs side by side\n\n{both}\n")
        print(both)
    if given.picture:
        by_prompt = {result.prompt: Path(result.pictures[0]) for result in results}
        four_sides([by_prompt[prompt] for prompt in given.chosen]).save(given.picture, quality=90)


def four_sides(strips: Sequence[Path]) -> Image.Image:
    """Every second view of each strip, one object below the other in two columns."""
    rows = [
        np.concatenate(list((read_strip(path).permute(0, 2, 3, 1).numpy() * 255).astype(np.uint8)[::2]), 1)
        for path in strips
    ]
    columns = [np.concatenate(rows[i::2], 0) for i in range(min(2, len(rows)))]
    return Image.fromarray(np.concatenate(columns, 1))


def train(given: argparse.Namespace, prompts: list[str]) -> Path:
    """One run for each prompt, none where only a report is asked for; returns the sweep's folder."""
    if given.report:
        return Path(given.report)
    given.out.mkdir(parents=True, exist_ok=True)
    config = given.out / "text-to-3d.yaml"
    base = str(PROJECT / "configs" / given.config)
    write_atomically(config, dump_yaml({"base": base, "name": "text-to-3d", "sweep": {"grid": {PROMPT: prompts}}}))
    plan = make_plan(config, [f"exp_root_dir={given.out}", *given.settings])
    if given.report is not None:
        return plan.folder.root
    outcome = Sweep(plan, LocalEngine(given.jobs)).run()
    for run, error in outcome.failed.items():
        logging.getLogger(__name__).warning("%s failed: %s", run, error)
    return plan.folder.root


def read_by_eye(results: Path) -> dict[str, str]:
    """What a person wrote of the sheets, by prompt; nothing where nobody did."""
    path = results / "text_to_3d_by_eye.json"
    return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}


@torch.no_grad()
def views_against(trial: Path, truth: Mesh) -> dict[str, float | None]:
    """What is measured of a trial's views around it against a mesh: the fields of `Result` by name."""
    cameras = around(VIEWS, 1.55, 39.0)
    made, meant = scene_views(load_trial(trial), cameras), mesh_views(truth, cameras, "albedo")
    return {
        "psnr_db": round(albedo_psnr_db(made, meant), 2),
        "iou": round(silhouette_iou(made.alpha, meant.alpha), 4),
        "detail": round(detail_ratio(made, meant), 3),
        "saturation": saturation_ratio(made, meant),
    }


def beside(other: dict, config: str, results: Sequence[Result]) -> str:
    """A line for each prompt that both have and config, and the means over these prompts."""
    theirs = {one["prompt"]: one for one in other["results"]}
    ours = {r.prompt: asdict(r) for r in results if r.prompt in theirs}
    columns = {"seconds": 0, "f_score": 2, "iou": 3, "psnr_db": 1, "detail": 2, "saturation": 2}
    columns |= {"median_rank": 1, "kilobytes": 0}

    def shown(rows: list[dict]) -> list[str]:
        values = [[row[name] for row in rows if row.get(name) is not None] for name in columns]
        return [f"{np.mean(v):.{d}f}" if v else "-" for v, d in zip(values, columns.values(), strict=True)]

    sides = ((other["config"], {prompt: theirs[prompt] for prompt in ours}), (config, ours))
    lines = [[f"mean of {len(ours)}", name, *shown(list(rows.values()))] for name, rows in sides]
    lines += [[prompt, name, *shown([rows[prompt]])] for prompt in ours for name, rows in sides]
    head = ("prompt", "config", "seconds", "F-score", "IoU", "albedo, dB", "detail", "saturation", "median rank", "kB")
    return table(head, lines)


def judged(
    run: dict, trial: Path, judge: Judge, candidates: list[str], assets: Path | None, seen: dict[str, str]
) -> Result:
    """The judge's ranks of the prompt over the views of a trial."""
    strip = trial / "evaluation" / "color.png"
    views = read_strip(strip)
    ranks = 1 + judge.rank_of(views, [run["prompt"]] * len(views), candidates)
    firsts = [names[0] for names in judge.top_nouns(views, 1)]
    truth = taught_mesh(run["prompt"], assets)
    figures = {"psnr_db": None} if truth is None else views_against(trial, truth)
    made = exported_mesh(trial)
    metrics = json.loads((trial / "metrics.json").read_text(encoding="utf-8"))
    return Result(
        prompt=run["prompt"],
        median_rank=float(ranks.float().median()),
        worst_rank=int(ranks.max()),
        top_nouns=sorted(set(firsts), key=lambda noun: (-firsts.count(noun), noun)),  # the same order each time
        f_score=None if truth is None or made is None else round(f_score(made, truth), 3),
        **figures,
        kilobytes=kilobytes(trial),
        by_eye=seen.get(run["prompt"], ""),
        mesh_db=_rounded(metrics["export"].get("mesh_psnr_foreground"), 1),
        overlap=_rounded(metrics["export"].get("mesh_silhouette_overlap"), 3),
        seconds=float(metrics["seconds_total"]),
        warnings=list(metrics.get("warnings", [])),
        pictures=[str(strip), str(strip.with_name("textureless.png"))],
    )


def _rounded(value: float | None, digits: int) -> float | None:
    return None if value is None else round(value, digits)


def write(given: argparse.Namespace, results: list[Result], failed: dict[str, list[str]]) -> None:
    """text_to_3d.{jpg,md,json}: all contact sheets, the table, the figures."""
    given.results.mkdir(parents=True, exist_ok=True)
    sheet(results).save(given.results / "text_to_3d.jpg", quality=70)
    lines = [
        f"# Text to 3D with configs/{given.config}",
        "",
        *summary(results),
        "",
        "| prompt | F-score | albedo, dB | by eye | median rank | worst rank | seen as | mesh, dB | outlines | seconds "
        "| warnings |",
        "|---|---|---|---|---|---|---|---|---|---|---|",
        *map(line, results),
        *(f"\n{len(prompts)} {why}: {', '.join(prompts)}." for why, prompts in failed.items()),
        "",
        "![all contact sheets](text_to_3d.jpg)",
        "",
    ]
    figures = [{key: value for key, value in asdict(r).items() if key != "pictures"} for r in results]
    write_atomically(given.results / "text_to_3d.md", "\n".join(lines))
    write_json(given.results / "text_to_3d.json", {"config": given.config, "results": figures})
    print("\n".join(lines))


def summary(results: list[Result]) -> list[str]:
    """How many reached the aims: F-score .6, albedo 17 dB, a yes by eye, the judge's first rank."""
    pairs = [result for result in results if is_pair(result.prompt)]
    known = [result for result in results if result.f_score is not None and result not in pairs]
    colors = [result for result in results if result not in pairs and result not in known]
    lines = []
    for name, group in (("nouns", known), ("unseen colours and materials", colors), ("pairs", pairs)):
        shape = sum((r.f_score or 0.0) >= LEAST_F_SCORE for r in group)
        both = sum((r.f_score or 0.0) >= LEAST_F_SCORE and (r.psnr_db or 0.0) >= LEAST_PSNR_DB for r in group)
        eye, half = (sum(r.by_eye == word for r in group) for word in ("yes", "half"))
        first = sum(r.median_rank == 1 for r in group)
        close = sum((r.mesh_db or 0.0) >= LEAST_MESH_DB for r in group)
        overlap = sum((r.overlap or 0.0) >= LEAST_OVERLAP for r in group)
        figures = f"F-score at least {LEAST_F_SCORE} for {shape}, and albedo at least {LEAST_PSNR_DB:g} dB for {both}; "
        figures = "" if group is colors else figures
        if group:
            lines.append(
                f"- {len(group)} {name}: {figures}by eye yes {eye}, half {half}; first for the judge: {first}; mesh "
                f"against volume at least {LEAST_MESH_DB:g} dB on the object for {close}, outlines overlap by at least "
                f"{LEAST_OVERLAP:.0%} for {overlap}."
            )
    return lines


def is_pair(prompt: str) -> bool:
    return any(f" {relation} " in prompt for relation in RELATIONS)


def line(r: Result) -> str:
    shape = "" if r.f_score is None else f"{r.f_score:.2f}"
    albedo = "" if r.psnr_db is None else f"{r.psnr_db:.1f}"
    ranks = f"{r.median_rank:g} | {r.worst_rank} | {', '.join(r.top_nouns[:3])}"
    mesh = f"{'' if r.mesh_db is None else r.mesh_db} | {'' if r.overlap is None else r.overlap}"
    warnings = "; ".join(r.warnings)
    return f"| {r.prompt} | {shape} | {albedo} | {r.by_eye} | {ranks} | {mesh} | {r.seconds:.0f} | {warnings} |"


def sheet(results: list[Result], columns: int = 2) -> Image.Image:
    """Each prompt's views, colour over textureless, under its label."""
    tiles = []
    for result in results:
        strips = [Image.open(path).convert("RGB") for path in result.pictures]
        width, height = min(strip.size for strip in strips)
        strips = [strip.resize((width, height), Image.Resampling.BICUBIC) for strip in strips]
        tile = Image.new("RGB", (width, LABEL_HEIGHT + height * len(strips)), "white")
        ImageDraw.Draw(tile).text((3, 2), result.label, fill="black")
        for i, strip in enumerate(strips):
            tile.paste(strip, (0, LABEL_HEIGHT + i * height))
        tiles.append(tile)
    width, height = tiles[0].size
    rows = -(-len(tiles) // columns)
    page = Image.new("RGB", (columns * width, rows * height), "white")
    for i, tile in enumerate(tiles):
        page.paste(tile, (i % columns * width, i // columns * height))
    return page


if __name__ == "__main__":
    main()

"""Text to 3D over the words of the prior: python benchmarks/text_to_3d.py [--config dreamfusion-lmc.yaml] [--jobs 2].

Every tenth noun of the embedded prior (``--every 1``: all), and five combinations that it never saw, one config, one
seed. All contact sheets, failures included, and the judge's ranks go to benchmarks/results/. With ``--assets``, the
folder of meshes that the prior was taught, so do F-scores of the exported meshes. A stopped run resumes, and
``--report`` writes the tables of what it has made.
"""

# ruff: noqa: T201  a benchmark prints

from __future__ import annotations

import argparse
import json
import logging
import re
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import numpy as np
from PIL import Image, ImageDraw

from distill3d.config.yaml_text import dump_yaml
from distill3d.data.assets import load_mesh, read_index, y_up_to_world
from distill3d.embedded.captions import with_article
from distill3d.embedded.judge import Judge, load_judge
from distill3d.evaluation.evaluation import evaluate_folder
from distill3d.evaluation.samples import read_strip
from distill3d.runtime.files import write_atomically, write_json
from distill3d.runtime.logs import set_up_logging
from distill3d.scenes.mesh.raster import Mesh
from distill3d.sweep.local import LocalEngine
from distill3d.sweep.loop import Sweep
from distill3d.sweep.plan import make_plan

PROJECT = Path(__file__).resolve().parent.parent
WORDS = PROJECT / "distill3d" / "embedded" / "weights" / "words.json"
PROMPT = "system.prompt_processor.prompt"
COMBINATIONS = (
    "a blue hamburger",
    "a purple pineapple",
    "a golden banana",
    "a frog on top of a hamburger",
    "a fox next to a pine tree",
)
LABEL_HEIGHT = 16


@dataclass(frozen=True)
class Result:
    """What became of a prompt. Ranks are over views, 1 is best, among all nouns and the combinations."""

    prompt: str
    median_rank: float
    worst_rank: int
    top_nouns: list[str]  # most often first among the views, by the judge
    f_score: float | None  # against the mesh that the prior was taught; None without one
    seconds: float
    warnings: list[str]
    pictures: list[str]

    @property
    def shape(self) -> str:
        return "" if self.f_score is None else f"{self.f_score:.2f}"

    @property
    def label(self) -> str:
        shape = f", F {self.shape}" if self.shape else ""
        ranks = f"median rank {self.median_rank:g}, worst {self.worst_rank}"
        return f"{self.prompt}: {ranks}; seen as {self.top_nouns[0]}{shape}"


def prompts_of(nouns: Sequence[str], every: int = 10) -> list[str]:
    """Every so many nouns by rank, from the first on, then the combinations."""
    return [with_article(noun) for noun in nouns[::every]] + list(COMBINATIONS)


def without_paths(error: str) -> str:
    """An error as a table may show it anywhere: the last part of each path alone."""
    return re.sub(r"/\S*/", "", error)


def taught_mesh(prompt: str, assets: Path | None) -> Mesh | None:
    """The first mesh of the noun that a prompt names and nothing else; None for others, or without a folder."""
    found = [] if assets is None else [a for a in read_index(assets) if with_article(a.noun) == prompt]
    return load_mesh(min(found, key=lambda asset: asset.variant)) if found else None


def exported_mesh(trial: Path) -> Mesh:
    """A trial's model.glb in the world frame."""
    import trimesh

    scene = trimesh.load(next(trial.glob("save/*export/model.glb")), force="mesh")
    vertices = y_up_to_world(np.asarray(scene.vertices, np.float32))
    return Mesh(vertices, np.asarray(scene.faces, np.int32), np.zeros_like(vertices))


def f_score(made: Mesh, truth: Mesh, share: float = 0.04, points: int = 6000) -> float:
    """Harmonic mean of precision and recall at ``share`` of the truth's diagonal, between points on both surfaces.

    No alignment: what stands elsewhere or looks the other way is wrong. Inner surfaces of the truth cannot be reached.
    """
    import trimesh
    from scipy.spatial import cKDTree

    surface = lambda mesh: trimesh.Trimesh(mesh.vertices, mesh.faces, process=False)  # noqa: E731
    samples = [trimesh.sample.sample_surface(surface(mesh), points, seed=i)[0] for i, mesh in enumerate((made, truth))]
    reach = share * float(np.linalg.norm(np.ptp(truth.vertices, axis=0)))
    precision, recall = (float((cKDTree(b).query(a)[0] < reach).mean()) for a, b in (samples, reversed(samples)))
    return 2.0 * precision * recall / max(precision + recall, 1e-9)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--config", default="dreamfusion-lmc.yaml")
    parser.add_argument("--jobs", type=int, default=1)
    parser.add_argument("--every", type=int, default=10, help="every so many nouns by rank; 1: all")
    parser.add_argument("--assets", type=Path, help="the folder of meshes that the prior was taught, for F-scores")
    parser.add_argument("--out", type=Path, default=PROJECT / "outputs" / "text-to-3d")
    parser.add_argument("--results", type=Path, default=PROJECT / "benchmarks" / "results")
    parser.add_argument("--report", action="store_true", help="train nothing; report what there is so far")
    parser.add_argument("settings", nargs="*", help="key=value, for all runs")
    given = parser.parse_args()
    set_up_logging()
    nouns = json.loads(WORDS.read_text(encoding="utf-8"))["nouns"]
    folder = train(given, prompts_of(nouns, given.every))
    content = json.loads((evaluate_folder(folder) / "evaluation.json").read_text(encoding="utf-8"))
    judge = load_judge()
    exported = lambda run: any((folder / "runs" / run["id"]).glob("save/*export/model.glb"))  # noqa: E731
    made = [run for run in content["runs"] if not run.get("error") and exported(run)]
    results = [judged(run, folder / "runs" / run["id"], judge, given.assets) for run in made]
    failed = [f"{run['prompt']}: {without_paths(run['error'])}" for run in content["runs"] if run.get("error")]
    write(given, results, failed)


def train(given: argparse.Namespace, prompts: list[str]) -> Path:
    """One run for each prompt, none where only a report is asked for; returns the sweep's folder."""
    given.out.mkdir(parents=True, exist_ok=True)
    config = given.out / "text-to-3d.yaml"
    base = str(PROJECT / "configs" / given.config)
    write_atomically(config, dump_yaml({"base": base, "name": "text-to-3d", "sweep": {"grid": {PROMPT: prompts}}}))
    plan = make_plan(config, [f"exp_root_dir={given.out}", *given.settings])
    if given.report:
        return plan.folder.root
    outcome = Sweep(plan, LocalEngine(given.jobs)).run()
    for run, error in outcome.failed.items():
        logging.getLogger(__name__).warning("%s failed: %s", run, error)
    return plan.folder.root


def judged(run: dict, trial: Path, judge: Judge, assets: Path | None) -> Result:
    """The judge's ranks of the prompt over the views of a trial."""
    strip = trial / "evaluation" / "color.png"
    views = read_strip(strip)
    candidates = [with_article(noun) for noun in judge.config.nouns] + list(COMBINATIONS)
    ranks = 1 + judge.rank_of(views, [run["prompt"]] * len(views), candidates)
    firsts = [names[0] for names in judge.top_nouns(views, 1)]
    truth = taught_mesh(run["prompt"], assets)
    metrics = json.loads((trial / "metrics.json").read_text(encoding="utf-8"))
    return Result(
        prompt=run["prompt"],
        median_rank=float(ranks.float().median()),
        worst_rank=int(ranks.max()),
        top_nouns=sorted(set(firsts), key=lambda noun: -firsts.count(noun)),
        f_score=None if truth is None else f_score(exported_mesh(trial), truth),
        seconds=float(metrics["seconds_total"]),
        warnings=list(metrics.get("warnings", [])),
        pictures=[str(strip), str(strip.with_name("textureless.png"))],
    )


def write(given: argparse.Namespace, results: list[Result], failed: list[str]) -> None:
    """text_to_3d.{jpg,md,json}: all contact sheets, the table, the figures."""
    given.results.mkdir(parents=True, exist_ok=True)
    sheet(results).save(given.results / "text_to_3d.jpg", quality=80)
    first = sum(result.median_rank == 1 for result in results)
    lines = [
        f"# Text to 3D with configs/{given.config}",
        "",
        f"{len(results)} prompts, one seed; for {first} of them the judge ranks the prompt first in the median view.",
        "",
        "| prompt | F-score | median rank | worst rank | seen as | seconds | warnings |",
        "|---|---|---|---|---|---|---|",
        *(
            f"| {r.prompt} | {r.shape} | {r.median_rank:g} | {r.worst_rank} | {', '.join(r.top_nouns[:3])} | "
            f"{r.seconds:.0f} | {'; '.join(r.warnings)} |"
            for r in results
        ),
        *(f"\nFailed: {line}" for line in failed),
        "",
        "![all contact sheets](text_to_3d.jpg)",
        "",
    ]
    figures = [{key: value for key, value in asdict(r).items() if key != "pictures"} for r in results]
    write_atomically(given.results / "text_to_3d.md", "\n".join(lines))
    write_json(given.results / "text_to_3d.json", {"config": given.config, "results": figures})
    print("\n".join(lines))


def sheet(results: list[Result], columns: int = 2) -> Image.Image:
    """Each prompt's views, colour over textureless, under its label."""
    tiles = []
    for result in results:
        strips = [Image.open(path).convert("RGB") for path in result.pictures]
        width, height = strips[0].width, strips[0].height
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

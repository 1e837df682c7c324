"""DreamFusion's own claims, in the quick profile: python benchmarks/dreamfusion_ablation.py [--seeds 3].

1. View words, then lighting, then textureless renders, switched on one by one: geometry gets better with each
   (arXiv 2209.14988, figure 6: R-Precision on textureless renders).
2. SDS drops the network's Jacobian: the full gradient of the diffusion loss (jacobian: true) is worse.
3. SDS under a high guidance scale is more saturated, blurrier and less diverse than ancestral samples of the prior.

Each sweep goes on where it stopped. The table and the pictures go to benchmarks/results/. A claim counts as confirmed
where the 95 % interval of the paired difference lies on its side of zero, as contradicted where it lies on the other.
"""

# ruff: noqa: T201  a benchmark prints

from __future__ import annotations

import argparse
import itertools
import json
import logging
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from claims import Claim, claim_records, claim_table

from distill3d.evaluate.confidence import interval, paired_difference
from distill3d.evaluate.evaluation import evaluate_folder
from distill3d.evaluate.figures import diversity
from distill3d.evaluate.judges import ImageTextJudge, choose_judge
from distill3d.evaluate.samples import read_strip
from distill3d.logs import set_up_logging
from distill3d.sweep.local import LocalEngine
from distill3d.sweep.loop import Sweep
from distill3d.sweep.plan import make_plan
from distill3d.trial import write_text
from distill3d.yaml_text import dump_yaml

PROJECT = Path(__file__).resolve().parent.parent
RESULTS = PROJECT / "benchmarks" / "results"
PROMPTS = ("a fox", "a hamburger", "a cow", "a dog", "a red car", "a castle")
PROMPT = "system.prompt_processor.prompt"
WORDS = "system.prompt_processor.view_dependent_prompting"
DIFFUSE, TEXTURELESS = "system.material.diffuse_prob", "system.material.textureless_prob"
STEPS = {
    "neither": {WORDS: False, DIFFUSE: 0.0, TEXTURELESS: 0.0},
    "view words": {WORDS: True, DIFFUSE: 0.0, TEXTURELESS: 0.0},
    "lighting": {WORDS: True, DIFFUSE: 0.75, TEXTURELESS: 0.0},
    "textureless": {WORDS: True, DIFFUSE: 0.75, TEXTURELESS: 0.5},
}
JACOBIAN = "system.guidance.jacobian"

Keyed = dict[tuple[str, int], float]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--prompts", nargs="+", default=list(PROMPTS))
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--steps", type=int, help="of each run; the quick profile's own by default")
    parser.add_argument("--jobs", type=int, default=1)
    parser.add_argument("--out", type=Path, default=PROJECT / "outputs" / "dreamfusion-ablation")
    parser.add_argument("--results", type=Path, default=RESULTS)
    given = parser.parse_args()
    set_up_logging()
    cases = [*STEPS.values(), {**STEPS["textureless"], JACOBIAN: True}]
    folder = sweep(given, cases)
    content = json.loads((evaluate_folder(folder) / "evaluation.json").read_text(encoding="utf-8"))
    judge = choose_judge("auto", "embedded")
    claims = [*geometry_claims(content), *jacobian_claims(content), *sample_claims(content, folder, judge)]
    write(given.results, folder, content, claims)


def sweep(given: argparse.Namespace, cases: Sequence[dict[str, Any]]) -> Path:
    """Train all cases for all prompts and seeds; returns the sweep's folder."""
    given.out.mkdir(parents=True, exist_ok=True)
    config = given.out / "ablation.yaml"
    block = {"cases": list(cases), "grid": {PROMPT: given.prompts, "seed": list(range(given.seeds))}}
    base = str(PROJECT / "configs" / "dreamfusion-quick.yaml")
    write_text(config, dump_yaml({"base": base, "name": "ablation", "sweep": block}))
    steps = [f"trainer.max_steps={given.steps}"] if given.steps else []
    plan = make_plan(config, [f"exp_root_dir={given.out}", *steps])
    outcome = Sweep(plan, LocalEngine(given.jobs)).run()
    for run, error in outcome.failed.items():
        logging.getLogger(__name__).warning("%s failed: %s", run, error)
    return plan.folder.root


def geometry_claims(content: dict[str, Any]) -> list[Claim]:
    """Each part against the one before it, and all of them against none."""
    names = list(STEPS)
    pairs = [*itertools.pairwise(names), (names[0], names[-1])]
    claims = []
    for before, after in pairs:
        for figure, label in (("r_precision_shape", "R-Precision, shape"), ("r_precision", "R-Precision, colour")):
            found = paired_difference(of_step(content, before, figure), of_step(content, after, figure))
            claims.append(Claim(f"{after} over {before}", label, +1, found))
    found = paired_difference(of_step(content, "neither", "janus"), of_step(content, "view words", "janus"))
    return [*claims, Claim("view words over neither", "Janus", -1, found)]


def jacobian_claims(content: dict[str, Any]) -> list[Claim]:
    claims = []
    for figure, label in (("r_precision", "R-Precision, colour"), ("score", "score")):
        without = of_step(content, "textureless", figure)
        found = paired_difference(without, of_step(content, "textureless", figure, jacobian=True))
        claims.append(Claim("the full gradient, with the Jacobian, is worse than SDS", label, -1, found))
    return claims


def sample_claims(content: dict[str, Any], folder: Path, judge: ImageTextJudge | None) -> list[Claim]:
    """SDS against samples of the prior; ratios are compared with 1."""
    claims = []
    texts = (
        ("saturation_ratio", +1, "SDS is more saturated than samples of the prior"),
        ("high_frequency_ratio", -1, "SDS is blurrier"),
    )
    for figure, sign, text in texts:
        values = {key: value - 1.0 for key, value in of_step(content, "textureless", figure).items()}
        claims.append(Claim(text, f"{figure} - 1", sign, interval(values)))
    if judge is not None:
        claims.append(
            Claim("SDS is less diverse over seeds", "diversity", -1, interval(diversities(content, folder, judge)))
        )
    return claims


def diversities(content: dict[str, Any], folder: Path, judge: ImageTextJudge) -> Keyed:
    """For each prompt the diversity of front views over seeds, minus that of the prior's samples."""
    from distill3d.evaluate.samples import ReferenceSamples
    from distill3d.evaluate.scene import load_scene
    from distill3d.evaluate.settings import EvaluateSettings

    samples = ReferenceSamples(folder / "evaluation", EvaluateSettings().samples)
    fronts: dict[str, list[Path]] = {}
    for run in content["runs"]:
        trial = folder / "runs" / run["id"]
        if matches(run, "textureless", False) and (trial / "evaluation" / "color.png").is_file():
            fronts.setdefault(run["prompt"], []).append(trial)
    result: Keyed = {}
    for prompt, trials in fronts.items():
        reference = samples(load_scene(trials[0]))
        if len(trials) > 1 and reference is not None:
            views = [judge.embed_images(read_strip(trial / "evaluation" / "color.png")[:1])[0] for trial in trials]
            own = diversity(judge.embed_images(reference).new_tensor([view.tolist() for view in views]))
            result[(prompt, 0)] = own - diversity(judge.embed_images(reference))
    return result


def of_step(content: dict[str, Any], step: str, figure: str, jacobian: bool = False) -> Keyed:
    """A figure of all runs of one step of the ablation."""
    return {
        (run["prompt"], run["seed"]): run["figures"][figure]
        for run in content["runs"]
        if matches(run, step, jacobian) and run["figures"].get(figure) is not None
    }


def matches(run: dict[str, Any], step: str, jacobian: bool) -> bool:
    wanted = {key: json.dumps(value) for key, value in STEPS[step].items()}
    own = {key: run["settings"].get(key) for key in wanted}
    return own == wanted and (JACOBIAN in run["settings"]) == jacobian


def write(results: Path, folder: Path, content: dict[str, Any], claims: list[Claim]) -> None:
    """dreamfusion_ablation.{json,md,png}."""
    results.mkdir(parents=True, exist_ok=True)
    prompts = sorted({run["prompt"] for run in content["runs"]})
    seeds = len({run["seed"] for run in content["runs"]})
    lines = [
        "# DreamFusion's claims in the quick profile",
        "",
        f"{len(content['runs'])} runs of {len(prompts)} prompts and {seeds} seeds, "
        f"by {', '.join(content['judges']) or 'no judge'}.",
        "Paired differences with 95 % intervals, by bootstrap over prompts, then over seeds.",
        "",
        claim_table(claims),
        "",
        "![front views](dreamfusion_ablation.png)",
        "",
    ]
    write_text(results / "dreamfusion_ablation.md", "\n".join(lines))
    write_text(
        results / "dreamfusion_ablation.json",
        json.dumps({"claims": claim_records(claims), "means": content["means"]}, indent=1),
    )
    if (folder / "evaluation" / "grid.png").is_file():
        shutil.copyfile(folder / "evaluation" / "grid.png", results / "dreamfusion_ablation.png")
    print("\n".join(lines))


if __name__ == "__main__":
    main()

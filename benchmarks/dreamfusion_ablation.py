"""DreamFusion's own claims, in the quick profile: python benchmarks/dreamfusion_ablation.py [--seeds 2] [--jobs 2].

1. View words, then lighting, then textureless renders, switched on one by one: geometry gets better with each
   (arXiv 2209.14988, figure 6: R-Precision on textureless renders). The prior is told nothing of the camera, as the
   paper's; a last step tells it, which is what the profile ships.
2. SDS drops the network's Jacobian: the full gradient of the diffusion loss (jacobian: true) is worse.
3. SDS is more saturated, blurrier and less diverse than ancestral samples of the prior.

Each sweep goes on where it stopped; other weights of the prior begin another. The tables, their reading and the picture
go to benchmarks/results/.
"""

# ruff: noqa: T201  a benchmark prints

from __future__ import annotations

import argparse
import functools
import itertools
import json
import logging
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from ablation_report import runs_of, write
from claims import Claim

from distill3d.config.experiment import load
from distill3d.config.yaml_text import dump_yaml
from distill3d.evaluation.confidence import interval, paired_difference
from distill3d.evaluation.evaluation import evaluate_folder
from distill3d.evaluation.judges import ImageTextJudge, choose_judge
from distill3d.evaluation.loaded_trial import load_trial
from distill3d.evaluation.metrics import diversity
from distill3d.evaluation.samples import ReferenceSamples, read_strip
from distill3d.evaluation.settings import EvaluateSettings
from distill3d.runtime.files import write_atomically
from distill3d.runtime.logs import set_up_logging
from distill3d.sweep.local import LocalEngine, cores
from distill3d.sweep.loop import Sweep
from distill3d.sweep.plan import make_plan

PROJECT = Path(__file__).resolve().parent.parent
BASE = PROJECT / "configs" / "dreamfusion-quick.yaml"
# what the prior knows, then three with a front, without which view words have nothing to say
PROMPTS = ("a hamburger", "a red car", "a fox", "a cow")
STEPS = 350  # the profile's own
PROMPT = "system.prompt_processor.prompt"
WORDS = "system.prompt_processor.view_dependent_prompting"
DIFFUSE, TEXTURELESS = "system.material.diffuse_prob", "system.material.textureless_prob"
JACOBIAN, CAMERA_TOLD = "system.guidance.jacobian", "system.prior.camera_conditioning"
PAPER, CAMERA, FULL = "textureless", "the camera", "full gradient"  # steps: the last of the paper's, then ours
# a trial without what only a person looks at: the evaluation renders its own views
UNSEEN = {
    "data": {"n_test_views": 1},
    "system": {
        "contact_views": 1,
        "exporter": {"mode": "vertex", "resolution": 24, "faces": 500, "viewer": False, "preview": False},
        "loggers": {"tensorboard": {"enable": False}},
    },
}

Keyed = dict[tuple[str, int], float]
Content = dict[str, Any]


@functools.cache
def ablation() -> dict[str, dict[str, Any]]:
    """Settings by step, from neither part to what the profile ships, and that with the Jacobian."""
    material = load(BASE).experiment.system["material"]
    diffuse, textureless = float(material["diffuse_prob"]), float(material["textureless_prob"])
    parts = {
        "neither": {WORDS: False, DIFFUSE: 0.0, TEXTURELESS: 0.0},
        "view words": {WORDS: True, DIFFUSE: 0.0, TEXTURELESS: 0.0},
        "lighting": {WORDS: True, DIFFUSE: diffuse, TEXTURELESS: 0.0},
        PAPER: {WORDS: True, DIFFUSE: diffuse, TEXTURELESS: textureless},
    }
    untold = {name: {CAMERA_TOLD: "none", **settings} for name, settings in parts.items()}
    told = {CAMERA_TOLD: "auto", **parts[PAPER]}
    return {**untold, CAMERA: told, FULL: {**told, JACOBIAN: True}}


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--prompts", nargs="+", default=list(PROMPTS))
    parser.add_argument("--seeds", type=int, default=2)
    parser.add_argument("--steps", type=int, default=STEPS, help=f"of each run ({STEPS})")
    parser.add_argument("--jobs", type=int, default=cores(), help="runs at once (one for each core)")
    parser.add_argument("--out", type=Path, default=PROJECT / "outputs" / "dreamfusion-ablation")
    parser.add_argument("--results", type=Path, default=PROJECT / "benchmarks" / "results")
    given = parser.parse_args(argv)
    set_up_logging()
    folder = sweep(given)
    content = json.loads((evaluate_folder(folder) / "evaluation.json").read_text(encoding="utf-8"))
    judge = choose_judge("auto", "embedded")
    sections = {
        "Parts switched on one by one": geometry_claims(content),
        "Beyond the paper: a prior that is told the camera": camera_claims(content),
        "Without the Jacobian": jacobian_claims(content),
        "Against samples of the prior": sample_claims(content, folder, judge),
    }
    asked = sys.argv[1:] if argv is None else argv
    command = shlex.join(["python", "benchmarks/dreamfusion_ablation.py", *asked])
    print(
        write(given.results, folder, content, ablation(), sections, f"{given.jobs} runs at once", command, about(given))
    )


def about(given: argparse.Namespace) -> str:
    """What was ablated, and what the shipped profile makes of it."""
    shipped = ablation()[CAMERA]
    return (
        f"{given.steps} steps of `dreamfusion-quick.yaml` for each run. Its embedded prior wants milder light than the "
        f"paper's, so lighting means {shipped[DIFFUSE]:.0%} lit views (there 75 %), textureless that "
        f"{shipped[TEXTURELESS]:.0%} of those are white (there 50 %). Up to there the prior is told no camera, as the "
        f"paper's ({CAMERA_TOLD}=none); the next step tells it, which is what the profile ships, and the last adds the "
        "Jacobian to that."
    )


def sweep(given: argparse.Namespace) -> Path:
    """Train all cases for all prompts and seeds; returns the sweep's folder."""
    out = given.out
    out.mkdir(parents=True, exist_ok=True)
    config = out / "ablation.yaml"
    block = {"cases": list(ablation().values()), "grid": {PROMPT: given.prompts, "seed": list(range(given.seeds))}}
    write_atomically(config, dump_yaml({"base": str(BASE), "name": "ablation", **UNSEEN, "sweep": block}))
    plan = make_plan(config, [f"exp_root_dir={out}", f"trainer.max_steps={given.steps}"])
    outcome = Sweep(plan, LocalEngine(given.jobs)).run()
    for run, error in outcome.failed.items():
        logging.getLogger("distill3d").warning("%s failed: %s", run, error)
    return plan.folder.root


def geometry_claims(content: Content) -> list[Claim]:
    """Each part against the one before it, and all of them against none."""
    names = [name for name in ablation() if name not in (CAMERA, FULL)]
    claims = [claim for pair in itertools.pairwise(names) for claim in precision_claims(content, *pair)]
    claims += precision_claims(content, names[0], names[-1])
    return [*claims, janus_claim(content, names[0], names[1])]


def camera_claims(content: Content) -> list[Claim]:
    """What the camera is worth over all that the paper has."""
    return [*precision_claims(content, PAPER, CAMERA), janus_claim(content, PAPER, CAMERA)]


def precision_claims(content: Content, before: str, after: str) -> list[Claim]:
    figures = {"r_precision_shape": "R-Precision, shape", "r_precision": "R-Precision, colour"}
    return [
        difference(content, before, after, name, Claim(f"{after} over {before}", label, +1, None))
        for name, label in figures.items()
    ]


def janus_claim(content: Content, before: str, after: str) -> Claim:
    return difference(content, before, after, "janus", Claim(f"{after} over {before}", "Janus", -1, None))


def jacobian_claims(content: Content) -> list[Claim]:
    text = "the full gradient, with the Jacobian, is worse than SDS"
    figures = {"r_precision": "R-Precision, colour", "score": "score"}
    return [difference(content, CAMERA, FULL, name, Claim(text, label, -1, None)) for name, label in figures.items()]


def difference(content: Content, before: str, after: str, figure: str, claim: Claim) -> Claim:
    """A claim with what was found: ``figure`` after minus before, on the same prompts and seeds."""
    found = paired_difference(of_step(content, before, figure), of_step(content, after, figure))
    return Claim(claim.text, claim.figure, claim.sign, found)


def sample_claims(content: Content, folder: Path, judge: ImageTextJudge | None) -> list[Claim]:
    """SDS against samples of the prior, as in the paper and told the camera; ratios are compared with 1."""
    texts = (
        ("saturation_ratio", +1, "SDS is more saturated than samples of the prior"),
        ("high_frequency_ratio", -1, "SDS is blurrier than they are"),
    )
    claims = []
    for step, told in ((PAPER, "told view words"), (CAMERA, "told the camera")):
        for figure, sign, text in texts:
            values = {key: value - 1.0 for key, value in of_step(content, step, figure).items()}
            claims.append(Claim(f"{text} ({told})", f"{figure} - 1", sign, interval(values)))
        if judge is not None:
            found = interval(diversities(content, folder, judge, step))
            claims.append(Claim(f"SDS is less diverse over seeds than they are ({told})", "diversity", -1, found))
    return claims


def diversities(content: Content, folder: Path, judge: ImageTextJudge, step: str) -> Keyed:
    """For each prompt the diversity of front views over seeds, minus that of the prior's samples."""
    samples = ReferenceSamples(EvaluateSettings().samples)
    fronts: dict[str, list[Path]] = {}
    for run in runs_of(content, ablation(), step):
        trial = folder / "runs" / run["id"]
        if (trial / "evaluation" / "color.png").is_file():
            fronts.setdefault(run["prompt"], []).append(trial)
    result: Keyed = {}
    for prompt, trials in fronts.items():
        reference = samples(load_trial(trials[0])) if len(trials) > 1 else None
        if reference is not None:
            views = [judge.embed_images(read_strip(trial / "evaluation" / "color.png")[:1])[0] for trial in trials]
            own = diversity(judge.embed_images(reference).new_tensor([view.tolist() for view in views]))
            result[(prompt, 0)] = own - diversity(judge.embed_images(reference))
    return result


def of_step(content: Content, step: str, figure: str) -> Keyed:
    """A figure of all runs of one step."""
    values = {(run["prompt"], run["seed"]): run["figures"].get(figure) for run in runs_of(content, ablation(), step)}
    return {key: value for key, value in values.items() if value is not None}


if __name__ == "__main__":
    main()

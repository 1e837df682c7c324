"""The ablation goes from neither part to what the profile ships, and its report says what the numbers say."""

import json
import sys
from pathlib import Path

import pytest
import torch

sys.path.insert(0, str(Path(__file__).parents[1] / "benchmarks"))

import ablation_report
import dreamfusion_ablation as bench
import report_picture
from claims import Claim
from PIL import Image

from distill3d.config.experiment import load
from distill3d.config.yaml_text import dump_yaml
from distill3d.evaluation.confidence import Interval
from distill3d.evaluation.samples import write_strip
from distill3d.priors.settings import PriorConfig
from distill3d.sweep.plan import make_plan

PROMPTS = ("a fox", "a hat", "a hamburger")
STEP_GAIN = {"neither": 0.0, "view words": 0.2, "lighting": 0.2, bench.PAPER: 0.1, bench.CAMERA: 0.4, bench.FULL: 0.4}


@pytest.fixture
def content(tmp_path):
    """A sweep's evaluation: view words help each prompt, lighting changes nothing, textureless renders harm."""
    runs = []
    for i, prompt in enumerate(PROMPTS):
        for seed in (0, 1):
            for step, settings in bench.ablation().items():
                name = f"{len(runs)}"
                value = 0.1 * i + STEP_GAIN[step]
                figures = {"r_precision": value, "r_precision_shape": value, "seconds_total": 30.0}
                written = {key: json.dumps(each) for key, each in settings.items()}
                runs.append({"id": name, "prompt": prompt, "seed": seed, "settings": written, "figures": figures})
                runs[-1].update(status="done", error="")
                strip = tmp_path / "runs" / name / "evaluation" / "color.png"
                strip.parent.mkdir(parents=True)
                write_strip(strip, torch.full((4, 3, 16, 16), 0.2 * i))
    runs[-1].update(status="failed", error="lost", figures={})
    return {"runs": runs, "judges": ["a judge"], "means": []}


def test_the_steps_end_at_what_the_profile_ships_and_are_all_different_runs(tmp_path):
    system = load(bench.BASE).experiment.system
    last = bench.ablation()[bench.CAMERA]
    assert last[bench.CAMERA_TOLD] == PriorConfig().camera_conditioning
    assert last[bench.DIFFUSE] == system["material"]["diffuse_prob"] > 0
    assert last[bench.TEXTURELESS] == system["material"]["textureless_prob"] > 0
    assert system["prompt_processor"].get("view_dependent_prompting", True) is last[bench.WORDS] is True
    block = {"cases": list(bench.ablation().values()), "grid": {bench.PROMPT: ["a fox"], "seed": [0]}}
    config = tmp_path / "ablation.yaml"
    config.write_text(dump_yaml({"base": str(bench.BASE), "name": "ablation", **bench.UNSEEN, "sweep": block}))
    assert len(make_plan(config, [f"exp_root_dir={tmp_path}"]).runs) == 6


def test_a_claim_is_read_from_its_interval(content):
    claims = {(claim.text, claim.figure): claim for claim in bench.geometry_claims(content)}
    shape = "R-Precision, shape"
    assert claims["view words over neither", shape].verdict == "confirmed"
    assert claims["lighting over view words", shape].verdict == "not confirmed"
    assert claims["textureless over lighting", shape].verdict == "contradicted"
    assert claims["view words over neither", shape].found.mean == pytest.approx(0.2)
    assert claims["view words over neither", "Janus"].verdict.startswith("not tested")
    camera = bench.camera_claims(content)[0]
    assert (camera.text, camera.verdict) == ("the camera over textureless", "confirmed")
    full = bench.jacobian_claims(content)[0]
    assert full.found.pairs == 5  # the run that failed has no pair


@pytest.mark.parametrize(
    ("found", "words"),
    [
        (Interval(0.2, 0.1, 0.3, 3, 6), "**confirmed**: +0.200, interval [+0.100, +0.300] on the claim's side of zero"),
        (Interval(0.2, -0.1, 0.3, 3, 6), "**not confirmed**: +0.200, interval [-0.100, +0.300] around zero; 3 prompts"),
        (Interval(-0.2, -0.3, -0.1, 3, 6), "**contradicted**: -0.200, interval [-0.300, -0.100] beyond zero"),
        (Interval(0.2, None, None, 2, 4), "**not tested: too few prompts**; +0.200 over 2 prompts, 4 pairs"),
        (None, "no pair has this figure"),
    ],
)
def test_every_verdict_has_its_sentence(found, words):
    assert words in Claim("it helps", "score", +1, found).reading()


def test_the_report_has_table_reading_picture_command_and_machine(content, tmp_path):
    sections = {"Parts": bench.geometry_claims(content), "Jacobian": bench.jacobian_claims(content)}
    text = ablation_report.write(
        tmp_path / "results", tmp_path, content, bench.ablation(), sections, "2 runs at once", "python x.py", "About."
    )
    assert text == (tmp_path / "results/dreamfusion_ablation.md").read_text()
    assert "`python x.py`: 36 runs (3 prompts, 2 seeds; 0 diverged, 1 without figures), 18 minutes" in text
    assert "| view words | 6 | 0.30 " in text
    assert text.count("\n- ") == sum(len(claims) for claims in sections.values())
    assert "Of 11 claims: " in text
    picture = Image.open(tmp_path / "results/dreamfusion_ablation.jpg")
    assert picture.width > 6 * 2 * ablation_report.SIDE
    saved = json.loads((tmp_path / "results/dreamfusion_ablation.json").read_text())
    assert saved["claims"]["Parts"][0]["verdict"] == "confirmed"


def test_a_picture_of_a_page_fits_its_size(tmp_path):
    noise = torch.randint(256, (300, 400, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    Image.fromarray(noise.numpy()).save(tmp_path / "page.png")
    png = (tmp_path / "page.png").read_bytes()
    assert len(report_picture.smallest(png, 60_000)) < min(60_000, len(report_picture.smallest(png, 200_000)))
    with pytest.raises(SystemExit):
        report_picture.main([str(tmp_path), str(tmp_path / "out.jpg")])

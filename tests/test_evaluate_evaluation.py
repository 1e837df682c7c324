"""From trained trials to a report, with a tiny scene and a judge that knows nothing."""

import csv
import json
import logging
import shutil
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from system_doubles import TINY_DATA, TINY_SYSTEM, merged

from distill3d import cli
from distill3d.config.check import ConfigError
from distill3d.config.yaml_text import dump_yaml
from distill3d.embedded.judge import Judge, JudgeConfig, load_judge, save_judge
from distill3d.evaluation.collect import collect
from distill3d.evaluation.evaluation import evaluate_folder
from distill3d.evaluation.loaded_trial import load_trial, render_views
from distill3d.evaluation.samples import ReferenceSamples, read_strip, write_strip
from distill3d.priors.loader import PriorConfig

EXPORTER = {"resolution": 24, "mode": "vertex", "faces": 500, "viewer": False, "preview": False, "threshold": 1.0}
CONFIG = {
    "name": "tiny",
    "use_timestamp": False,
    "data": TINY_DATA,
    "system": merged(
        TINY_SYSTEM, {"exporter": EXPORTER, "contact_views": 2, "loggers": {"tensorboard": {"enable": False}}}
    ),
    "trainer": {"max_steps": 2, "enable_progress_bar": False, "accelerator": "cpu"},
}
FAST = ("views=4", "size=16", "samples=0", "resamples=100")

pytestmark = pytest.mark.usefixtures("restore_logging")


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """Two trials of one experiment, and a judge."""
    folder = tmp_path_factory.mktemp("evaluate")
    (folder / "tiny.yaml").write_text(dump_yaml(CONFIG))
    torch.manual_seed(0)
    config = JudgeConfig(("a", "red", "ball", "fox", "hat"), ("ball", "fox", "hat"), ("ball",), (16, 16), 32, 1, 16)
    save_judge(Judge(config), folder / "judge")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.delenv("DISTILL3D_TRIAL", raising=False)
        for seed, scale in (("0", "1.0"), ("0", "3.0")):
            arguments = [f"seed={seed}", f"system.guidance.guidance_scale={scale}", f"tag=w{scale}"]
            assert cli.main(["--config", "tiny", *arguments, "system.prompt_processor.prompt=a red ball"]) == 0
    return folder


@pytest.fixture
def folder(trained, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    shutil.copytree(trained, tmp_path, dirs_exist_ok=True)
    return Path("outputs/tiny")


def test_a_finished_trial_says_so(folder):
    assert json.loads((folder / "w1.0" / "metrics.json").read_text())["finished"] is True


def test_views_know_their_true_azimuth_and_are_the_trained_scene(folder):
    scene = load_trial(folder / "w1.0")
    views = render_views(scene, 4, 16, batch_size=3)
    assert views.azimuth_deg.tolist() == [0.0, 90.0, -180.0, -90.0]
    assert views.words == ["front", "side", "back", "side"]
    assert views.color.shape == (4, 3, 16, 16)
    grey = views.textureless - views.textureless.mean(dim=1, keepdim=True)
    inside = views.opacity.expand_as(grey) > 0.999
    assert float(grey[inside].abs().max() if inside.any() else 0.0) < 1e-2
    again = render_views(load_trial(folder / "w1.0"), 4, 16, batch_size=4)
    assert torch.allclose(views.color, again.color, atol=1e-5)
    other = render_views(load_trial(folder / "w3.0"), 4, 16)
    assert not torch.equal(views.color, other.color)


def test_textureless_views_may_be_smaller_and_show_the_same(folder):
    scene = load_trial(folder / "w1.0")
    large, small = (render_views(scene, 2, 32, shape_size=size) for size in (None, 16))
    assert torch.equal(large.color, small.color)
    assert (large.textureless.shape, small.textureless.shape) == ((2, 3, 32, 32), (2, 3, 16, 16))
    shrunk = torch.nn.functional.avg_pool2d(large.textureless, 2)
    assert float((shrunk - small.textureless).abs().mean()) < 0.02


def embedded_scene(prompt):
    make = lambda kind: SimpleNamespace(cfg=PriorConfig())  # noqa: E731
    return SimpleNamespace(prior="embedded", prompt=prompt, system=SimpleNamespace(make=make), can_turn=False)


def test_samples_of_a_prompt_are_drawn_once_by_all_evaluations(tmp_path, monkeypatch):
    drawn = []

    def draw(self, scene, identity):
        drawn.append(scene.prompt)
        return torch.full((self.count, 3, 8, 8), 0.3)

    monkeypatch.setattr(ReferenceSamples, "_draw", draw)
    first = ReferenceSamples(2, tmp_path)(embedded_scene("a fox"))
    again = ReferenceSamples(2, tmp_path)(embedded_scene("a fox"))
    assert torch.equal(first, again)
    ReferenceSamples(2, tmp_path)(embedded_scene("a hat"))
    ReferenceSamples(3, tmp_path)(embedded_scene("a fox"))
    monkeypatch.setattr("distill3d.priors.loader.model_identity", lambda cfg: "other weights")
    ReferenceSamples(2, tmp_path)(embedded_scene("a fox"))
    assert drawn == ["a fox", "a hat", "a fox", "a fox"]
    assert ReferenceSamples(0, tmp_path)(embedded_scene("a fox")) is None


def test_samples_that_cannot_be_kept_or_drawn_cost_no_figures(tmp_path, monkeypatch, caplog):
    monkeypatch.setattr(ReferenceSamples, "_draw", lambda self, *_: torch.full((self.count, 3, 8, 8), 0.2))
    (tmp_path / "file").write_text("in the way")
    logging.getLogger("distill3d").propagate = True
    images = ReferenceSamples(2, tmp_path / "file" / "samples")(embedded_scene("a fox"))
    assert torch.allclose(images, torch.full((2, 3, 8, 8), 0.2), atol=1e-6)
    assert "set DISTILL3D_CACHE" in caplog.text

    def broken(cfg):
        raise OSError("the weights are gone")

    monkeypatch.setattr("distill3d.priors.loader.model_identity", broken)
    assert ReferenceSamples(2, tmp_path)(embedded_scene("a fox")) is None
    assert "the weights are gone" in caplog.text


def test_an_experiment_is_compared_by_what_differs(folder):
    out = evaluate_folder(folder, [*FAST, "judge=judge"])
    content = json.loads((out / "evaluation.json").read_text())
    assert [run["settings"] for run in content["runs"]] == [
        {"system.guidance.guidance_scale": "1.0"},
        {"system.guidance.guidance_scale": "3.0"},
    ]
    figures = content["runs"][0]["figures"]
    for name in ("r_precision", "r_precision_shape", "score", "janus", "view_accuracy", "saturation", "seconds_total"):
        assert isinstance(figures[name], (int, float)), name
    assert content["judges"] == ["judge of judge"]
    assert {c["figure"] for c in content["comparisons"]} >= {"score", "saturation"}
    rows = list(csv.DictReader((out / "evaluation.csv").open()))
    assert float(rows[1]["saturation"]) == pytest.approx(content["runs"][1]["figures"]["saturation"])
    assert (out / "grid.png").stat().st_size > 0
    page = (out / "report.html").read_text()
    assert "data:image/jpeg;base64," in page
    assert content["runs"][1]["prompt"] in page


def test_known_figures_are_not_made_again(folder, monkeypatch):
    out = evaluate_folder(folder / "w1.0", FAST)
    before = (out / "figures.json").stat().st_mtime_ns
    monkeypatch.setattr("distill3d.evaluation.evaluation.render_views", lambda *a: pytest.fail("rendered again"))
    evaluate_folder(folder / "w1.0", FAST)
    evaluate_folder(folder / "w1.0", [*FAST, "resamples=200", "batch_size=2"])  # neither changes a figure
    assert (out / "figures.json").stat().st_mtime_ns == before


def test_other_weights_of_the_judge_make_other_figures(folder):
    evaluate_folder(folder / "w1.0", [*FAST, "judge=judge"])
    figures = json.loads((folder / "w1.0" / "evaluation" / "figures.json").read_text())
    judge = load_judge(Path("judge"))
    torch.nn.init.normal_(judge.image_projection.weight)
    save_judge(judge, Path("judge"))
    evaluate_folder(folder / "w1.0", [*FAST, "judge=judge"])
    again = json.loads((folder / "w1.0" / "evaluation" / "figures.json").read_text())
    assert again["key"] != figures["key"]
    assert again["figures"]["score"] != figures["figures"]["score"]
    assert again["figures"]["saturation"] == figures["figures"]["saturation"]


def test_a_half_written_trial_is_told_and_costs_no_other(folder):
    (folder / "w3.0" / "ckpts" / "last.ckpt").write_bytes(b"half")
    broken = folder / "broken"
    shutil.copytree(folder / "w1.0", broken)
    (broken / "configs" / "parsed.yaml").write_text("system: [")
    out = evaluate_folder(folder, FAST)
    runs = {run["id"]: run for run in json.loads((out / "evaluation.json").read_text())["runs"]}
    assert runs["w1.0"]["error"] == ""
    assert "cannot be read" in runs["w3.0"]["error"]
    assert "not valid YAML" in runs["broken"]["error"]


def test_mistakes_name_what_is_wrong(folder, tmp_path):
    with pytest.raises(ConfigError, match="no such folder"):
        evaluate_folder("nowhere")
    (tmp_path / "empty").mkdir()
    with pytest.raises(ConfigError, match="neither a sweep"):
        collect(tmp_path / "empty")
    with pytest.raises(ConfigError, match="did you mean 'views'"):
        evaluate_folder(folder, ["view=3"])
    with pytest.raises(ConfigError, match="views=0 must be at least 1"):
        evaluate_folder(folder, ["views=0"])
    with pytest.raises(ConfigError, match="judge='nowhere' cannot be loaded"):
        evaluate_folder(folder, [*FAST, "judge=nowhere"])


def test_a_strip_is_read_back(tmp_path):
    images = torch.rand(3, 3, 8, 8)
    write_strip(tmp_path / "strip.png", images)
    assert torch.allclose(read_strip(tmp_path / "strip.png"), images, atol=1 / 500)

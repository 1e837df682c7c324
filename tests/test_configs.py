"""Every shipped text-to-3D experiment runs: a few steps, the turntable and the mesh, under a closed-form prior."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
import system_doubles  # noqa: F401, registers the prior and the prompts
import torch

from distill3d.cli import main
from distill3d.config.experiment import load

# experiments on what exists (posed images, views, a trained scene) cannot be read without it, and have their own tests
CONFIGS = [
    p
    for p in sorted((Path(__file__).parents[1] / "configs").glob("*.yaml"))
    if "???" not in p.read_text() and not p.stem.startswith("nerf-edit") and not p.stem.endswith("-exact")
]
EXPERIMENTS = {path.stem: load(path, check=False).experiment for path in CONFIGS}
TEXT_TO_3D = [name for name, experiment in EXPERIMENTS.items() if experiment.system_type == "dreamfusion-system"]
EMBEDDED = [
    name for name in TEXT_TO_3D if EXPERIMENTS[name].system["prior"].get("pretrained_model_name_or_path") == "embedded"
]

TRAINED = {"nerf": "renderer.geometry.encoding.table", "mesh": "texture.encoding.table", "splats": "means"}

IN_LITTLE = [
    "system.prior_type=closed-form-for-tests",
    "system.prompt_processor_type=closed-form-prompts-for-tests",
    "data.cameras_like=null",
    "data.eval_width=16",
    "data.eval_height=16",
    "data.n_test_views=2",
    "system.contact_views=2",
    "system.exporter.resolution=24",
    "system.exporter.mode=vertex",
    "system.exporter.view_size=16",
    "system.exporter.turntable_views=0",
    "system.exporter.viewer=false",
    "system.exporter.sharpen=false",
    "system.exporter.fit_count=0",
    "trainer.enable_progress_bar=false",
    "trainer.accelerator=cpu",
    "trainer.precision=32-true",
]


def in_little(name: str) -> list[str]:
    """The same experiment, small to look at, under the closed-form prior: a flow where the rule wants one."""
    schedule = "flow" if EXPERIMENTS[name].system["guidance_type"] == "rfds" else "sd"
    # published views are uncapped, some 300 000 samples: fewer rays of them will do
    uncapped = EXPERIMENTS[name].system.get("renderer", {}).get("max_samples_per_ray", 32) is None
    small = ["data.width=24", "data.height=24"] if uncapped else []
    small += ["data.batch_size=4"] if EXPERIMENTS[name].data.get("n_view", 1) > 1 else []
    return [*IN_LITTLE, *small, f"system.prior.schedule={schedule}"]


@pytest.fixture
def launched(tmp_path, monkeypatch):
    """Run a command line in an outputs folder of its own; returns the trial's folder."""
    monkeypatch.setattr(os, "environ", dict(os.environ))  # a trial tells its children where it is

    def run(*arguments: str) -> Path:
        assert main([*arguments, f"exp_root_dir={tmp_path}"]) == 0
        (metrics,) = tmp_path.rglob("metrics.json")
        return metrics.parent

    return run


@pytest.mark.parametrize("name", TEXT_TO_3D)
def test_it_trains_and_leaves_pictures_a_turntable_a_mesh_and_a_record(name, launched):
    trial = launched("--config", f"{name}.yaml", "--train", "trainer.max_steps=2", *in_little(name))
    metrics = json.loads((trial / "metrics.json").read_text())
    # a closed-form prior stands in for the config's own, whose settings it does not have
    warnings = [text for text in metrics["warnings"] if not text.startswith("ignored settings") or "scene" in text]
    assert (metrics["steps"], metrics["diverged"], warnings) == (2, False, [])
    assert {"save/it2-test.mp4", "save/it2-views.png", "save/it2-export/model.glb"} <= set(metrics["files"])
    assert all((trial / file).stat().st_size > 0 for file in metrics["files"])
    after = torch.load(trial / "ckpts/last.ckpt", weights_only=True)["state_dict"]
    assert all(torch.isfinite(tensor).all() for tensor in after.values() if tensor.is_floating_point())
    before, own = _initial_state(name), TRAINED[EXPERIMENTS[name].system.get("scene_type", "nerf")]
    (trained,) = [key for key in before if key.endswith(own)]
    assert not torch.equal(before[trained], after[trained])


def _initial_state(name: str) -> dict[str, torch.Tensor]:
    """The weights that an experiment begins with."""
    from distill3d.config.check import build
    from distill3d.config.registry import find

    experiment = load(f"{name}.yaml", in_little(name)).experiment
    cls = find("system", "dreamfusion-system")
    system = cls(build(cls.Config, experiment.system, "system"), seed=experiment.seed)  # type: ignore[attr-defined]
    return system.state_dict()


@pytest.mark.parametrize("name", EMBEDDED)
def test_shading_starts_within_the_first_fifth(name):
    experiment = EXPERIMENTS[name]
    assert experiment.system["material"]["ambient_only_steps"] < experiment.trainer["max_steps"] / 5


@pytest.mark.parametrize("name", EMBEDDED)
def test_nothing_in_it_belongs_to_one_noun(name):
    """One config serves all prompts: the text is in the prompt processor alone."""
    experiment = EXPERIMENTS[name]
    noun = experiment.prompt.split()[-1]
    rest = {**vars(experiment), "tag": "", "description": "", "system": {**experiment.system, "prompt_processor": {}}}
    assert noun not in json.dumps(rest)


def test_an_export_of_its_checkpoint_writes_the_same_mesh_again(launched):
    trial = launched("--config", "dreamfusion-quick.yaml", "--train", "trainer.max_steps=2", *IN_LITTLE)
    mesh = trial / "save/it2-export/model.glb"
    first = mesh.read_bytes()
    mesh.unlink()
    parsed, last = trial / "configs/parsed.yaml", trial / "ckpts/last.ckpt"
    before = json.loads((trial / "metrics.json").read_text())
    assert main(["--config", str(parsed), "--export", f"resume={last}"]) == 0
    assert mesh.read_bytes() == first
    after = json.loads((trial / "metrics.json").read_text())
    for key in ("steps", "files", "views_per_shading", "opacity_mean", "threads"):
        assert after[key] == before[key], key
    assert after["seconds_per_step"] == pytest.approx(before["seconds_per_step"])

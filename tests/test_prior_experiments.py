"""Every experiment under a real diffusion model trains, with a tiny model of its kind in place; so do threestudio's."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from tiny_pipelines import TinyFolders, tiny_settings

from distill3d import run
from distill3d.config.experiment import load
from distill3d.verbs import Request

EXPERIMENTS = {
    "dreamfusion-sd": "stable-diffusion",
    "dreamfusion-if": "deepfloyd-if",
    "dreamfusion-lmc-sd": "stable-diffusion-2",
    "dreamfusion-lmc-if": "deepfloyd-if",
    "dreamfusion-sdxl": "sdxl",
    "dreamfusion-sd3": "sd3",
    "dreamfusion-flux": "flux",
    "dreamfusion-mvdream": "mvdream",
    "splats-sd": "stable-diffusion",
}  # and zero123, in test_prior_zero123.py
# what docs/models.md names for a config beside its own model
OTHER_MODELS = {
    "dreamfusion-sd": "stable-diffusion-2",
    "dreamfusion-sdxl": "pixart-sigma",
    "dreamfusion-sd3": "z-image",
}
THREESTUDIO = {"threestudio-dreamfusion-sd": "stable-diffusion", "threestudio-dreamfusion-if": "deepfloyd-if"}

# a scene that is drawn in no time; the prior, the guidance, the losses and their settings stay the experiment's
SMALL = {
    "data.width": 8,
    "data.height": 8,
    "system.geometry.pos_encoding_config.n_levels": 8,
    "system.geometry.pos_encoding_config.log2_hashmap_size": 8,
    "system.renderer.num_samples_per_ray": 16,
    "system.material.ambient_only_steps": 1,
    "trainer.val_check_interval": 1000,
    "trainer.enable_progress_bar": False,
    "use_timestamp": False,
}


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> TinyFolders:
    return TinyFolders(tmp_path_factory.mktemp("tiny"))


@pytest.fixture(autouse=True)
def own_cache(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("DISTILL3D_CACHE", str(tmp_path / "cache"))


def overrides(tmp_path: Path, steps: int, settings: dict[str, object]) -> tuple[str, ...]:
    settings = {**SMALL, "exp_root_dir": str(tmp_path / "out"), "trainer.max_steps": steps, **settings}
    written = {key: value if isinstance(value, str) else json.dumps(value) for key, value in settings.items()}
    return tuple(f"{key}={value}" for key, value in written.items())


def train(config: str, tmp_path: Path, steps: int = 3, **settings: object) -> run.Run:
    prepared = run.prepare(Request("train", config, overrides(tmp_path, steps, settings)))
    prepared.trainer.fit(prepared.system, datamodule=prepared.data)
    return prepared


def assert_trained(done: run.Run, steps: int) -> None:
    assert done.trainer.global_step == steps
    parameters = list(done.system.parameters())
    assert parameters and all(parameter.isfinite().all() for parameter in parameters)
    optimizer = done.trainer.optimizers[0]
    moved = [state["exp_avg"].abs().max() for state in optimizer.state.values()]
    assert moved and all(torch.isfinite(value) for value in moved) and max(moved) > 0


def test_each_config_of_a_model_of_the_hub_is_trained_here() -> None:
    texts = {path: path.read_text(encoding="utf-8") for path in (Path(__file__).parents[1] / "configs").glob("*.yaml")}
    priors = {
        path.stem: load(path, check=False).experiment.system["prior"]
        for path, text in texts.items()
        if "???" not in text and not path.stem.startswith("nerf-edit") and not path.stem.endswith("-exact")
    }
    named = {name for name, prior in priors.items() if "/" in prior.get("pretrained_model_name_or_path", "")}
    assert named == set(EXPERIMENTS)


@pytest.mark.parametrize(("name", "kind"), [*EXPERIMENTS.items(), *OTHER_MODELS.items()])
def test_the_experiment_trains_under_its_kind_of_model(
    folders: TinyFolders, tmp_path: Path, name: str, kind: str
) -> None:
    settings = {"image_size": None, **tiny_settings(kind), "pretrained_model_name_or_path": str(folders(kind))}
    done = train(f"{name}.yaml", tmp_path, **{f"system.prior.{key}": value for key, value in settings.items()})
    assert_trained(done, 3)


@pytest.mark.parametrize("name", list(THREESTUDIO))
def test_threestudios_own_files_train(folders: TinyFolders, tmp_path: Path, name: str) -> None:
    folder = str(folders(THREESTUDIO[name]))
    settings: dict[str, object] = {"system.prompt_processor.prompt": "a hamburger"}
    for owner in ("prompt_processor", "guidance"):
        settings[f"system.{owner}.pretrained_model_name_or_path"] = folder
    file = Path(__file__).parent / "data" / f"{name}.yaml"
    done = train(str(file), tmp_path, steps=2, **settings)
    assert_trained(done, 2)
    assert done.experiment.system["prior"]["pretrained_model_name_or_path"] == folder
    assert done.experiment.system["guidance_type"] == "sds"


def test_nothing_of_the_prior_is_in_the_checkpoint(folders: TinyFolders, tmp_path: Path) -> None:
    settings = {"system.prior.pretrained_model_name_or_path": str(folders("stable-diffusion"))}
    done = train("dreamfusion-sd.yaml", tmp_path, steps=1, **settings)
    saved = torch.load(done.trial.root / "ckpts/last.ckpt", weights_only=True)
    names = {name.split(".")[0] for name in saved["state_dict"]}
    assert names and not names & {"prior", "guidance", "prompt_processor", "network", "unet", "vae"}
    groups = saved["optimizer_states"][0]["param_groups"]
    assert sum(len(group["params"]) for group in groups) == len(list(done.system.parameters()))


def test_two_devices_train_as_one_does_with_twice_the_batch(folders: TinyFolders, tmp_path: Path) -> None:
    """Each device draws its own views and noise, and the gradients are averaged, as over one accumulated batch."""
    settings: dict[str, object] = {"system.prior.pretrained_model_name_or_path": str(folders("stable-diffusion"))}
    one = train("dreamfusion-sd.yaml", tmp_path / "one", **settings, **{"trainer.accumulate_grad_batches": 2})
    settings |= {"trainer.devices": 2, "trainer.strategy": "ddp", "trainer.accelerator": "cpu"}
    here = Path(__file__).parent
    program = [sys.executable, str(here / "train_only.py"), "dreamfusion-sd.yaml"]
    environment = {**os.environ, "PYTHONPATH": str(here.parent), "OMP_NUM_THREADS": str(torch.get_num_threads())}
    subprocess.run(
        [*program, *overrides(tmp_path / "two", 3, settings)], cwd=here.parent, env=environment, check=True, timeout=300
    )
    saved = next((tmp_path / "two").rglob("last.ckpt"))
    both = torch.load(saved, weights_only=True)["state_dict"]
    alone = one.system.state_dict()
    assert both.keys() == alone.keys()
    for name, value in alone.items():
        torch.testing.assert_close(both[name], value, atol=1e-6, rtol=1e-5, msg=name)
    untrained = run.prepare(Request("train", "dreamfusion-sd.yaml", overrides(tmp_path / "start", 3, settings)))
    start = untrained.system.state_dict()
    assert any((alone[name] - start[name]).abs().max() > 1e-3 for name in alone if "weights" in name)

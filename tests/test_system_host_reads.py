"""How often the host waits for a GPU in a step of text to 3D, counted on a GPU that is not there."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from accelerator_double import HOST_READS, pretended_gpu
from system_doubles import make_trainer, tiny_data, tiny_system
from tiny_pipelines import stable_diffusion

from distill3d.data.random_cameras import training_batch
from distill3d.scenes.nerf.sampler import places

# how many samples there are, which sizes all that comes after; and, when these are gone, the gradient's norm with the
# views' opacity, which decides whether the optimiser takes the step. Neither is known when the other is needed
EXPECTED = ["nonzero", "tolist"]


@pytest.fixture(scope="module")
def prior(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return stable_diffusion(tmp_path_factory.mktemp("prior") / "sd")


def steps(system: Any, device: torch.device, monkeypatch: pytest.MonkeyPatch) -> list[list[str]]:
    """What the host waits for in steps 1 to 3, without those that look at the occupancy grid."""
    data, optimizer, reads = tiny_data(batch_size=2), system.configure_optimizers(), []
    for number in (1, 2, 3):
        monkeypatch.setattr(type(system), "global_step", number)
        batch = training_batch(data.cfg, data.views, 0, number).to(device)
        HOST_READS.clear()
        system.on_train_batch_start(batch, 0)
        system.training_step(batch, 0).backward()
        system.on_before_optimizer_step(optimizer)
        reads.append(list(HOST_READS))
        optimizer.zero_grad()
    return reads


@pytest.mark.parametrize("rule", ["sds", "csd"])
def test_the_host_waits_twice_in_a_step(
    prior: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, rule: str
) -> None:
    settings = {
        "prompt_processor_type": "prompt-processor",
        "prompt_processor": {"prompt": "a cat", "cache_dir": str(tmp_path), "textureless_suffix": ", plain"},
        "prior_type": "pretrained-diffusion-model",
        "prior": {"pretrained_model_name_or_path": str(prior), "precision": "float32"},
        "guidance_type": rule,
        "renderer": {"occupancy_update_interval": 100},
        "geometry": {"density_blob_scale": [0, 5.0, 10.0, 10]},
    }
    with pretended_gpu(monkeypatch) as gpu:
        system = tiny_system(**settings)
        system.trainer = make_trainer(tmp_path, 10, log_every_n_steps=1000)
        model = system.make("prior")
        system.prompt_processor.prepare(system.text_requests(), model, gpu)
        system._frozen["prior"] = model.load(gpu)
        system.to(gpu)
        monkeypatch.setattr(type(system), "device", gpu)
        assert steps(system, gpu, monkeypatch) == [EXPECTED] * 3
    assert len(system.health.recent) == 3 and system.record.gradient_norm > 0.0


def test_places_are_those_of_nonzero() -> None:
    for seed in range(5):
        mask = torch.rand(40, generator=torch.Generator().manual_seed(seed)) < seed / 4
        expected = mask.nonzero()[:, 0]
        assert torch.equal(places(mask, len(expected)), expected)

"""The worked prior in custom/: one class is enough to train, resume and export under it."""

from __future__ import annotations

import os

import pytest
import torch
from guidance_inputs import cameras_for

from distill3d.cli import main
from distill3d.config.files import PROJECT
from distill3d.config.registry import make
from distill3d.runtime.extensions import import_extensions
from distill3d.types import Pass

CONFIG = PROJECT / "custom" / "painted_ball" / "painted-ball.yaml"
IN_LITTLE = [
    "data.width=16",
    "data.height=16",
    "data.eval_width=16",
    "data.eval_height=16",
    "data.n_test_views=2",
    "system.contact_views=2",
    "system.renderer.num_samples_per_ray=32",
    "system.exporter.resolution=24",
    "system.exporter.mode=vertex",
    "system.exporter.view_size=16",
    "system.exporter.turntable_views=0",
    "system.exporter.viewer=false",
    "trainer.enable_progress_bar=false",
    "trainer.accelerator=cpu",
]


@pytest.fixture(autouse=True)
def extension(monkeypatch):
    monkeypatch.setattr(os, "environ", dict(os.environ))  # a trial tells its children where it is
    assert "painted_ball" in import_extensions([PROJECT / "custom"])


@pytest.fixture
def prior():
    return make("prior", "painted-ball", {"deviation": 0.2}, "system.prior").load("cpu")


def test_the_answer_is_the_score_of_its_gaussian(prior):
    """``eps = -sigma grad log N(z; alpha m, alpha^2 d^2 + sigma^2)``, by autograd."""
    cameras, t = cameras_for(2), torch.tensor([300, 800])
    z = torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(0), requires_grad=True)
    alpha, sigma = prior.alpha_sigma(t)
    mean = 2 * prior.picture(cameras, 32) - 1
    density = (-0.5 * (z - alpha * mean) ** 2 / (alpha**2 * 0.2**2 + sigma**2)).sum()
    (slope,) = torch.autograd.grad(density, z)
    answer = prior.predict([Pass(z.detach(), t, prior_text(2), cameras=cameras)])[0]
    torch.testing.assert_close(answer.noise, -sigma * slope, atol=1e-5, rtol=1e-4)
    with pytest.raises(ValueError, match="painted-ball paints what a camera sees"):
        prior.predict([Pass(z.detach(), t, prior_text(2))])


def prior_text(rows):
    return make("prior", "painted-ball", {}, "system.prior").text_encoder("cpu")([""] * rows)


def test_the_ball_is_red_in_front_and_blue_behind(prior):
    seen = prior.picture(cameras_for(2)[[0]], 33)[0, :, 16, 16]
    torch.testing.assert_close(seen, torch.tensor(prior.cfg.front))
    behind = prior.picture(cameras_for(3)[[1]], 33)[0, :, 16, 16]  # 150 degrees around
    torch.testing.assert_close(behind, torch.tensor(prior.cfg.back))


def run(root, *settings, steps):
    assert (
        main(
            [
                "--config",
                str(CONFIG),
                "--train",
                f"trainer.max_steps={steps}",
                f"exp_root_dir={root}",
                *IN_LITTLE,
                *settings,
            ]
        )
        == 0
    )
    return max(root.rglob("metrics.json"), key=lambda path: path.stat().st_mtime).parent


def test_it_trains_resumes_bit_for_bit_and_exports(tmp_path):
    whole = run(tmp_path / "whole", steps=12)
    assert (whole / "save/it12-export/model.glb").stat().st_size > 0
    half = run(tmp_path / "parts", steps=6)
    parsed, last = half / "configs/parsed.yaml", half / "ckpts/last.ckpt"
    assert main(["--config", str(parsed), "--train", f"resume={last}", "trainer.max_steps=12"]) == 0
    states = [torch.load(trial / "ckpts/last.ckpt", weights_only=True)["state_dict"] for trial in (whole, half)]
    assert all(torch.equal(states[0][name], states[1][name]) for name in states[0])

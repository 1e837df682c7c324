"""Pictures from nothing: where they go, that all of the picture is seen, and what is left behind."""

from __future__ import annotations

import json

import imageio_ffmpeg
import pytest
import torch
from closed_form import GaussianPrior
from picture_doubles import fit, make_data, make_system
from PIL import Image

from distill3d.scenes.base import Step
from distill3d.scenes.image import cut_windows


def prior_mean(text: str, contrast: float = 0.2) -> torch.Tensor:
    waves = contrast * torch.randn(4, 3, 8, 8, generator=torch.Generator().manual_seed(11))
    return torch.einsum("d,dchw->chw", GaussianPrior()._token(text), waves)


def test_sds_reaches_the_mean_of_a_gaussian_prior(tmp_path):
    """With w = 0 the expected gradient is 0 at the mean of the prompt's images alone."""
    settings = {"guidance": {"guidance_scale": 0.0}, "prior": {"contrast": 0.1}}
    annealed = {"scheduler": {"name": "CosineAnnealingLR", "args": {"T_max": 300}}}
    system = fit("image-synthesis-system", tmp_path, 300, make_data(batch_size=4), **settings, **annealed)
    x = 2 * system.scene.values.detach()[0] - 1
    target = prior_mean("a fox", 0.1)
    assert float((x - target).square().mean().sqrt()) < 0.15 * float(target.square().mean().sqrt())


def test_every_pixel_of_a_large_picture_is_trained_also_the_corners(tmp_path):
    data = make_data(width=40, height=21, batch_size=2)
    system = fit("image-synthesis-system", tmp_path, 60, data, guidance={"guidance_scale": 0.0})
    values = system.scene.values.detach()
    assert values.shape == (1, 3, 21, 40)
    assert (values - 0.5).abs().amin() > 0


def test_views_are_windows_of_the_priors_size_and_a_picture_of_that_size_is_seen_whole(tmp_path):
    system = fit("image-synthesis-system", tmp_path, 1, make_data(width=20, batch_size=3), count=2)
    system._frozen["prior"] = system.prior_to_decode()
    assert system.scene.values.shape == (2, 3, 20, 20)
    x = 2 * system.scene.views(None, Step(1)).images - 1
    assert x.shape == (6, 3, 8, 8) and system.views_of_original(None, Step(1)) is None
    whole = fit("image-synthesis-system", tmp_path / "b", 1)
    whole.prior_to_decode()
    torch.testing.assert_close(2 * whole.scene.views(None, Step(1)).images - 1, 2 * whole.scene.values - 1)


def test_pictures_beside_each_other_have_noise_of_their_own(tmp_path):
    system = fit("image-synthesis-system", tmp_path, 3, count=3)
    first, second, third = system.scene.values.detach()
    assert not torch.equal(first, second) and not torch.equal(second, third)


def test_latents_are_parameters_without_an_encoder_and_decode_to_the_size_asked_for(tmp_path):
    changes = {"prior": {"channels": 4}, "parameters": "latents"}
    system = fit("image-synthesis-system", tmp_path, 2, make_data(width=32, height=24), **changes)
    assert system.scene.values.shape == (1, 4, 12, 16)  # the prior's own latents are 8 x 8
    assert system.pictures().shape == (1, 3, 24, 32)
    with pytest.raises(ValueError, match=r"data.width=17 .* multiples of 2"):
        fit("image-synthesis-system", tmp_path, 1, make_data(width=17, height=24), **changes)


def test_pictures_a_video_and_a_record_are_left(tmp_path):
    system = fit("image-synthesis-system", tmp_path, 6, make_data(width=20, height=12), progress_frames=3, count=2)
    files = system.export()
    assert {file.name for file in files} == {"it6-0.png", "it6-1.png", "it6-progress.mp4"}
    assert Image.open(tmp_path / "save/it6-1.png").size == (20, 12)
    frames = list(imageio_ffmpeg.read_frames(str(tmp_path / "save/it6-progress.mp4")))
    assert len(frames) - 1 == 4 and frames[0]["size"] == (2 * 20 * 22, 12 * 22)
    metrics = json.loads((tmp_path / "metrics.json").read_text())
    assert metrics["steps"] == 6 and set(metrics["files"]) == {f"save/{file.name}" for file in files}


def test_a_run_that_goes_on_is_the_run_that_never_stopped(tmp_path):
    data = {"width": 20, "height": 12}
    whole = fit("image-synthesis-system", tmp_path / "whole", 6, make_data(**data))
    fit("image-synthesis-system", tmp_path / "cut", 3, make_data(**data))
    resumed = fit("image-synthesis-system", tmp_path / "cut", 6, make_data(**data), tmp_path / "cut/ckpts/last.ckpt")
    assert torch.equal(whole.scene.values, resumed.scene.values)
    frames = [sorted(p.name for p in (tmp_path / run / "save/progress").iterdir()) for run in ("whole", "cut")]
    assert frames[0] == frames[1]


def test_a_checkpoint_brings_its_picture_without_prior_or_trainer(tmp_path):
    trained = fit("image-synthesis-system", tmp_path, 2, make_data(width=20, height=12))
    checkpoint = torch.load(tmp_path / "ckpts/last.ckpt", weights_only=True)
    other = make_system("image-synthesis-system")
    other.on_load_checkpoint(checkpoint)
    other.load_state_dict(checkpoint["state_dict"])
    assert torch.equal(other.pictures(), trained.pictures())
    assert not other._frozen


def test_windows_are_cut_in_the_order_of_the_pictures():
    values = torch.arange(2 * 16.0).view(2, 1, 4, 4)
    corners = torch.tensor([[0, 0], [2, 1], [1, 2], [0, 0]])
    cut = cut_windows(values, corners, 2)
    assert torch.equal(cut[1], values[0, :, 2:4, 1:3]) and torch.equal(cut[2], values[1, :, 1:3, 2:4])

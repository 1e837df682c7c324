"""Zero123 against a twin that is written out of its own parts: what the network reads, guidance, and its gradient."""

from __future__ import annotations

import json
import math
import os
from dataclasses import fields
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image
from safetensors.torch import load_file
from tiny_pipelines import stable_diffusion, zero123

from distill3d.camera import make_cameras
from distill3d.cli import main
from distill3d.config.check import build
from distill3d.guidance.base import distillation_loss
from distill3d.guidance.sds import SDS
from distill3d.guidance.vsd import VSD
from distill3d.priors.hub import PriorError
from distill3d.priors.loader import PretrainedDiffusionModel, load_prior, load_prompt_encoder
from distill3d.priors.settings import PriorConfig, ReferencePicture
from distill3d.types import GuidanceInput, Pass

PLACE = {"elevation_deg": 10.0, "azimuth_deg": 30.0, "distance": 1.5}


@pytest.fixture(scope="module")
def photo(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A smooth disc before nothing, of 32x32 pixels: the size at which the tiny model sees it."""
    y, x = np.mgrid[0:32, 0:32] / 31.0
    pixels = np.stack([x, y, 1.0 - x, (x - 0.5) ** 2 + (y - 0.5) ** 2 < 0.16], -1)
    path = tmp_path_factory.mktemp("photo") / "disc.png"
    Image.fromarray((pixels * 255).round().astype(np.uint8)).save(path)
    return path


@pytest.fixture(scope="module", params=["cc_projection", "clip_camera_projection"])
def folder(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return zero123(tmp_path_factory.mktemp("zero123") / "model", request.param)


def config(folder: Path, photo: Path | None, **reference: Any) -> PriorConfig:
    picture = {"image": None if photo is None else str(photo), **PLACE, **reference}
    settings = {"pretrained_model_name_or_path": str(folder), "reference": picture, "channels_last": False}
    return build(PriorConfig, settings, "system.prior")


def cameras() -> Any:
    values = ([40.0, -20.0, 10.0], [-100.0, 170.0, 30.0], [1.2, 2.0, 1.5], [20.0] * 3)
    return make_cameras(*(torch.tensor(value) for value in values), 16, 16)


def twin(folder: Path, photo: Path, z: torch.Tensor, t: torch.Tensor, fourth: list[float], dropped: bool) -> Any:
    """The noise that the U-Net answers, from the parts on disk; numbers of a pose written out by hand."""
    from diffusers import AutoencoderKL, UNet2DConditionModel
    from transformers import CLIPVisionModelWithProjection

    unet = UNet2DConditionModel.from_pretrained(folder / "unet")
    vae = AutoencoderKL.from_pretrained(folder / "vae")
    vision = CLIPVisionModelWithProjection.from_pretrained(folder / "image_encoder")
    (weights,) = list(folder.glob("c*/*.safetensors"))
    linear = {name.split(".")[-1]: value for name, value in load_file(weights).items()}
    pixels = torch.from_numpy(np.array(Image.open(photo), np.float32) / 255).permute(2, 0, 1)
    picture = (pixels[:3] * pixels[3:] + 1 - pixels[3:])[None]
    large = F.interpolate(picture, (256, 256), mode="bilinear", align_corners=False)
    clip = F.interpolate(large, (28, 28), mode="bicubic", align_corners=True)
    mean, std = torch.tensor([0.48145466, 0.4578275, 0.40821073]), torch.tensor([0.26862954, 0.26130258, 0.27577711])
    embedding = vision(pixel_values=(clip - mean[:, None, None]) / std[:, None, None]).image_embeds
    rows = []
    for elevation, azimuth, last in zip([40.0, -20.0, 10.0], [-100.0, 170.0, 30.0], fourth, strict=True):
        turn = math.radians(azimuth - 30.0)
        pose = torch.tensor([[math.radians(10.0 - elevation), math.sin(turn), math.cos(turn), last]])
        rows.append(torch.cat([embedding, pose], 1) @ linear["weight"].T + linear["bias"])
    context, beside = torch.stack(rows), vae.encode(2 * picture - 1).latent_dist.mode().expand(3, -1, -1, -1)
    if dropped:
        context, beside = torch.zeros_like(context), torch.zeros_like(beside)
    return unet(torch.cat([z, beside], 1), t, encoder_hidden_states=context).sample


FOURTH = {"distance": [1.2 - 1.5, 2.0 - 1.5, 0.0], "polar": [math.radians(80.0)] * 3}


@pytest.mark.parametrize("pose", ["distance", "polar"])
def test_the_network_reads_what_its_authors_gave_it(folder: Path, photo: Path, pose: str) -> None:
    cfg = config(folder, photo, pose=pose)
    prior, encoder = load_prior(cfg), load_prompt_encoder(cfg)
    assert prior.spec.conditions == {"text", "camera"} and prior.spec.image_sizes == (32,)
    z, t = torch.randn(3, 4, 16, 16, generator=torch.Generator().manual_seed(1)), torch.tensor([20, 500, 900])
    told, untold = (encoder([text] * 3) for text in ("disc.png", ""))
    answers = prior.predict([Pass(z, t, told, cameras=cameras()), Pass(z, t, untold, cameras=cameras())])
    with torch.no_grad():
        for answer, dropped in zip(answers, (False, True), strict=True):
            torch.testing.assert_close(
                answer.noise, twin(folder, photo, z, t, FOURTH[pose], dropped), atol=1e-5, rtol=1e-4
            )
    assert (answers[0].noise - answers[1].noise).abs().max() > 1e-2


def test_the_gradient_is_that_of_guidance_over_picture_and_pose_together(folder: Path, photo: Path) -> None:
    """threestudio's ``none + s (told - none) - eps`` with s = 3, which is w = 2 here, weighed by 1 - abar."""
    cfg = config(folder, photo)
    prior, encoder = load_prior(cfg), load_prompt_encoder(cfg)
    x = torch.randn(3, 4, 16, 16, generator=torch.Generator().manual_seed(2), requires_grad=True)
    texts = {"conditional": encoder(["disc.png"] * 3), "negative": encoder([""] * 3)}
    rule = SDS(build(SDS.Config, {"guidance_scale": 2.0}, "system.guidance"))
    inputs = GuidanceInput(x, texts, 0, 1, torch.Generator().manual_seed(3), cameras())
    draw = rule.draw(prior, GuidanceInput(x, texts, 0, 1, torch.Generator().manual_seed(3), cameras()))
    distillation_loss(x, rule(prior, inputs).grad).backward()
    with torch.no_grad():
        told, none = (twin(folder, photo, draw.z, draw.t, FOURTH["distance"], d) for d in (False, True))
        expected = (1 - draw.alpha**2) * (none + 3 * (told - none) - draw.eps) / 3
    assert x.grad is not None
    torch.testing.assert_close(x.grad, expected, atol=1e-5, rtol=1e-4)


# each option of ReferencePicture with a value other than the test's
PICTURE = {
    "image": "other.png",
    "background_removal": "none",
    "fill": 0.5,
    "elevation_deg": 20.0,
    "azimuth_deg": 0.0,
    "distance": 2.0,
    "pose": "polar",
}


def test_every_option_of_the_picture_is_heard(folder: Path, photo: Path, tmp_path: Path) -> None:
    assert list(PICTURE) == [field.name for field in fields(ReferencePicture)]
    Image.open(photo).transpose(Image.Transpose.ROTATE_90).save(tmp_path / "other.png")
    z, t = torch.randn(3, 4, 16, 16, generator=torch.Generator().manual_seed(1)), torch.full((3,), 500)

    def noise(**reference: Any) -> torch.Tensor:
        cfg = config(folder, photo, **reference)
        text = load_prompt_encoder(cfg)(["disc.png"] * 3)
        return load_prior(cfg).predict([Pass(z, t, text, cameras=cameras())])[0].noise

    plain = noise()
    for option, value in PICTURE.items():
        answer = noise(**{option: str(tmp_path / "other.png") if option == "image" else value})
        assert bool(answer.isfinite().all()) and float((answer - plain).abs().max()) > 1e-4, option


def test_vsd_trains_an_adapter_under_it(folder: Path, photo: Path) -> None:
    """The camera token of VSD is no second condition here: the pose is told already."""
    cfg = config(folder, photo)
    prior, encoder = load_prior(cfg), load_prompt_encoder(cfg)
    texts = {role: encoder([text] * 3) for role, text in {"conditional": "a", "object": "a", "negative": ""}.items()}
    rule = VSD(build(VSD.Config, {}, "system.guidance"))
    x = torch.randn(3, 4, 16, 16, generator=torch.Generator().manual_seed(2))
    output = rule(prior, GuidanceInput(x, texts, 0, 1, torch.Generator().manual_seed(3), cameras()))
    assert output.grad.isfinite().all() and output.grad.abs().max() > 0 and output.own_loss is not None
    output.own_loss.backward()
    assert any(p.grad is not None and p.grad.abs().max() > 0 for p in rule.adapter.parameters())  # type: ignore[union-attr]


def test_the_camera_moves_the_answer_and_must_be_told(folder: Path, photo: Path) -> None:
    cfg = config(folder, photo)
    prior, text = load_prior(cfg), load_prompt_encoder(cfg)(["disc.png"] * 3)
    z, t = torch.zeros(3, 4, 16, 16), torch.full((3,), 500)
    (answer,) = prior.predict([Pass(z, t, text, cameras=cameras())])
    assert (answer.noise[0] - answer.noise[1]).abs().max() > 1e-3
    with pytest.raises(PriorError, match=r"must be told where the camera stands"):
        prior.predict([Pass(z, t, text)])


def test_mistakes_are_named_before_anything_is_loaded(folder: Path, photo: Path, tmp_path: Path) -> None:
    model = PretrainedDiffusionModel(config(folder, None))
    with pytest.raises(PriorError, match=r"system\.prior\.reference\.image is not set"):
        model.check()
    with pytest.raises(ValueError, match=r"system\.prior\.reference\.image='.*gone\.png' is no file"):
        PretrainedDiffusionModel(config(folder, tmp_path / "gone.png")).check()
    model = PretrainedDiffusionModel(config(folder, photo))
    model.check()
    assert model.text_cache_key("cpu") is None and model.text_parameters() > 0
    assert set(model.frozen_weights()) == {"prior", "text", "picture"}


def test_a_layer_that_is_none_is_refused(photo: Path, tmp_path: Path) -> None:
    from safetensors.torch import save_file

    folder = zero123(tmp_path / "model")
    save_file({"a.weight": torch.zeros(2)}, folder / "cc_projection" / "diffusion_pytorch_model.safetensors")
    with pytest.raises(PriorError, match=r"is no linear layer; it has a\.weight"):
        load_prior(config(folder, photo))


SMALL = [
    "data.reference_size=16",
    "data.batch_size=2",
    "data.width=12",
    "data.height=12",
    "data.resolution_milestones=[]",
    "data.eval_width=16",
    "data.eval_height=16",
    "data.n_test_views=2",
    "data.n_val_views=1",
    "system.contact_views=2",
    "system.prior.image_size=32",
    "system.geometry.pos_encoding_config.n_levels=4",
    "system.renderer.num_samples_per_ray=64",
    "system.exporter={resolution: 24, mode: vertex, view_size: 16, viewer: false, sharpen: false, fit_count: 0}",
    "trainer.enable_progress_bar=false",
    "trainer.accelerator=cpu",
    "trainer.max_steps=3",
]


def test_the_shipped_config_trains_on_a_tiny_model(photo: Path, tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.setattr(os, "environ", dict(os.environ))  # a trial tells its children where it is
    named = [f"data.image={photo}", f"system.prior.pretrained_model_name_or_path={zero123(tmp_path / 'model')}"]
    arguments = ["--config", "zero123.yaml", "--train", *named, *SMALL, f"exp_root_dir={tmp_path / 'out'}"]
    assert main([*arguments, "system.prompt_processor.negative_prompt=ugly"]) != 0
    other = f"system.prior.pretrained_model_name_or_path={stable_diffusion(tmp_path / 'sd')}"
    assert main(arguments) == 0
    (path,) = (tmp_path / "out").rglob("metrics.json")
    metrics = json.loads(path.read_text())
    assert metrics["steps"] == 3 and not metrics["diverged"] and metrics["skipped_steps"] == 0
    assert PretrainedDiffusionModel(PriorConfig(other.partition("=")[2])).text_cache_key("cpu") is not None

"""Every kind of prior, loaded from a tiny folder by the real code, against diffusers' schedulers and pipelines."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from tiny_pipelines import TINY, TinyFolders, flux, tiny_settings
from tiny_priors import FLOWS, embed, load, noisy

from distill3d.camera import make_cameras
from distill3d.priors.base import DiffusionPrior, add_noise
from distill3d.priors.hub import PriorError
from distill3d.priors.loader import PriorConfig, load_prior
from distill3d.priors.pixel import PixelPrior
from distill3d.types import Cameras, Pass

KINDS = list(TINY)
LATENT = ["stable-diffusion", "stable-diffusion-2", "sdxl", "sd3", "flux", "pixart-sigma", "z-image"]
VARIANCE_PRESERVING = [kind for kind in KINDS if kind not in FLOWS]


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> TinyFolders:
    return TinyFolders(tmp_path_factory.mktemp("tiny"))


# encoding


@pytest.mark.parametrize("kind", KINDS)
def test_encode_resizes_and_is_deterministic_and_differentiable(folders: TinyFolders, kind: str) -> None:
    prior = load(folders, kind)
    rgb = torch.rand(2, 3, 20, 20, requires_grad=True)
    x = prior.encode(rgb)
    assert torch.equal(x, prior.encode(rgb))
    x.square().sum().backward()
    assert rgb.grad is not None and rgb.grad.isfinite().all() and (rgb.grad != 0).any(dim=1).all()
    decoded = prior.decode(x)
    assert decoded.shape[-1] == prior.spec.image_sizes[0]
    assert decoded.min() >= 0.0 and decoded.max() <= 1.0


@pytest.mark.parametrize("kind", ["embedded", "embedded-own", "deepfloyd-if"])
def test_a_pixel_prior_decodes_what_it_encoded(folders: TinyFolders, kind: str) -> None:
    prior = load(folders, kind)
    rgb = torch.rand(1, 3, 16, 16)
    torch.testing.assert_close(prior.decode(prior.encode(rgb)), rgb)


@pytest.mark.parametrize("kind", LATENT)
def test_latents_are_the_shifted_and_scaled_posterior_mean(folders: TinyFolders, kind: str) -> None:
    from diffusers import AutoencoderKL

    vae = AutoencoderKL.from_pretrained(folders(kind) / "vae")
    rgb = torch.rand(1, 3, 32, 32)
    mean = vae.encode(2 * rgb - 1).latent_dist.mean
    expected = (mean - (vae.config.shift_factor or 0.0)) * vae.config.scaling_factor
    prior = load(folders, kind)
    torch.testing.assert_close(prior.encode(rgb), expected.detach())
    image = vae.decode(mean).sample.detach()
    torch.testing.assert_close(prior.decode(expected), (image / 2 + 0.5).clamp(0, 1), atol=1e-5, rtol=1e-5)


def test_a_checkpointed_encoder_has_the_same_gradient(folders: TinyFolders) -> None:
    gradients = []
    for checkpointing in (False, True):
        prior = load(folders, "stable-diffusion", vae_checkpointing=checkpointing)
        rgb = torch.linspace(0, 1, 3 * 32 * 32).view(1, 3, 32, 32).requires_grad_()
        prior.encode(rgb).square().sum().backward()
        gradients.append(rgb.grad)
    torch.testing.assert_close(gradients[0], gradients[1])


def test_slicing_and_memory_layout_change_no_result(folders: TinyFolders) -> None:
    plain = load(folders, "stable-diffusion", channels_last=False)
    saving = load(folders, "stable-diffusion", vae_slicing=True)
    x, rgb = noisy(plain), torch.rand(2, 3, 32, 32)
    torch.testing.assert_close(plain.decode(x), saving.decode(x), atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(plain.encode(rgb), saving.encode(rgb), atol=1e-5, rtol=1e-5)


def test_tiling_affects_only_images_above_the_vaes_own_size(folders: TinyFolders) -> None:
    plain, tiled = (load(folders, "stable-diffusion", image_size=16, vae_tiling=tiling) for tiling in (False, True))
    rgb = torch.rand(1, 3, 16, 16)
    torch.testing.assert_close(plain.encode(rgb), tiled.encode(rgb))
    larger = load(folders, "stable-diffusion", vae_tiling=True)
    assert larger.encode(rgb).shape[-2:] == (16, 16)


def test_image_size_is_the_users_if_given(folders: TinyFolders) -> None:
    prior = load(folders, "stable-diffusion", image_size=64)
    assert prior.spec.image_sizes == (64,)
    assert prior.encode(torch.rand(1, 3, 20, 40)).shape[-2:] == (32, 64)
    with pytest.raises(PriorError, match=r"system\.prior\.image_size=20 is no multiple of 16"):
        load(folders, "stable-diffusion", image_size=20)


# prediction


@pytest.mark.parametrize("kind", VARIANCE_PRESERVING)
def test_noising_and_velocity_agree_with_the_scheduler(folders: TinyFolders, kind: str) -> None:
    from diffusers import DDPMScheduler

    prior = load(folders, kind)
    scheduler = DDPMScheduler.from_pretrained(folders(kind) / "scheduler")
    x, eps, t = noisy(prior, 3, 0), noisy(prior, 3, 1), torch.tensor([0, 400, 999])
    torch.testing.assert_close(add_noise(prior, x, eps, t), scheduler.add_noise(x, eps, t))
    alpha, sigma = prior.alpha_sigma(t)
    torch.testing.assert_close(alpha * eps - sigma * x, scheduler.get_velocity(x, eps, t))


@pytest.mark.parametrize("kind", FLOWS)
def test_flow_noising_agrees_with_the_scheduler(folders: TinyFolders, kind: str) -> None:
    from diffusers import FlowMatchEulerDiscreteScheduler

    prior = load(folders, kind)
    scheduler = FlowMatchEulerDiscreteScheduler.from_pretrained(folders(kind) / "scheduler")
    x, eps, t = noisy(prior, 3, 0), noisy(prior, 3, 1), torch.tensor([0, 400, 999])
    expected = scheduler.scale_noise(x, (t + 1).float(), eps)  # the scheduler's own times are 1000, 999, ... 1
    torch.testing.assert_close(add_noise(prior, x, eps, t), expected)


@pytest.mark.parametrize("kind", KINDS)
def test_noise_and_clean_image_explain_the_noisy_one(folders: TinyFolders, kind: str) -> None:
    prior = load(folders, kind)
    t = torch.tensor([50, 700])
    z, (alpha, sigma) = noisy(prior), prior.alpha_sigma(t)
    answer = prior.predict([Pass(z, t, embed(folders, kind))])[0]
    assert answer.noise.dtype == answer.x0.dtype == torch.float32
    torch.testing.assert_close(alpha * answer.x0 + sigma * answer.noise, z, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("kind", KINDS)
def test_batched_passes_equal_separate_ones(folders: TinyFolders, kind: str) -> None:
    prior = load(folders, kind)
    text, t = embed(folders, kind), torch.tensor([100, 900])
    passes = [Pass(noisy(prior, 2, seed), t, text[rows]) for seed, rows in enumerate(([0, 1], [1, 0], [0, 0]))]
    together = prior.predict(passes)
    for item, answer in zip(passes, together, strict=True):
        alone = prior.predict([item])[0]
        torch.testing.assert_close(answer.noise, alone.noise, atol=2e-5, rtol=1e-4)
        torch.testing.assert_close(answer.x0, alone.x0, atol=2e-5, rtol=1e-4)


def test_the_text_matters(folders: TinyFolders) -> None:
    for kind in KINDS:
        prior = load(folders, kind)
        z, t, text = noisy(prior, 1), torch.tensor([500]), embed(folders, kind)
        first, second = prior.predict([Pass(z, t, text[[0]]), Pass(z, t, text[[1]])])
        assert (first.noise - second.noise).abs().max() > 1e-5, kind


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("precision", ["bfloat16", "float16"])
def test_half_precision_is_finite_and_near(folders: TinyFolders, kind: str, precision: str) -> None:
    full, half = load(folders, kind), load(folders, kind, precision=precision)
    text, t = embed(folders, kind), torch.tensor([20, 980])
    z = noisy(full)
    expected, answer = full.predict([Pass(z, t, text)])[0], half.predict([Pass(z, t, text)])[0]
    assert answer.noise.dtype == torch.float32 and answer.x0.isfinite().all()
    torch.testing.assert_close(answer.noise, expected.noise, atol=0.1, rtol=0.1)
    rgb = torch.rand(1, 3, 32, 32, requires_grad=True)
    half.encode(rgb).sum().backward()
    assert rgb.grad is not None and rgb.grad.isfinite().all()


def test_the_vae_that_overflows_in_fp16_runs_in_another_precision(folders: TinyFolders) -> None:
    prior = load(folders, "sdxl", precision="float16")
    assert prior.codec.dtype == torch.float32  # type: ignore[attr-defined]
    assert prior.dtype == torch.float16  # type: ignore[attr-defined]


def test_autocast_around_it_changes_nothing(folders: TinyFolders) -> None:
    prior, text = load(folders, "stable-diffusion"), embed(folders, "stable-diffusion")
    item = Pass(noisy(prior), torch.tensor([100, 900]), text)
    expected = prior.predict([item])[0]
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(prior.predict([item])[0].noise, expected.noise)


def test_gradient_reaches_z_only_when_asked(folders: TinyFolders) -> None:
    prior, text = load(folders, "embedded"), embed(folders, "embedded")
    z = noisy(prior).requires_grad_()
    item = Pass(z, torch.tensor([100, 900]), text)
    assert not prior.predict([item])[0].noise.requires_grad
    prior.predict([item], grad=True)[0].noise.sum().backward()
    assert z.grad is not None and z.grad.abs().sum() > 0
    assert all(parameter.grad is None for parameter in prior.network.parameters())  # type: ignore[attr-defined]


@pytest.mark.parametrize("conditioning", ["auto", "none"])
def test_cameras_reach_a_network_that_takes_them(
    folders: TinyFolders, monkeypatch: pytest.MonkeyPatch, conditioning: str
) -> None:
    """And no other; where they are dropped, passes that differ in the camera alone are one."""
    monkeypatch.setattr(PixelPrior, "takes_cameras", lambda _: True)
    prior, text = load(folders, "embedded", camera_conditioning=conditioning), embed(folders, "embedded")
    seen: list[Cameras | None] = []
    original = PixelPrior.network_output

    def watched(
        self: PixelPrior, network: object, z: torch.Tensor, t: torch.Tensor, words: object, cameras: Cameras | None
    ) -> torch.Tensor:
        seen.append(cameras)
        return original(self, network, z, t, words, None)  # type: ignore[arg-type]

    monkeypatch.setattr(PixelPrior, "network_output", watched)
    z, t, full = noisy(prior), torch.tensor([100, 900]), torch.ones(2)
    sides = [make_cameras(20 * full, a * full, 1.5 * full, 40 * full, 16, 16) for a in (0.0, 90.0)]
    answers = prior.predict([Pass(z, t, text, cameras=cameras) for cameras in sides])
    if conditioning == "none":
        assert seen == [None] and answers[0] is answers[1] and "camera" not in prior.spec.conditions
    else:
        assert "camera" in prior.spec.conditions and seen[0] is not None
        assert seen[0].azimuth_deg.tolist() == [0.0, 0.0, 90.0, 90.0]


@pytest.mark.parametrize("kind", KINDS)
def test_the_spec_tells_the_shape_of_x_without_encoding(folders: TinyFolders, kind: str) -> None:
    prior = load(folders, kind)
    assert (prior.spec.space == "latents") == (kind in LATENT) and prior.spec.flow == (kind in FLOWS)
    for size in (*prior.spec.image_sizes, 3 * prior.spec.image_sizes[-1]):
        x = prior.encode(torch.zeros(1, 3, size, size))
        assert x.shape[1:] == prior.spec.x_shape(size)
        assert prior.spec.native_size(x) == min(size, prior.spec.image_sizes[-1])


def test_equal_passes_are_evaluated_once(folders: TinyFolders, monkeypatch: pytest.MonkeyPatch) -> None:
    prior, text = load(folders, "embedded"), embed(folders, "embedded")
    rows: list[int] = []
    original = type(prior).network_output  # type: ignore[attr-defined]

    def counted(self: object, network: object, z: torch.Tensor, *rest: object) -> torch.Tensor:
        rows.append(len(z))
        return original(self, network, z, *rest)

    monkeypatch.setattr(type(prior), "network_output", counted)
    z, t = noisy(prior), torch.tensor([100, 900])
    first, again, other = prior.predict([Pass(z, t, text), Pass(z.clone(), t.clone(), text[[0, 1]]), Pass(-z, t, text)])
    assert rows == [4]
    assert again is first and other is not first


# what a model says of itself


def test_flux_guidance_is_an_input_of_the_distilled_model_alone(folders: TinyFolders, tmp_path: Path) -> None:
    text = embed(folders, "flux")
    low, high = (load(folders, "flux", distilled_guidance=value) for value in (1.0, 9.0))
    item = Pass(noisy(low), torch.tensor([100, 900]), text)
    assert (low.predict([item])[0].noise - high.predict([item])[0].noise).abs().max() > 1e-5
    schnell = PriorConfig(str(flux(tmp_path, guidance_embeds=False)), **tiny_settings("flux"))
    assert load_prior(schnell, "cpu").predict([item])[0].noise.isfinite().all()


def test_nothing_of_a_prior_is_a_module(folders: TinyFolders) -> None:
    """A system that holds a prior must not find parameters, buffers or submodules in it."""
    for kind in KINDS:
        assert not isinstance(load(folders, kind), torch.nn.Module)
        assert isinstance(load(folders, kind), DiffusionPrior)


def test_the_projects_own_network_works_at_both_of_its_sizes(folders: TinyFolders) -> None:
    prior, text = load(folders, "embedded-own"), embed(folders, "embedded-own")
    assert prior.spec.image_sizes == (16, 32)
    for size in prior.spec.image_sizes:
        z = prior.encode(torch.rand(2, 3, size + 3, size + 3))
        assert z.shape[-1] == size
        assert prior.predict([Pass(z, torch.tensor([5, 900]), text)])[0].x0.shape == z.shape

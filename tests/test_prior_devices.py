"""What a machine without a GPU can know of a run on one: no tensor of the CPU strays into a step."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from accelerator_double import GpuTensor, MixedDevicesError, pretended_gpu
from tiny_pipelines import TINY, TinyFolders

from distill3d.priors.loader import PriorError, load_prior, load_prompt_encoder
from distill3d.types import Pass


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> TinyFolders:
    return TinyFolders(tmp_path_factory.mktemp("tiny"))


@pytest.fixture
def gpu(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[torch.device]:
    monkeypatch.setenv("DISTILL3D_CACHE", str(tmp_path / "cache"))
    with pretended_gpu(monkeypatch) as device:
        yield device


def test_the_double_tells_devices_apart(gpu: torch.device) -> None:
    there, here = torch.ones(3, device=gpu), torch.ones(3)
    assert (there + torch.tensor(1.0)).tolist() == [2.0, 2.0, 2.0]
    assert type(there.cpu()) is torch.Tensor and there.cpu().device.type == "cpu"
    for wrong in (
        lambda: there + here,
        lambda: torch.cat([there, here]),
        lambda: here[there.long()],
        lambda: here.add_(there),
        lambda: torch.randn(3, generator=torch.Generator(), device=gpu),
    ):
        with pytest.raises(MixedDevicesError):
            wrong()


@pytest.mark.parametrize("kind", list(TINY))
def test_a_prior_on_the_gpu_answers_as_on_the_cpu(
    folders: TinyFolders, kind: str, monkeypatch: pytest.MonkeyPatch, gpu: torch.device
) -> None:
    cfg = folders.config(kind, precision="float32")
    encoder, prior = load_prompt_encoder(cfg, gpu), load_prior(cfg, gpu)
    text = encoder(["a cat", ""])
    assert type(text.tokens) is torch.Tensor  # ready for the cache
    rgb = torch.rand(2, 3, 20, 20)
    there = rgb.to(gpu).requires_grad_()
    x = prior.encode(there)
    z, t = torch.randn_like(x), torch.tensor([100, 900], device=gpu)
    text_there = text.to(gpu)
    answers = prior.predict([Pass(z, t, text_there), Pass(z, t, text_there[[1, 0]])])
    x.square().sum().backward()
    gradient, latents, decoded = there.grad, x, prior.decode(x)
    assert all(isinstance(each, GpuTensor) for each in (gradient, latents, decoded, answers[0].noise, answers[0].x0))
    alone = load_prior(cfg, "cpu")
    here = rgb.requires_grad_()
    expected = alone.encode(here)
    expected.square().sum().backward()
    torch.testing.assert_close(latents.detach().cpu(), expected.detach(), atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(gradient.cpu(), here.grad, atol=1e-5, rtol=1e-4)  # type: ignore[union-attr]
    z, t = z.cpu(), t.cpu()
    for ours, theirs in zip(answers, alone.predict([Pass(z, t, text), Pass(z, t, text[[1, 0]])]), strict=True):
        torch.testing.assert_close(ours.noise.cpu(), theirs.noise, atol=1e-4, rtol=1e-3)


def test_offloaded_weights_and_a_backward_through_them_exclude_each_other(
    folders: TinyFolders, gpu: torch.device
) -> None:
    prior = load_prior(folders.config("stable-diffusion", cpu_offload=True), gpu)
    text = load_prompt_encoder(folders.config("stable-diffusion"), gpu)(["a cat"]).to(gpu)
    item = Pass(torch.randn(1, 4, 16, 16, device=gpu), torch.tensor([500], device=gpu), text)
    with pytest.raises(PriorError, match=r"system\.prior\.cpu_offload=true"):
        prior.predict([item], grad=True)

"""What a machine without a GPU can know of a run on one: no tensor of the CPU strays into a step."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from accelerator_double import GpuTensor, MixedDevicesError, pretended_gpu
from tiny_pipelines import TINY, TinyFolders

from distill3d.priors.loader import PretrainedDiffusionModel, PriorError, load_prior, load_prompt_encoder
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


@pytest.mark.parametrize("kind", ["sd3", "sdxl", "flux"])
def test_text_encoders_visit_the_gpu_one_at_a_time(folders: TinyFolders, kind: str, gpu: torch.device) -> None:
    encoder = load_prompt_encoder(folders.config(kind, precision="float32"), gpu)
    towers = encoder.towers  # type: ignore[attr-defined]
    there: list[list[bool]] = []

    def look(*_: object) -> None:
        there.append([all(isinstance(p, GpuTensor) for p in tower.model.parameters()) for tower in towers])

    for tower in towers:
        tower.model.register_forward_pre_hook(look)
    look()
    embedding = encoder(["a cat"])
    look()
    assert len(towers) > 1 and there[0] == there[-1] == [False] * len(towers)
    assert [row.index(True) for row in there[1:-1]] == list(range(len(towers)))
    assert all(sum(row) == 1 for row in there[1:-1])
    alone = load_prompt_encoder(folders.config(kind, precision="float32"), "cpu")(["a cat"])
    torch.testing.assert_close(embedding.tokens, alone.tokens, atol=1e-5, rtol=1e-4)


def test_text_encoders_stay_on_the_cpu_by_choice(folders: TinyFolders, gpu: torch.device) -> None:
    cfg = folders.config("sd3", text_encoder_device="cpu")
    encoder = load_prompt_encoder(cfg, gpu)
    assert not any(isinstance(p, GpuTensor) for tower in encoder.towers for p in tower.model.parameters())  # type: ignore[attr-defined]
    assert torch.equal(encoder(["a cat"]).tokens, load_prompt_encoder(folders.config("sd3"), "cpu")(["a cat"]).tokens)
    model = PretrainedDiffusionModel(cfg)
    key = model.text_cache_key(gpu)
    assert key is not None and key.endswith("float32") and key == model.text_cache_key("cpu")


def test_offloaded_weights_and_a_backward_through_them_exclude_each_other(
    folders: TinyFolders, gpu: torch.device
) -> None:
    prior = load_prior(folders.config("stable-diffusion", cpu_offload=True), gpu)
    text = load_prompt_encoder(folders.config("stable-diffusion"), gpu)(["a cat"]).to(gpu)
    item = Pass(torch.randn(1, 4, 16, 16, device=gpu), torch.tensor([500], device=gpu), text)
    with pytest.raises(PriorError, match=r"system\.prior\.cpu_offload=true"):
        prior.predict([item], grad=True)

"""What only a GPU can show: its own kernels against their twins, and whole steps (`pytest -m cuda`)."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from grids import table_and_points
from test_scene_splats import some
from test_system_splats import trained_a_little

from distill3d.camera import orbit_cameras
from distill3d.scenes.nerf.grid import interpolate_reference
from distill3d.scenes.nerf.grid_gather import interpolate_gathered
from distill3d.scenes.splats import compositing
from distill3d.scenes.splats import draw as drawing
from distill3d.scenes.splats.gaussians import Gaussians
from distill3d.types import Cameras

pytestmark = [pytest.mark.cuda, pytest.mark.skipif(not torch.cuda.is_available(), reason="needs CUDA")]


def drawn(cloud: Gaussians, values: torch.Tensor, cameras: Cameras) -> tuple[torch.Tensor, ...]:
    """Picture, transmittance, and the gradients of a weighted sum of both for all parameters and values."""
    shape = {name: value for name, value in cloud.tensors().items() if name != "colors"}
    parts = [x.detach().requires_grad_() for x in (*shape.values(), values)]
    seen = drawing.draw(Gaussians(*parts[:-1], colors=cloud.colors), parts[-1], cameras)
    weights = torch.linspace(-1.0, 1.0, seen.values.numel(), device=values.device).view_as(seen.values)
    loss = (seen.values * weights).sum() + (seen.passed * weights[:, :1]).sum()
    return seen.values.detach(), seen.passed.detach(), *torch.autograd.grad(loss, parts)


def case(size: int = 48) -> tuple[Gaussians, torch.Tensor, Cameras]:
    return some(300), torch.rand(2, 300, 5), orbit_cameras(2, 20.0, 1.5, 45.0, size)


def on_gpu(cloud: Gaussians) -> Gaussians:
    return Gaussians(**{name: value.cuda() for name, value in cloud.tensors().items()})


def compare(ours: tuple[torch.Tensor, ...], theirs: tuple[torch.Tensor, ...], values: float, slopes: float) -> None:
    for a, b in zip(ours[:2], theirs[:2], strict=True):
        assert float((a.cpu() - b.cpu()).abs().max()) < values
    for a, b in zip(ours[2:], theirs[2:], strict=True):
        assert float((a.cpu() - b.cpu()).abs().max()) < slopes * float(a.abs().max())


@pytest.mark.parametrize("whole", [1 << 25, 0], ids=["at once", "in tiles"])
def test_splats_in_torch_are_those_of_the_cpus_kernel(whole: int, monkeypatch: pytest.MonkeyPatch) -> None:
    cloud, values, cameras = case(80)
    ours = drawn(cloud, values, cameras)
    monkeypatch.setenv("DISTILL3D_KERNELS", "torch")
    monkeypatch.setattr(compositing, "WHOLE", whole)
    compare(ours, drawn(on_gpu(cloud), values.cuda(), cameras.to("cuda")), 1e-4, 1e-3)


@pytest.mark.skipif(not (torch.cuda.is_available() and drawing.gsplat_can_draw()), reason="needs gsplat and nvcc")
def test_gsplat_draws_the_same_splats(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its ellipses end at 3.33 deviations and its transmittance at 1e-4, so that faint borders may differ."""
    cloud, values, cameras = case()
    monkeypatch.delenv("DISTILL3D_KERNELS", raising=False)
    assert drawing.has_gsplat(torch.device("cuda"))
    theirs = drawn(on_gpu(cloud), values.cuda(), cameras.to("cuda"))
    ours = drawn(cloud, values, cameras)
    assert float((ours[0] - theirs[0].cpu()).abs().mean()) < 1e-3
    for a, b in zip(ours[2:], theirs[2:], strict=True):
        assert float(torch.cosine_similarity(a.flatten(), b.cpu().flatten(), dim=0)) > 0.99


def test_the_hash_grid_is_its_reference() -> None:
    table, points, levels = table_and_points("dense and hashed")
    expected = interpolate_reference(table, points, levels)
    grads = [torch.randn_like(x) for x in expected]
    wanted = torch.autograd.grad(expected, table, grads)[0]
    there = table.detach().cuda().requires_grad_()
    answers = interpolate_gathered(there, points.cuda(), levels, need_jacobian=True)
    for got, want in zip(answers, expected, strict=True):
        torch.testing.assert_close(got.cpu(), want.detach(), rtol=1e-4, atol=1e-4)
    made = torch.autograd.grad(answers, there, [g.cuda() for g in grads])[0]
    torch.testing.assert_close(made.cpu(), wanted, rtol=1e-4, atol=1e-3)


@pytest.mark.parametrize("scene", ["nerf", "splats"])
def test_four_steps_of_text_to_3d(scene: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    metrics = trained_a_little(tmp_path, monkeypatch, f"system.scene_type={scene}", "trainer.accelerator=gpu")
    assert (metrics["steps"], metrics["diverged"]) == (4, False)

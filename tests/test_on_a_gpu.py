"""What only a GPU can show: its own kernels against their twins, and whole steps (`pytest -m cuda`)."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from grids import GRIDS, LARGE, answered, reference, table_and_points
from test_scene_splats import some
from test_system_splats import trained_a_little

from distill3d.camera import orbit_cameras
from distill3d.scenes.nerf.encoding import has_triton, interpolate
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


@pytest.mark.parametrize("by", ["torch", "triton"])
@pytest.mark.parametrize("need_jacobian", [False, True])
@pytest.mark.parametrize("name", [*GRIDS, *LARGE])
def test_the_grid_is_its_reference(by: str, need_jacobian: bool, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    if by == "triton":
        pytest.importorskip("triton")
        monkeypatch.delenv("DISTILL3D_KERNELS", raising=False)
    else:
        monkeypatch.setenv("DISTILL3D_KERNELS", by)
    table, points, levels = table_and_points(name, torch.float32, 5000)
    there = table.detach().cuda().requires_grad_()
    assert has_triton(there, points.cuda()) is (by == "triton")
    ours = answered(interpolate, there, points.cuda(), levels, need_jacobian)
    for got, want in zip(ours, answered(reference, table, points, levels, need_jacobian), strict=True):
        torch.testing.assert_close(got.cpu(), want, rtol=1e-4, atol=1e-5 * float(want.abs().max()))


def test_triton_answers_no_points_and_points_that_are_no_numbers() -> None:
    triton = pytest.importorskip("distill3d.scenes.nerf.kernels.grid_triton")
    table, points, levels = table_and_points("dense and hashed", torch.float32)
    table = table.detach().cuda().requires_grad_()
    for need_jacobian in (False, True):
        ours = answered(triton.interpolate_by_triton, table, points[:0].cuda(), levels, need_jacobian)
        assert ours[0].shape == (10, 0) and not ours[-1].any()
    points[7, 1] = torch.nan
    features, _ = triton.interpolate_by_triton(table, points.cuda(), levels, need_jacobian=True)
    assert torch.equal(features.isnan().any(0).nonzero().flatten().cpu(), torch.tensor([7]))


def test_the_same_bits_each_time_are_had_without_triton() -> None:
    table = torch.zeros(8, 2, device="cuda")
    torch.use_deterministic_algorithms(True)
    try:
        assert not has_triton(table, table)
    finally:
        torch.use_deterministic_algorithms(False)
    assert not has_triton(table.double(), table.double())


@pytest.mark.parametrize("scene", ["nerf", "splats"])
def test_four_steps_of_text_to_3d(scene: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    metrics = trained_a_little(tmp_path, monkeypatch, f"system.scene_type={scene}", "trainer.accelerator=gpu")
    assert (metrics["steps"], metrics["diverged"]) == (4, False)

"""Ray marching through an occupancy grid: the CPU kernel against its twin, and what every sampler must satisfy."""

import pytest
import torch
from nerfacc.grid import _ray_aabb_intersect

from distill3d.scenes.nerf.sampler import (
    Marching,
    intersect_volume,
    kept_cpu,
    kept_reference,
    nerfacc_can_march,
    occupied_at,
    sample_rays,
    sample_rays_nerfacc,
)


def _rays(count: int = 200, device: str = "cpu") -> tuple[torch.Tensor, torch.Tensor]:
    """Rays from around the volume, most of them into it; some run along an axis, some start inside."""
    generator = torch.Generator().manual_seed(0)
    origins = 1.5 * torch.nn.functional.normalize(torch.randn(count, 3, generator=generator), dim=-1)
    targets = torch.randn(count, 3, generator=generator) * 0.5
    origins[:20] *= 0.3
    directions = torch.nn.functional.normalize(targets - origins, dim=-1)
    directions[20:26] = torch.cat([torch.eye(3), -torch.eye(3)])
    origins[20:26] = -1.5 * directions[20:26]
    return origins.to(device), directions.to(device)


def _grid(resolution: int = 9, share: float = 0.3) -> torch.Tensor:
    return torch.rand(resolution, resolution, resolution, generator=torch.Generator().manual_seed(2)) < share


def _jitter(count: int = 200) -> torch.Tensor:
    return torch.rand(count, generator=torch.Generator().manual_seed(4))


@pytest.fixture(params=["numba", "torch"])
def backend(request, monkeypatch):
    monkeypatch.setenv("DISTILL3D_KERNELS", request.param)


@pytest.mark.parametrize("sphere", [False, True])
@pytest.mark.parametrize("radius", [1.0, 0.65])
@pytest.mark.parametrize("resolution", [9, 32])
def test_kernel_and_twin_keep_the_same_intervals(sphere, radius, resolution, monkeypatch):
    args = (*_rays(), _grid(resolution), Marching(radius, 0.031, 0.1, 2.4, sphere), _jitter())
    samples = {}
    for name in ("numba", "torch"):
        monkeypatch.setenv("DISTILL3D_KERNELS", name)
        samples[name] = sample_rays(*args)
    assert len(samples["numba"]) > 500
    for name in ("ray_index", "t_start", "t_end"):
        assert torch.equal(getattr(samples["numba"], name), getattr(samples["torch"], name))


def test_the_kernel_leaves_intervals_beyond_the_count_alone():
    origins, directions = (x[:3] for x in _rays())
    first, count = torch.tensor([2.0, 30.0, 40.0]), torch.tensor([5, 0, 9])
    args = (origins, directions, torch.zeros(3), first, count, _grid(share=1.1), Marching(1.0, 0.05))
    for kept in (kept_cpu, kept_reference):
        assert kept(*args).sum(-1).tolist() == [5, 0, 9]


@pytest.mark.usefixtures("backend")
@pytest.mark.parametrize("sphere", [False, True])
def test_exactly_the_intervals_with_an_occupied_midpoint_inside_the_volume_are_kept(sphere):
    (origins, directions), grid, jitter = _rays(), _grid(), _jitter()
    marching = Marching(0.8, 0.04, 0.2, 1.9, sphere)
    samples = sample_rays(origins, directions, grid, marching, jitter)
    k = torch.arange(200)
    t_mid = marching.near_plane + (jitter[:, None] + k + 0.5) * marching.step_size
    points = origins[:, None] + t_mid[..., None] * directions[:, None]
    size = points.norm(dim=-1) if sphere else points.abs().amax(-1)
    inside = (size < 0.8) & (t_mid < marching.far_plane)
    doubtful = (size - 0.8).abs() < 1e-5  # on the border rounding decides
    expected = inside & occupied_at(points, grid, 0.8)
    column = ((samples.t_start - marching.near_plane) / marching.step_size - jitter[samples.ray_index]).round().long()
    found = torch.zeros_like(expected)
    found[samples.ray_index, column] = True
    assert torch.equal(found | doubtful, expected | doubtful) and expected.sum() > 500


@pytest.mark.usefixtures("backend")
def test_samples_are_sorted_and_never_overlap():
    samples = sample_rays(*_rays(), _grid(), Marching(1.0, 0.05), _jitter())
    same = samples.ray_index.diff() == 0
    assert (samples.ray_index.diff() >= 0).all()
    assert (samples.t_start[1:][same] >= samples.t_end[:-1][same] - 1e-6).all()
    torch.testing.assert_close(samples.t_end - samples.t_start, torch.full_like(samples.t_end, 0.05))


@pytest.mark.usefixtures("backend")
def test_jitter_shifts_a_ray_by_less_than_a_step():
    origins, directions = torch.tensor([[-2.0, 0.0, 0.0]] * 2), torch.tensor([[1.0, 0.0, 0.0]] * 2)
    samples = sample_rays(origins, directions, _grid(share=1.1), Marching(1.0, 0.1), torch.tensor([0.0, 0.3]))
    still, shifted = (samples.t_start[samples.ray_index == r] for r in (0, 1))
    torch.testing.assert_close(shifted, still + 0.03)
    torch.testing.assert_close(still, 1.0 + 0.1 * torch.arange(20))


@pytest.mark.usefixtures("backend")
def test_an_empty_grid_and_no_rays_give_no_samples():
    assert len(sample_rays(*_rays(), _grid(share=-1.0), Marching(1.0, 0.05), _jitter())) == 0
    nothing = torch.zeros(0, 3)
    samples = sample_rays(nothing, nothing, _grid(), Marching(1.0, 0.05), torch.zeros(0))
    assert len(samples) == 0 and samples.ray_count == 0


def test_the_box_is_nerfaccs():
    origins, directions = _rays()
    enter, leave = intersect_volume(origins, directions, Marching(0.7, 0.05))
    box = torch.tensor([[-0.7] * 3 + [0.7] * 3])
    near, far, hits = (x[:, 0] for x in _ray_aabb_intersect(origins, directions, box, 0.0, 1e10))
    assert torch.equal(leave > enter, hits) and 20 < hits.sum() < 200
    torch.testing.assert_close(enter[hits], near[hits])
    torch.testing.assert_close(leave[hits], far[hits])


def test_the_ball_is_entered_and_left_on_its_surface():
    origins, directions = _rays()
    enter, leave = intersect_volume(origins, directions, Marching(0.7, 0.05, sphere=True))
    hit = leave > enter
    torch.testing.assert_close((origins + leave[:, None] * directions)[hit].norm(dim=-1), torch.full((hit.sum(),), 0.7))
    outside = hit & (origins.norm(dim=-1) > 0.7)
    entered = (origins + enter[:, None] * directions)[outside].norm(dim=-1)
    torch.testing.assert_close(entered, torch.full_like(entered, 0.7))
    distance = torch.linalg.cross(origins, directions, dim=-1).norm(dim=-1)
    assert torch.equal(hit, (distance < 0.7) & (leave > 0))


def test_a_point_belongs_to_the_cell_that_holds_it_with_x_slowest():
    grid = torch.zeros(4, 4, 4, dtype=torch.bool)
    grid[3, 0, 1] = True
    points = torch.tensor([[0.9, -0.9, -0.3], [-0.9, 0.9, -0.3], [5.0, -7.0, -0.1], [0.4999, -0.9, -0.3]])
    assert occupied_at(points, grid, 1.0).tolist() == [True, False, True, False]


@pytest.mark.cuda
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs CUDA")
@pytest.mark.parametrize("sphere", [False, True])
def test_nerfaccs_sampler_keeps_the_same_intervals(sphere, monkeypatch):
    marching, grid, jitter = Marching(0.8, 0.04, 0.2, 1.9, sphere), _grid().cuda(), _jitter().cuda()
    theirs = sample_rays_nerfacc(*_rays(device="cuda"), grid, marching, jitter)
    monkeypatch.setenv("DISTILL3D_KERNELS", "torch")
    ours = sample_rays(*_rays(device="cuda"), grid, marching, jitter)
    number = lambda s: set((s.ray_index * 1000 + ((s.t_start - 0.2) / 0.04).long()).tolist())  # noqa: E731
    different = number(ours) ^ number(theirs)  # a midpoint on a face of a cell may round either way
    assert len(different) <= 0.005 * len(ours)


@pytest.mark.parametrize("broken", [OSError("CUDA_HOME is not set"), RuntimeError("Ninja is required")])
def test_kernels_that_do_not_compile_leave_the_rays_to_torch(broken, monkeypatch, caplog):
    """nerfacc compiles its kernels where it is imported, and raises whatever the toolchain does."""
    import builtins

    original = builtins.__import__

    def refuse(name: str, *args: object, **kwargs: object) -> object:
        if name == "nerfacc.cuda":
            raise broken
        return original(name, *args, **kwargs)  # type: ignore[arg-type]

    nerfacc_can_march.cache_clear()
    monkeypatch.setattr(builtins, "__import__", refuse)
    with caplog.at_level("INFO"):
        assert not nerfacc_can_march()
    assert str(broken) in caplog.text
    nerfacc_can_march.cache_clear()

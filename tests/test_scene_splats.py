"""Splats: projection and compositing against their formulas, density control, and the field for a mesh."""

from __future__ import annotations

import math
import sys
from types import SimpleNamespace

import pytest
import torch

from distill3d.camera import camera_rays, orbit_cameras
from distill3d.config.check import build
from distill3d.config.registry import find
from distill3d.scenes.base import Step
from distill3d.scenes.splats import compositing
from distill3d.scenes.splats import draw as drawing
from distill3d.scenes.splats.compositing import composite, composite_reference, sorted_by_depth
from distill3d.scenes.splats.density import DensitySettings, adapted
from distill3d.scenes.splats.field import SplatField
from distill3d.scenes.splats.gaussians import Gaussians, ball, facing_outward, rotations, shortest_axes, turned_to
from distill3d.scenes.splats.mcmc import relocated, shaken
from distill3d.scenes.splats.projection import LOW_PASS, project
from distill3d.types import Light


def some(count=60, size=0.05, seed=0, dtype=torch.float32) -> Gaussians:
    """Gaussians of all shapes, colours and opacities."""
    generator = torch.Generator().manual_seed(seed)
    draw = lambda *shape: torch.randn(*shape, generator=generator)  # noqa: E731
    first = ball(count, 0.4, size, 0.5, 0.5, generator)
    made = Gaussians(first.means, first.scales + 0.5 * draw(count, 3), draw(count, 4), draw(count), draw(count, 3))
    return Gaussians(**{name: value.to(dtype) for name, value in made.tensors().items()})


def one(mean=(0.0, 0.0, 0.0), size=0.05, opacity=0.6) -> Gaussians:
    logits = torch.full((1,), math.log(opacity / (1 - opacity)))
    scales = torch.full((1, 3), math.log(size))
    return Gaussians(torch.tensor([mean]), scales, torch.tensor([[1.0, 0, 0, 0]]), logits, torch.zeros(1, 3))


def scene(**settings):
    cls = find("scene", "splats")
    return cls(build(cls.Config, settings, "system.scene"))  # type: ignore[attr-defined]


# -- projection ------------------------------------------------------------------------------------------------------


def test_a_gaussian_lies_where_its_ray_passes_and_is_as_wide_as_it_looks():
    cameras = orbit_cameras(3, 20.0, 1.6, 40.0, 33)
    rays = camera_rays(cameras)
    point = rays.origins[1, 7, 25] + 1.5 * rays.directions[1, 7, 25]
    seen = project(point[None], torch.full((1, 3), math.log(0.02)), torch.tensor([[1.0, 0, 0, 0]]), cameras, False)
    assert torch.allclose(seen.centers[1, 0], torch.tensor([25.5, 7.5]), atol=1e-3)
    middle = project(torch.zeros(1, 3), torch.full((1, 3), math.log(0.02)), torch.tensor([[1.0, 0, 0, 0]]), cameras)
    pixels = 0.02 * 0.5 * 33 / math.tan(math.radians(20.0)) / 1.6
    assert torch.allclose(middle.conics[:, 0, 0], torch.full((3,), 1 / (pixels**2 + LOW_PASS)), rtol=1e-3)
    assert torch.allclose(middle.conics[:, 0, 1], torch.zeros(3), atol=1e-4)


def test_the_screen_covariance_is_that_of_projected_samples():
    cameras, cloud = orbit_cameras(1, 15.0, 1.5, 45.0, 64), some(1, size=0.01)
    samples = torch.randn(200_000, 3, generator=torch.Generator().manual_seed(1)) * cloud.scales.exp()
    points = cloud.means + samples @ rotations(cloud.quaternions)[0].T
    pixels = project(points, torch.zeros_like(points), torch.tensor([[1.0, 0, 0, 0]]).expand(len(points), 4), cameras)
    a, b, c = project(cloud.means, cloud.scales, cloud.quaternions, cameras).conics[0, 0]
    inverse = torch.linalg.inv(torch.stack([torch.stack([a, b]), torch.stack([b, c])]))
    assert torch.allclose(pixels.centers[0].T.cov() + LOW_PASS * torch.eye(2), inverse, rtol=0.05, atol=0.01)


def test_a_small_gaussian_keeps_its_light_at_every_picture_size():
    cloud, sums = one(size=0.02), {}
    for size in (16, 64):
        for antialiased in (True, False):
            seen = drawing.draw(cloud, torch.ones(1, 1, 1), orbit_cameras(1, 0.0, 1.5, 45.0, size), antialiased)
            sums[size, antialiased] = float(seen.values.mean())
    assert sums[16, True] == pytest.approx(sums[64, True], rel=0.35)
    assert sums[16, False] > 2.0 * sums[64, False]


def test_what_is_behind_the_camera_is_not_drawn():
    seen = drawing.draw(one((3.0, 0.0, 0.0)), torch.ones(1, 1, 1), orbit_cameras(1, 0.0, 1.5, 45.0, 16))
    assert float(seen.values.abs().max()) == 0.0 and float(seen.passed.min()) == 1.0


# -- compositing -----------------------------------------------------------------------------------------------------


def on_screen(dtype, count=80, seed=0):
    generator = torch.Generator().manual_seed(seed)
    draw = lambda *shape: torch.rand(*shape, generator=generator)  # noqa: E731
    root = 0.15 + 0.5 * draw(2, count, 2)
    lean = 1.6 * (draw(2, count) - 0.5) * root.prod(-1)
    conics = torch.stack([root[..., 0] ** 2, lean, root[..., 1] ** 2], dim=-1)
    parts = (26.0 * draw(2, count, 2) - 3.0, conics, draw(2, count) ** 0.3, draw(2, count, 4))
    return [p.to(dtype).requires_grad_() for p in parts], draw(2, count), draw(2, count) > 0.1


def loss_and_gradients(dtype, backend, monkeypatch):
    monkeypatch.setenv("DISTILL3D_KERNELS", backend)
    inputs, depths, visible = on_screen(dtype)
    image, passed = composite(*inputs, depths, visible, 20, 23)
    weights = [torch.rand(x.shape, generator=torch.Generator().manual_seed(i)) for i, x in enumerate((image, passed))]
    ((image * weights[0]).sum() + (passed * weights[1]).sum()).backward()
    return image.detach(), passed.detach(), [x.grad for x in inputs]


@pytest.mark.parametrize(("dtype", "values", "slopes"), [(torch.float64, 1e-12, 1e-10), (torch.float32, 1e-5, 1e-4)])
def test_the_kernel_is_the_formula_values_and_gradients(dtype, values, slopes, monkeypatch):
    plain = loss_and_gradients(torch.float64, "torch", monkeypatch)
    fast = loss_and_gradients(dtype, "numba", monkeypatch)
    again = loss_and_gradients(dtype, "numba", monkeypatch)
    assert float(plain[1].min()) < 1e-3  # pixels that stop early are among them
    for a, b in zip(plain[:2], fast[:2], strict=True):
        assert float((a - b).abs().max()) < values
    for a, b, c in zip(plain[2], fast[2], again[2], strict=True):
        assert float((a - b).abs().max()) < slopes * float(a.abs().max())
        assert torch.equal(b, c)


def test_large_views_are_composited_tile_by_tile_to_the_same_picture(monkeypatch):
    """Also tiles that end before the others, and those that no Gaussian reaches."""
    plain, shapes = loss_and_gradients(torch.float64, "torch", monkeypatch), []

    def watched(*view):
        shapes.append((len(view[4]), *view[5:]))
        return composite_reference(*view)

    monkeypatch.setattr(compositing, "WHOLE", 0)
    monkeypatch.setattr(compositing, "TILE", 6)
    monkeypatch.setattr(compositing, "composite_reference", watched)
    tiled = loss_and_gradients(torch.float64, "torch", monkeypatch)
    for a, b in zip((*plain[:2], *plain[2]), (*tiled[:2], *tiled[2]), strict=True):
        assert float((a - b).abs().max()) < 1e-12 * max(1.0, float(a.abs().max()))
    assert {shape[1:] for shape in shapes} == {(6, 6), (6, 5), (2, 6), (2, 5)}
    counts = [count for count, *_ in shapes]  # of some 72 in front of each camera
    assert len(counts) == 2 * 2 * 4 * 4 and sum(counts) < 0.75 * 72 * len(counts)


def test_gradients_of_the_formula_are_finite_differences(monkeypatch):
    monkeypatch.setenv("DISTILL3D_KERNELS", "torch")
    cloud, cameras = some(4, size=0.12, dtype=torch.float64), orbit_cameras(1, 10.0, 1.5, 45.0, 6)
    parts = [value.requires_grad_() for value in cloud.tensors().values()]

    def seen(*values):
        own = Gaussians(*values)
        drawn = drawing.draw(own, own.colors.sigmoid()[None], cameras)
        return drawn.values, drawn.passed

    assert torch.autograd.gradcheck(seen, parts, eps=1e-7, atol=1e-5)


def test_the_nearest_hides_what_is_behind_it():
    screen = [torch.tensor([[4.5, 4.5]] * 2), torch.tensor([[1e-4, 0.0, 1e-4]] * 2), torch.tensor([0.9, 0.8])]
    order = sorted_by_depth(torch.tensor([2.0, 1.0]), torch.tensor([True, True]))
    image, passed = composite_reference(*screen, torch.eye(2), order, 9, 9)
    assert image[:, 4, 4].tolist() == pytest.approx([0.2 * 0.9, 0.8]) and float(passed[0, 4, 4]) == pytest.approx(0.02)


def test_gsplat_is_asked_for_the_same_picture():
    """Its conventions, by a stand-in: OpenCV cameras, standard deviations, colours of each camera."""
    cloud, cameras = some(30), orbit_cameras(2, 25.0, 1.5, 50.0, 24)
    values, wanted = torch.rand(2, 30, 5), {}

    def rasterization(**given):
        wanted.update(given)
        local = given["means"] @ given["viewmats"][:, :3, :3].transpose(1, 2) + given["viewmats"][:, None, :3, 3]
        pixels = local @ given["Ks"].transpose(1, 2)
        own = drawing.draw(cloud, given["colors"], cameras)
        info = {"means2d": pixels[..., :2] / pixels[..., 2:]}
        return own.values.permute(0, 2, 3, 1), 1.0 - own.passed.permute(0, 2, 3, 1), info

    seen = drawing.draw_by_gsplat(rasterization, cloud, values, cameras, True)
    own = drawing.draw(cloud, values, cameras)
    assert torch.allclose(seen.centers, own.centers, atol=1e-3)
    assert torch.equal(seen.values, own.values) and torch.allclose(seen.passed, own.passed)
    assert torch.equal(wanted["scales"], cloud.scales.exp()) and wanted["rasterize_mode"] == "antialiased"
    assert torch.equal(wanted["opacities"], cloud.opacities.sigmoid()) and not wanted["packed"]


@pytest.mark.parametrize(
    ("kernels", "told"),
    [
        (object(), None),
        (None, "found no nvcc"),
        (OSError("CUDA_HOME environment variable is not set"), "CUDA_HOME environment variable is not set"),
        (ImportError("gsplat_cuda.so: cannot open shared object file"), "cannot open shared object file"),
        ("absent", "pip install gsplat"),
    ],
    ids=lambda value: type(value).__name__,
)
def test_a_gsplat_that_has_no_kernels_leaves_the_views_to_torch(kernels, told, monkeypatch, caplog):
    """It compiles them where it is imported, raises whatever the toolchain does, and has None where nothing did."""

    class Backend:
        def __getattr__(self, name):
            if name != "_C":
                raise AttributeError(name)
            if isinstance(kernels, Exception):
                raise kernels
            return kernels

    found = None if kernels == "absent" else SimpleNamespace()
    monkeypatch.setattr(drawing.importlib.util, "find_spec", lambda name: found)
    for name in ("gsplat", "gsplat.cuda"):
        monkeypatch.setitem(sys.modules, name, SimpleNamespace())
    monkeypatch.setitem(sys.modules, "gsplat.cuda._backend", Backend())
    monkeypatch.delenv("DISTILL3D_KERNELS", raising=False)
    drawing.gsplat_can_draw.cache_clear()
    try:
        with caplog.at_level("INFO"):
            assert drawing.has_gsplat(torch.device("cuda")) is (told is None)
        assert (told or "") in caplog.text and bool(caplog.text) is (told is not None)
        assert not drawing.has_gsplat(torch.device("cpu"))
    finally:
        drawing.gsplat_can_draw.cache_clear()


# -- normals and light -----------------------------------------------------------------------------------------------


def test_normals_are_the_shortest_axes_and_face_the_camera():
    directions = torch.nn.functional.normalize(torch.randn(200, 3, generator=torch.Generator().manual_seed(0)), dim=1)
    directions = torch.cat([directions, torch.tensor([[0.0, 0.0, -1.0], [0.0, 0.0, 1.0]])])
    thin = torch.tensor([0.1, 0.1, 0.02]).log().expand(len(directions), 3)
    axes = shortest_axes(thin, facing_outward(directions))
    assert torch.allclose(axes, directions, atol=1e-5)
    position = torch.tensor([1.5, 0.2, 0.1])
    normals = turned_to(axes, torch.zeros_like(axes), position)
    assert bool((normals @ position >= 0.0).all()) and torch.allclose(normals.abs(), axes.abs())


def test_light_from_the_camera_is_brighter_than_light_from_behind():
    own, cameras = scene(count=500, init_radius=0.3), orbit_cameras(2, 10.0, 1.5, 45.0, 24)
    lamps = [Light(side * cameras.position) for side in (1.0, -1.0)]
    lit = [own.preview(cameras, lamp, "textureless", torch.zeros(3)).rgb.mean() for lamp in lamps]
    assert float(lit[0]) > 1.2 * float(lit[1])
    output = own.preview(cameras, shading="normal")
    assert output.normal is not None and float(output.normal.norm(dim=1).max()) <= 1.0 + 1e-5


def test_depth_is_the_distance_to_what_is_seen():
    own = scene(count=1)
    with torch.no_grad():
        own.means[:] = torch.tensor([[0.2, 0.0, 0.0]])
        own.scales.fill_(math.log(0.08))
    output = own.preview(orbit_cameras(1, 0.0, 1.5, 45.0, 17))
    assert float(output.depth[0, 0, 8, 8]) == pytest.approx(1.3, abs=1e-3)


# -- density control -------------------------------------------------------------------------------------------------

SETTINGS = DensitySettings(split_size=0.05, grow_share=0.5, min_opacity=0.1, max_count=100)


def test_the_faint_go_the_pulled_grow_and_the_others_stay():
    cloud = some(10, size=0.01)
    cloud.opacities[:3] = -9.0
    cloud.opacities[3:] = 2.0
    cloud.scales[9] = math.log(0.2)
    pull = torch.tensor([9.0, 9, 9, 0, 0, 0, 0, 0, 1, 2])
    change = adapted(cloud, pull, SETTINGS, torch.Generator().manual_seed(0))
    assert change.keep.tolist() == [3, 4, 5, 6, 7] and len(change.added) == 4
    both = 1.0 - (1.0 - change.added.opacities.sigmoid()[:2]).prod()  # the clones hide together what the parent did
    assert float(both) == pytest.approx(float(torch.tensor(2.0).sigmoid()), abs=1e-3)
    assert torch.equal(change.added.means[:2], cloud.means[[8, 8]])
    assert torch.allclose(change.added.scales[2:].exp(), torch.tensor(0.2 / 1.6))


def test_nothing_grows_beyond_the_limit_and_a_faint_scene_is_left():
    cloud, pull = some(10), torch.ones(10)
    cloud.opacities.fill_(2.0)
    generator = torch.Generator().manual_seed(0)
    change = adapted(cloud, pull, DensitySettings(max_count=11, grow_share=0.9), generator)
    assert len(change.keep) + len(change.added) == 11
    cloud.opacities.fill_(-12.0)
    assert len(adapted(cloud, torch.zeros(10), SETTINGS, generator).keep) == 10


def test_mcmc_moves_the_faint_to_the_opaque_without_changing_the_picture():
    cloud = some(40, size=0.06)
    cloud.opacities[:30] = 0.8
    cloud.opacities[30:] = -9.0
    change = relocated(cloud, DensitySettings(strategy="mcmc", max_count=40), torch.Generator().manual_seed(0))
    assert len(change.keep) + len(change.added) == 40
    kept = {name: value[change.keep] for name, value in cloud.tensors().items()}
    now = Gaussians(**{name: torch.cat([kept[name], added]) for name, added in change.added.tensors().items()})
    cameras = orbit_cameras(2, 15.0, 1.5, 45.0, 32)
    before, after = (drawing.draw(c, c.colors.sigmoid().expand(2, -1, -1), cameras).values for c in (cloud, now))
    assert float((before - after).abs().mean()) < 0.02 < float(before.abs().mean())
    assert float(now.opacities.sigmoid().min()) > 0.01


def test_only_faint_gaussians_are_shaken():
    cloud = some(20)
    cloud.opacities[:10] = 3.0
    cloud.opacities[10:] = -9.0
    moved = shaken(cloud, 1.0, torch.Generator().manual_seed(0)).norm(dim=1)
    assert float(moved[:10].max()) < 1e-6 < float(moved[10:].min())


def test_opacities_are_reset_with_the_optimisers_memory_and_bounds_hold():
    own = scene(count=30, radius=0.5, density={"reset_every": 2, "every": 100})
    optimizer = torch.optim.Adam(own.parameters(), lr=0.5)
    cameras = orbit_cameras(1, 0.0, 1.5, 45.0, 12)
    for number in range(2):
        optimizer.zero_grad()
        views = own.views(SimpleNamespace(cameras=cameras, light=None), Step(number))
        (views.images.square().mean() - 3.0 * views.opacity.mean()).backward()
        optimizer.step()
        own.after_backward(optimizer, Step(number))
    assert float(own.opacities.detach().sigmoid().max()) <= 0.05 + 1e-6
    assert float(optimizer.state[own.opacities]["exp_avg"].abs().max()) == 0.0
    assert float(optimizer.state[own.colors]["exp_avg"].abs().max()) > 0.0
    assert (
        float(own.means.detach().norm(dim=1).max()) <= 0.5 + 1e-5
        and float(own.scales.detach().exp().max()) <= 0.1 + 1e-6
    )


@pytest.mark.parametrize(
    ("settings", "name"),
    [
        ({"count": 0}, "count=0"),
        ({"count": 2_000_000}, "count=2000000"),
        ({"opacity": 1.0}, "opacity=1.0"),
        ({"size": -1.0}, "size=-1.0"),
        ({"density": {"every": 0}}, "every=0"),
        ({"density": {"strategy": "mcmcc"}}, "strategy"),
        ({"density": {"max_count": 0}}, "max_count=0"),
    ],
)
def test_a_wrong_setting_is_named(settings, name):
    with pytest.raises(ValueError, match=name):
        scene(**settings)


# -- as a solid ------------------------------------------------------------------------------------------------------


def test_the_field_is_the_sum_of_gaussians_and_a_ray_has_their_opacity():
    cloud = some(50, size=0.05)
    points = 0.55 * (2.0 * torch.rand(300, 3, generator=torch.Generator().manual_seed(2)) - 1.0)
    deviations = cloud.scales.exp().clamp_min(0.55 / 150)
    local = torch.einsum("pni,nij->pnj", points[:, None] - cloud.means, rotations(cloud.quaternions)) / deviations
    square = local.square().sum(-1)
    peaks = -(1.0 - cloud.opacities.sigmoid().clamp_max(0.99)).log() / (deviations.amin(1) * math.sqrt(2 * math.pi))
    each = torch.where(square <= 9.0, peaks * (-0.5 * square).exp(), 0.0)
    field = SplatField.of(cloud, 0.55)
    assert torch.allclose(field.density(points), each.sum(1), rtol=1e-3, atol=1e-3)
    sample = field.sample(points, True)
    dense = each.sum(1) > 0.1
    albedo = (each @ cloud.colors.sigmoid()) / each.sum(1, keepdim=True)
    assert torch.allclose(sample.albedo[dense], albedo[dense], atol=1e-3)
    ray = torch.linspace(-0.5, 0.5, 2001)[:, None] * torch.tensor([1.0, 0.0, 0.0])
    depth = float(SplatField.of(one(), 0.55).density(ray).sum()) / 2000
    assert 1.0 - math.exp(-depth) == pytest.approx(0.6, abs=5e-3)

"""Compositing along rays: closed forms, nerfacc as oracle, the CPU kernel against its torch twin."""

import nerfacc
import pytest
import torch

from distill3d.scenes.nerf.volume import (
    accumulate,
    accumulate_reference,
    position_in_ray,
    ray_offsets,
    render_weights,
    render_weights_reference,
    render_weights_scan,
)
from distill3d.types import RaySamples

COUNTS = [3, 0, 5, 1, 0, 7, 0]


def _samples(dtype=torch.float64) -> RaySamples:
    """Rays with different numbers of samples, some without any, and gaps between the intervals."""
    generator = torch.Generator().manual_seed(0)
    ray_index = torch.repeat_interleave(torch.arange(len(COUNTS)), torch.tensor(COUNTS))
    t_start = torch.cat([torch.rand(n, generator=generator, dtype=dtype).sort().values for n in COUNTS])
    length = torch.rand(len(t_start), generator=generator, dtype=dtype) * 0.1
    return RaySamples(ray_index, t_start, t_start + length, len(COUNTS))


def _density(count: int, dtype=torch.float64) -> torch.Tensor:
    return torch.rand(count, dtype=dtype, generator=torch.Generator().manual_seed(1)) * 20.0


@pytest.fixture(params=["numba", "torch"])
def backend(request, monkeypatch):
    monkeypatch.setenv("DISTILL3D_KERNELS", request.param)


@pytest.mark.usefixtures("backend")
@pytest.mark.parametrize("density", [1e-3, 1.0, 50.0])
@pytest.mark.parametrize("count", [1, 17, 500])
def test_a_slab_of_constant_density_has_the_closed_forms_opacity(density, count):
    edges = torch.linspace(0.3, 1.3, count + 1)
    samples = RaySamples(torch.zeros(count, dtype=torch.long), edges[:-1], edges[1:], 1)
    weights = render_weights(torch.full((count,), density), samples)
    opacity = accumulate(weights, torch.ones(count, 1), samples)
    expected = -torch.expm1(-torch.tensor(density, dtype=torch.float64)).float()
    torch.testing.assert_close(opacity[0, 0], expected, rtol=1e-5, atol=1e-7)


@pytest.mark.usefixtures("backend")
def test_weights_are_nerfaccs_on_dense_rays():
    edges = torch.rand(6, 21, dtype=torch.float64).cumsum(-1)
    density = _density(6 * 20).view(6, 20) * 0.1
    expected, _, _ = nerfacc.render_weight_from_density(edges[:, :-1], edges[:, 1:], density)
    rays = torch.arange(6).repeat_interleave(20)
    samples = RaySamples(rays, edges[:, :-1].reshape(-1), edges[:, 1:].reshape(-1), 6)
    torch.testing.assert_close(render_weights(density.reshape(-1), samples).view(6, 20), expected)


@pytest.mark.usefixtures("backend")
def test_sums_are_nerfaccs():
    samples = _samples()
    weights = render_weights(_density(len(samples)), samples)
    values = torch.randn(len(samples), 4, dtype=torch.float64)
    expected = nerfacc.accumulate_along_rays(weights, values, samples.ray_index, samples.ray_count)
    torch.testing.assert_close(accumulate(weights, values, samples), expected)


@pytest.mark.usefixtures("backend")
def test_gradients_are_exact():
    samples = _samples()
    inputs = (
        _density(len(samples)).requires_grad_(),
        torch.randn(len(samples), 3, dtype=torch.float64).requires_grad_(),
    )

    def image(density, values):
        return accumulate(render_weights(density, samples), values, samples)

    assert torch.autograd.gradcheck(image, inputs, nondet_tol=0.0)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_the_scan_of_a_gpu_agrees_with_the_padded_sum(dtype):
    """Opaque samples among them: an optical depth that is infinite must not turn its neighbours into NaN."""
    samples, results = _samples(dtype), []
    start = _density(len(samples), dtype)
    start[3::7] = 1e30
    for weigh in (render_weights_reference, render_weights_scan):
        density = start.clone().requires_grad_()
        weights = weigh(density, samples)
        (weights * torch.linspace(0.0, 1.0, len(samples), dtype=dtype)).sum().backward()
        results.append((weights.detach(), density.grad))
    for ours, theirs in zip(*results, strict=True):
        torch.testing.assert_close(ours, theirs, atol=1e-6, rtol=1e-5)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_kernel_and_twin_agree_in_values_and_gradients(dtype):
    samples, results = _samples(dtype), []
    values = torch.randn(len(samples), 3, dtype=dtype)
    for weigh, add in ((render_weights, accumulate), (render_weights_reference, accumulate_reference)):
        density, v = _density(len(samples), dtype).requires_grad_(), values.clone().requires_grad_()
        weights = weigh(density, samples)
        image = add(weights, v, samples)
        grads = torch.autograd.grad((image * image).sum() + weights.square().sum(), (density, v))
        results.append((weights, image, *grads))
    for got, want in zip(*results, strict=True):
        torch.testing.assert_close(got, want)


@pytest.mark.usefixtures("backend")
def test_a_faint_ray_behind_a_million_dense_samples_keeps_its_precision():
    count = 200_000
    ray_index = torch.cat([torch.arange(count) // 50, torch.tensor([count // 50])])
    samples = RaySamples(ray_index, torch.zeros(count + 1), torch.ones(count + 1), count // 50 + 1)
    density = torch.full((count + 1,), 40.0)
    density[-1] = 1e-4
    torch.testing.assert_close(render_weights(density, samples)[-1], torch.tensor(1e-4), rtol=1e-4, atol=0)


@pytest.mark.usefixtures("backend")
def test_what_lies_behind_an_opaque_sample_weighs_nothing_and_gets_no_gradient():
    samples = RaySamples(torch.zeros(2, dtype=torch.long), torch.tensor([0.0, 1.0]), torch.tensor([1.0, 2.0]), 1)
    density = torch.tensor([1e4, 3.0], requires_grad=True)
    weights = render_weights(density, samples)
    (grad,) = torch.autograd.grad(weights[1], density)
    assert weights.tolist() == [1.0, 0.0] and (grad == 0).all()


@pytest.mark.usefixtures("backend")
def test_no_samples_make_an_empty_image():
    none = torch.zeros(0)
    samples = RaySamples(none.long(), none, none, 4)
    weights = render_weights(none.clone().requires_grad_(), samples)
    image = accumulate(weights, torch.zeros(0, 3), samples)
    image.sum().backward()
    assert image.shape == (4, 3) and (image == 0).all()


def test_offsets_and_positions_count_the_samples_of_each_ray():
    samples = _samples()
    assert ray_offsets(samples).diff().tolist() == COUNTS
    assert position_in_ray(samples).tolist() == [i for n in COUNTS for i in range(n)]

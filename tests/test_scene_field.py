"""The implicit volume: normals, gradients through them, and threestudio's settings."""

import pytest
import torch
from torch import nn

from distill3d.config.check import build
from distill3d.scenes.nerf.field import BLOBS, FLAT, ImplicitVolume, blob, outward_normal
from distill3d.scenes.nerf.material import shade


def _field(**settings) -> ImplicitVolume:
    """A small float64 field, with a table large enough to bend the density."""
    torch.manual_seed(0)
    encoding = {"otype": "HashGrid", "n_levels": 2, "base_resolution": 3, "log2_hashmap_size": 6}
    given = {"pos_encoding_config": encoding, "mlp_network_config": {"n_neurons": 8}, "density_blob_scale": 2.0}
    field = ImplicitVolume(build(ImplicitVolume.Config, {**given, **settings}, "system.geometry")).double()
    nn.init.uniform_(field.encoding.table, -1.0, 1.0)
    return field


def _points(count: int = 40) -> torch.Tensor:
    return torch.rand(count, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(3)) - 0.5


class _Sample(nn.Module):
    """`ImplicitVolume.sample` as a forward, for `functional_call`."""

    def __init__(self, field, points):
        super().__init__()
        self.field, self.points = field, points

    def forward(self):
        sample = self.field.sample(self.points, need_normal=True)
        return sample.density, sample.albedo, sample.normal


@pytest.mark.parametrize("bias", ["blob_dreamfusion", "blob_magic3d", -1.0])
@pytest.mark.parametrize("density_activation", ["softplus", "trunc_exp", "exp"])
@pytest.mark.parametrize("mlp", [{"n_hidden_layers": 1}, {"n_hidden_layers": 2, "activation": "SiLU"}])
def test_analytic_normals_equal_central_differences_of_the_density(bias, density_activation, mlp):
    field = _field(density_bias=bias, density_activation=density_activation, mlp_network_config={"n_neurons": 8, **mlp})
    points, eps = _points(), 1e-6
    axes = torch.eye(3, dtype=torch.float64) * eps
    gradient = torch.stack([field.density(points + a) - field.density(points - a) for a in axes]) / (2 * eps)
    expected = -torch.nn.functional.normalize(gradient, dim=0).t()
    torch.testing.assert_close(field.sample(points, need_normal=True).normal, expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("normal_type", ["finite_difference", "finite_difference_laplacian"])
def test_normals_by_differences_approach_the_analytic_ones(normal_type):
    analytic = _field().sample(_points(), need_normal=True).normal
    differences = _field(normal_type=normal_type, finite_difference_normal_eps=1e-6).sample(_points(), True).normal
    torch.testing.assert_close(differences, analytic, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("backend", ["numba", "torch"])
@pytest.mark.parametrize("activation", ["ReLU", "softplus"])
def test_gradients_of_density_albedo_and_normal_are_exact(backend, activation, monkeypatch):
    monkeypatch.setenv("DISTILL3D_KERNELS", backend)
    field = _field(mlp_network_config={"n_neurons": 4, "activation": activation})
    module = _Sample(field, _points(6))
    names, values = zip(*module.named_parameters(), strict=True)

    def outputs(*parameters):
        return torch.func.functional_call(module, dict(zip(names, parameters, strict=True)), ())

    inputs = tuple(v.detach().clone().requires_grad_() for v in values)
    assert torch.autograd.gradcheck(outputs, inputs, eps=1e-7, atol=1e-4, nondet_tol=0.0)


@pytest.mark.parametrize("normal_type", ["analytic", "finite_difference"])
@pytest.mark.parametrize("loss", ["shaded colour", "orientation"])
def test_losses_reach_the_density_through_the_normal(loss, normal_type):
    field, points = _field(normal_type=normal_type), _points()
    normal = field.sample(points, need_normal=True).normal
    if loss == "shaded colour":
        light = torch.tensor([1.0, 1.0, 1.0], dtype=torch.float64)
        value = shade(normal, normal, points, light.expand_as(points), "textureless", 0.1 * light, 0.9 * light).sum()
    else:
        value = (normal @ torch.tensor([1.0, 0.0, 0.0], dtype=torch.float64)).clamp_min(0.0).square().sum()
    grads = torch.autograd.grad(value, list(field.parameters()))
    assert all(g.abs().sum() > 1e-3 for g in grads)


def test_a_flat_density_has_a_vanishing_normal_with_a_finite_gradient():
    gradient = torch.zeros(3, 4, dtype=torch.float64, requires_grad=True)
    normal = outward_normal(gradient)
    (grad,) = torch.autograd.grad(normal.sum(), gradient)
    assert (normal == 0).all() and grad.isfinite().all() and grad.abs().max() <= (1 + 1e-9) / FLAT


def test_normals_of_a_blob_point_outwards():
    field = _field()
    nn.init.zeros_(field.encoding.table)
    points = _points()
    normal = field.sample(points, need_normal=True).normal
    torch.testing.assert_close(normal, torch.nn.functional.normalize(points, dim=-1), rtol=1e-6, atol=1e-6)


def test_density_and_sample_agree_and_normals_are_computed_on_demand_only():
    field, points = _field(), _points()
    sample = field.sample(points, need_normal=False)
    assert sample.normal is None and torch.equal(sample.density, field.density(points))
    assert ((sample.albedo > 0) & (sample.albedo < 1)).all()


def test_half_precision_regions_do_not_reach_the_field():
    field = _field().float()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        sample = field.sample(_points().float(), need_normal=True)
    assert {sample.density.dtype, sample.albedo.dtype, sample.normal.dtype} == {torch.float32}


def test_the_blob_follows_its_schedule_and_a_checkpoint_keeps_it():
    field, center = _field(density_blob_scale=[0, 4.0, 1.0, 100]), torch.zeros(1, 3, dtype=torch.float64)
    nn.init.zeros_(field.encoding.table)
    densities = []
    for step in (0, 50, 100):
        field.update_step(step)
        densities.append(field.density(center).item())
    expected = torch.nn.functional.softplus(torch.tensor([4.0, 2.5, 1.0], dtype=torch.float64))
    torch.testing.assert_close(torch.tensor(densities, dtype=torch.float64), expected)
    restored = _field(density_blob_scale=[0, 4.0, 1.0, 100])
    restored.load_state_dict(field.state_dict())
    assert torch.equal(restored.density(_points()), field.density(_points()))


def test_threestudios_settings_build_as_they_are():
    encoding = {
        "otype": "ProgressiveBandHashGrid",
        "n_levels": 16,
        "n_features_per_level": 2,
        "log2_hashmap_size": 12,
        "base_resolution": 16,
        "per_level_scale": 1.447269237440378,
        "start_level": 8,
        "start_step": 2000,
        "update_steps": 500,
    }
    settings = {
        "radius": 2.0,
        "normal_type": "analytic",
        "density_bias": "blob_magic3d",
        "density_activation": "softplus",
        "density_blob_scale": 10,
        "density_blob_std": 0.5,
        "pos_encoding_config": encoding,
    }
    field = ImplicitVolume(build(ImplicitVolume.Config, settings, "system.geometry"))
    assert field.sample(torch.rand(3, 3), need_normal=True).normal.shape == (3, 3)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"radius": 0.0}, r"system.geometry.radius=0.0 must be positive"),
        ({"density_bias": "blob"}, "density_bias='blob' is unknown"),
        ({"density_activation": "swish"}, "density_activation='swish' is unknown"),
        ({"n_feature_dims": 4}, "n_feature_dims=4 must be 3"),
        ({"mlp_network_config": {"activation": "tanhh"}}, "mlp_network_config.activation='tanhh' is unknown"),
        ({"normal_type": "pred"}, "normal_type='pred' is not a choice"),
        ({"pos_encoding_config": {"otype": "HashGird"}}, "pos_encoding_config.otype='HashGird' is not a registered"),
        ({"pos_encoding_config": {"otype": "ProgressiveBandHashGrid"}}, "give .*start_level"),
        ({"pos_encoding_config": {"otype": "DenseGrid", "levels": 3}}, "did you mean 'n_levels'"),
    ],
)
def test_wrong_settings_are_named(settings, message):
    with pytest.raises(ValueError, match=message):
        ImplicitVolume(build(ImplicitVolume.Config, settings, "system.geometry"))


@pytest.mark.parametrize("kind", BLOBS)
def test_the_gradient_of_a_blob_is_that_of_its_value(kind):
    points = torch.randn(20, 3, dtype=torch.float64, requires_grad=True)
    value, gradient = blob(kind, points, 5.0, 0.2)
    torch.testing.assert_close(gradient, torch.autograd.grad(value.sum(), points)[0])


def test_blobs_have_the_values_of_the_papers():
    points = torch.tensor([[0.0, 0.0, 0.0], [0.2, 0.0, 0.0], [0.0, 0.3, 0.4]])
    torch.testing.assert_close(
        blob("blob_dreamfusion", points, 5.0, 0.2)[0], 5.0 * torch.exp(-torch.tensor([0.0, 0.5, 3.125]))
    )
    torch.testing.assert_close(blob("blob_magic3d", points, 10.0, 0.5)[0], torch.tensor([10.0, 6.0, 0.0]))


@pytest.mark.parametrize("kind", BLOBS)
def test_a_blob_is_flat_at_its_centre(kind):
    assert (blob(kind, torch.zeros(1, 3), 5.0, 0.2)[1] == 0).all()


def test_an_unknown_blob_is_refused():
    with pytest.raises(ValueError, match="density_bias='ball' is unknown"):
        blob("ball", torch.zeros(1, 3), 1.0, 1.0)

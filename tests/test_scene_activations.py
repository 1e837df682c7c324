"""Activations by name."""

import pytest
import torch

from distill3d.scenes.nerf.activations import ACTIVATIONS, activation, trunc_exp


def test_truncated_exp_is_exp_with_a_bounded_gradient():
    x = torch.tensor([-2.0, 3.0, 14.9, 20.0], dtype=torch.float64, requires_grad=True)
    y = trunc_exp(x)
    (grad,) = torch.autograd.grad(y.sum(), x)
    torch.testing.assert_close(y, x.exp())
    torch.testing.assert_close(grad, x.detach().clamp(max=15.0).exp())


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_activations_never_decrease(name):
    y = activation(name, "x")(torch.linspace(-5, 5, 101))
    assert (y[1:] >= y[:-1]).all()


def test_names_ignore_case_and_none_means_none():
    x = torch.randn(3)
    assert torch.equal(activation("Sigmoid", "x")(x), x.sigmoid()) and activation(None, "x")(x) is x


def test_an_unknown_name_is_refused_with_its_setting():
    with pytest.raises(ValueError, match="color_activation='sigmoidal' is unknown; choose one of none"):
        activation("sigmoidal", "color_activation")

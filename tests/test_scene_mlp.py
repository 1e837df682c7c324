"""The small MLP and the gradient of its first output."""

import pytest
import torch

from distill3d.scenes.nerf.mlp import HIDDEN_ACTIVATIONS, init_weights, mlp, mlp_with_gradient


@pytest.mark.parametrize("activation", HIDDEN_ACTIVATIONS)
@pytest.mark.parametrize("n_hidden_layers", [0, 1, 3])
def test_the_written_out_gradient_equals_autograds(activation, n_hidden_layers):
    weights = [w.double() for w in init_weights(5, 7, n_hidden_layers, 4)]
    inputs = torch.randn(5, 11, dtype=torch.float64, requires_grad=True)
    outputs, gradient = mlp_with_gradient(inputs, weights, HIDDEN_ACTIVATIONS[activation])
    torch.testing.assert_close(outputs, mlp(inputs, weights, HIDDEN_ACTIVATIONS[activation]))
    torch.testing.assert_close(gradient, torch.autograd.grad(outputs[0].sum(), inputs)[0])


def test_weights_have_the_stated_shapes_and_range():
    weights = init_weights(16, 32, 2, 4)
    assert [tuple(w.shape) for w in weights] == [(32, 16), (32, 32), (4, 32)]
    assert all(w.abs().max() <= w.shape[1] ** -0.5 for w in weights)

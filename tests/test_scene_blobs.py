"""Density biases and their gradients."""

import pytest
import torch

from distill3d.scenes.nerf.blobs import BLOBS, blob


@pytest.mark.parametrize("kind", BLOBS)
def test_the_gradient_is_that_of_the_value(kind):
    points = torch.randn(20, 3, dtype=torch.float64, requires_grad=True)
    value, gradient = blob(kind, points, 5.0, 0.2)
    torch.testing.assert_close(gradient, torch.autograd.grad(value.sum(), points)[0])


def test_values_are_those_of_the_papers():
    points = torch.tensor([[0.0, 0.0, 0.0], [0.2, 0.0, 0.0], [0.0, 0.3, 0.4]])
    torch.testing.assert_close(
        blob("blob_dreamfusion", points, 5.0, 0.2)[0], 5.0 * torch.exp(-torch.tensor([0.0, 0.5, 3.125]))
    )
    torch.testing.assert_close(blob("blob_magic3d", points, 10.0, 0.5)[0], torch.tensor([10.0, 6.0, 0.0]))


@pytest.mark.parametrize("kind", BLOBS)
def test_the_centre_is_flat(kind):
    assert (blob(kind, torch.zeros(1, 3), 5.0, 0.2)[1] == 0).all()


def test_an_unknown_kind_is_refused():
    with pytest.raises(ValueError, match="density_bias='ball' is unknown"):
        blob("ball", torch.zeros(1, 3), 1.0, 1.0)

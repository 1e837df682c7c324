"""The product of Jacobian and gradient at each point."""

import pytest
import torch

from distill3d.scenes.nerf.contraction import contract, contract_reference


@pytest.mark.parametrize("count", [0, 1, 9001])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_kernel_and_twin_agree_in_values_and_gradients(count, dtype):
    torch.manual_seed(0)
    inputs = torch.randn(5, count, dtype=dtype).requires_grad_(), torch.randn(5, 3, count, dtype=dtype).requires_grad_()
    grad, results = torch.randn(3, count, dtype=dtype), []
    for function in (contract, contract_reference):
        out = function(*inputs)
        results.append((out, *torch.autograd.grad(out, inputs, grad)))
    for got, want in zip(*results, strict=True):
        torch.testing.assert_close(got, want)


@pytest.mark.parametrize("backend", ["numba", "torch"])
def test_it_is_the_matrix_product(backend, monkeypatch):
    monkeypatch.setenv("DISTILL3D_KERNELS", backend)
    vector, jacobian = torch.randn(5, 7, dtype=torch.float64), torch.randn(5, 3, 7, dtype=torch.float64)
    expected = torch.stack([jacobian[:, :, p].t() @ vector[:, p] for p in range(7)], dim=-1)
    torch.testing.assert_close(contract(vector, jacobian), expected)

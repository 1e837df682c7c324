"""The product of a Jacobian and a row vector at each point; the counterpart of `contract_reference`."""

from __future__ import annotations

from numba import njit


@njit(nogil=True, cache=True, error_model="numpy")
def contract(vector, jacobian, begin, end, out):
    """``out[a, p] = sum_c vector[c, p] jacobian[c, a, p]`` for columns ``begin .. end``."""
    for a in range(jacobian.shape[1]):
        for p in range(begin, end):
            out[a, p] = vector[0, p] * jacobian[0, a, p]
        for c in range(1, jacobian.shape[0]):
            for p in range(begin, end):
                out[a, p] += vector[c, p] * jacobian[c, a, p]


@njit(nogil=True, cache=True, error_model="numpy")
def contract_backward(vector, jacobian, grad, begin, end, grad_vector, grad_jacobian):
    """The adjoint of `contract` for columns ``begin .. end``."""
    for c in range(jacobian.shape[0]):
        for p in range(begin, end):
            grad_vector[c, p] = 0
        for a in range(jacobian.shape[1]):
            for p in range(begin, end):
                grad_vector[c, p] += grad[a, p] * jacobian[c, a, p]
                grad_jacobian[c, a, p] = grad[a, p] * vector[c, p]

"""The grid for a GPU against its oracle, and what it keeps and writes."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from grids import table_and_points
from torch.utils._python_dispatch import TorchDispatchMode

from distill3d.scenes.nerf import grid_gather
from distill3d.scenes.nerf.grid import grid_levels, interpolate_reference
from distill3d.scenes.nerf.grid_gather import interpolate_gathered

NAMES = ("dense and hashed", "dense alone", "hashed alone")


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("chunk", [1 << 17, 77])
def test_it_is_the_reference_in_values_and_gradients(name: str, chunk: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(grid_gather, "CHUNK", chunk)
    table, points, levels = table_and_points(name)
    answers = interpolate_gathered(table, points, levels, need_jacobian=True)
    expected = interpolate_reference(table, points, levels)
    for got, want in zip(answers, expected, strict=True):
        torch.testing.assert_close(got, want)
    grads = [torch.randn_like(x) for x in expected]
    torch.testing.assert_close(
        torch.autograd.grad(answers, table, grads)[0], torch.autograd.grad(expected, table, grads)[0]
    )


def test_without_a_jacobian_there_is_none_and_the_gradient_is_that_of_the_features() -> None:
    table, points, levels = table_and_points("dense and hashed")
    features, jacobian = interpolate_gathered(table, points, levels, need_jacobian=False)
    expected, _ = interpolate_reference(table, points, levels)
    assert jacobian.numel() == 0
    grad = torch.randn_like(expected)
    torch.testing.assert_close(
        torch.autograd.grad(features, table, grad)[0], torch.autograd.grad(expected, table, grad)[0]
    )


def test_no_points_give_no_features() -> None:
    table, points, levels = table_and_points("dense and hashed")
    features, jacobian = interpolate_gathered(table, points[:0], levels, need_jacobian=True)
    assert features.shape == (10, 0) and jacobian.shape == (10, 3, 0)


def kept_bytes(function: Any, table: torch.Tensor) -> int:
    """What autograd keeps until backward, beside the table."""
    kept: dict[int, torch.Tensor] = {}
    with torch.autograd.graph.saved_tensors_hooks(lambda t: kept.setdefault(t.data_ptr(), t), lambda t: t):
        function()
    return sum(t.numel() * t.element_size() for t in kept.values() if t.data_ptr() != table.data_ptr())


def test_it_keeps_twelve_bytes_a_sample_where_the_reference_keeps_kilobytes() -> None:
    levels = grid_levels(16, 16, 1.447269237440378, 2**10)  # as many levels and features as dreamfusion-sd.yaml
    table = torch.zeros(levels[-1].offset + levels[-1].size, 2, requires_grad=True)
    points = torch.rand(500, 3)
    ours = kept_bytes(lambda: interpolate_gathered(table, points, levels, need_jacobian=True), table)
    theirs = kept_bytes(lambda: interpolate_reference(table, points, levels), table)
    assert ours == 12 * len(points)
    assert theirs > 3000 * len(points)


class TablesMade(TorchDispatchMode):
    """Counts new tensors of the table's size."""

    def __init__(self, size: int) -> None:
        super().__init__()
        self.size, self.count = size, 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        made = isinstance(out, torch.Tensor) and not func._schema.is_mutable and out.numel() == self.size
        self.count += made and not any(a is not None and a.alias_info is not None for a in func._schema.returns)
        return out


def test_backward_makes_one_tensor_of_the_tables_size() -> None:
    table, points, levels = table_and_points("dense and hashed")
    counts = []
    for function in (lambda: interpolate_gathered(table, points, levels, True)[0],
                     lambda: interpolate_reference(table, points, levels)[0]):  # fmt: skip
        features = function()
        with TablesMade(table.numel()) as made:
            torch.autograd.grad(features, table, torch.ones_like(features))
        counts.append(made.count)
    assert counts[0] == 1 < counts[1]

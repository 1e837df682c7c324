"""Rows that come and go: parameters, the optimiser's memory, and checkpoints stay in step."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

from distill3d.optim import Shampoo
from distill3d.scenes.rows import change_rows, take_sizes


class Points(nn.Module):
    def __init__(self, count: int = 6) -> None:
        super().__init__()
        draw = torch.Generator().manual_seed(0)
        self.means = nn.Parameter(torch.randn(count, 3, generator=draw))
        self.sizes = nn.Parameter(torch.randn(count, generator=draw))

    @property
    def rows(self) -> dict[str, nn.Parameter]:
        return {"means": self.means, "sizes": self.sizes}

    def loss(self) -> torch.Tensor:
        return (self.means.square().sum(1) * self.sizes.square()).sum()


def trained(kind=torch.optim.Adam, steps: int = 3, **settings) -> tuple[Points, torch.optim.Optimizer]:
    points = Points()
    optimizer = kind(points.parameters(), lr=0.05, **settings)
    for _ in range(steps):
        step(points, optimizer)
    return points, optimizer


def step(points: Points, optimizer: torch.optim.Optimizer) -> None:
    optimizer.zero_grad()
    points.loss().backward()
    optimizer.step()


def test_rows_that_stay_move_as_if_nothing_had_been_pruned():
    points, optimizer = trained()
    whole, own = copy.deepcopy((points, optimizer))
    keep = torch.tensor([4, 1, 2])
    change_rows(optimizer, points.rows, keep)
    for _ in range(3):
        step(points, optimizer)
        step(whole, own)
    assert torch.equal(points.means, whole.means[keep]) and torch.equal(points.sizes, whole.sizes[keep])


def test_new_rows_begin_without_a_memory_and_train():
    points, optimizer = trained()
    added = {"means": torch.ones(2, 3), "sizes": torch.ones(2)}
    change_rows(optimizer, points.rows, torch.arange(6), added)
    moments = optimizer.state[points.means]["exp_avg"]
    assert moments.shape == (8, 3) and float(moments[6:].abs().max()) == 0.0 and float(moments[:6].abs().min()) > 0.0
    step(points, optimizer)
    assert float((points.means[6:] - 1.0).abs().min()) > 0.0
    assert optimizer.param_groups[0]["params"][0] is points.means


def test_all_parameters_that_belong_together_grow_alike():
    points, optimizer = trained()
    for added in ({"means": torch.ones(2, 3)}, {"means": torch.ones(2, 3), "sizes": torch.ones(1)}):
        with pytest.raises(ValueError, match="means, sizes need the same number"):
            change_rows(optimizer, points.rows, torch.arange(6), added)
    assert len(points.means) == len(points.sizes) == 6


def test_a_memory_without_rows_is_refused_before_anything_changes():
    points, optimizer = trained(Shampoo)
    with pytest.raises(ValueError, match=r"Shampoo keeps .* cannot follow its rows; set system\.optimizer\.name=Adam"):
        change_rows(optimizer, points.rows, torch.tensor([0]))
    assert len(points.means) == 6


def test_a_resumed_optimiser_goes_on_bit_for_bit_with_other_rows():
    points, optimizer = trained()
    change_rows(optimizer, points.rows, torch.tensor([0, 3]), {"means": torch.ones(1, 3), "sizes": torch.ones(1)})
    saved = copy.deepcopy((points.state_dict(), optimizer.state_dict()))
    again = Points()
    take_sizes(again, saved[0])
    again.load_state_dict(saved[0])
    resumed = torch.optim.Adam(again.parameters(), lr=0.05)
    resumed.load_state_dict(saved[1])
    for _ in range(2):
        step(points, optimizer)
        step(again, resumed)
    assert torch.equal(points.means, again.means) and torch.equal(points.sizes, again.sizes)

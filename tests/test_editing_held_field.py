"""Held fields: where nothing may change, the original answers and no gradient arrives."""

from __future__ import annotations

from copy import deepcopy

import pytest
import torch
from system_doubles import tiny_system

from distill3d.systems.editing.held_field import HeldField

BOX = ((0.0, -0.5, -0.5), (0.5, 0.5, 0.5))


def fields(**held):
    """An original, and an edit of it that has moved."""
    original = tiny_system().renderer.geometry
    edited = deepcopy(original)
    with torch.no_grad():
        edited.encoding.table += torch.randn(edited.encoding.table.shape, generator=torch.Generator().manual_seed(0))
    return original, HeldField(edited, deepcopy(original), **held)


def points():
    return torch.rand(400, 3, generator=torch.Generator().manual_seed(1)) - 0.5


def test_outside_the_box_values_are_the_originals_and_gradients_zero():
    original, held = fields(box=BOX)
    inside = held.may_change(points())
    assert 0 < inside.sum() < len(inside)
    now, before = held.sample(points(), True), original.sample(points(), True)
    for name in ("density", "albedo", "normal"):
        assert torch.equal(getattr(now, name)[~inside], getattr(before, name)[~inside])
        assert not torch.equal(getattr(now, name)[inside], getattr(before, name)[inside])
    assert torch.equal(held.density(points()), now.density)
    outside = now.density[~inside].sum() + now.albedo[~inside].sum()
    gradients = torch.autograd.grad(outside, list(held.edited.parameters()), retain_graph=True)
    assert all(not gradient.any() for gradient in gradients)
    gradients = torch.autograd.grad(now.albedo[inside].sum(), list(held.edited.parameters()))
    assert any(gradient.any() for gradient in gradients)


def test_kept_geometry_has_the_originals_density_and_normals_and_new_colours():
    original, held = fields(keep_geometry=True)
    now, before = held.sample(points(), True), original.sample(points(), True)
    assert torch.equal(now.density, before.density) and torch.equal(now.normal, before.normal)
    assert torch.equal(held.density(points()), before.density)
    assert (now.albedo - before.albedo).abs().max() > 0.05
    assert not now.density.requires_grad and now.albedo.requires_grad


def test_both_hold_together():
    original, held = fields(keep_geometry=True, box=BOX)
    now, before = held.sample(points(), False), original.sample(points(), False)
    assert torch.equal(now.density, before.density) and now.normal is None
    outside = ~held.may_change(points())
    assert torch.equal(now.albedo[outside], before.albedo[outside])


def test_only_the_edited_field_trains_and_both_are_saved():
    _, held = fields(box=BOX)
    trained = {name for name, parameter in held.named_parameters() if parameter.requires_grad}
    assert trained and all(name.startswith("edited.") for name in trained)
    assert {name.split(".")[0] for name in held.state_dict()} == {"edited", "original"}


def test_a_box_has_its_lower_corner_first():
    with pytest.raises(ValueError, match="lower corner"):
        fields(box=((0.5, 0.0, 0.0), (0.0, 1.0, 1.0)))

"""The part that an edit is about: where two prompts say different things, and nowhere else."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
import torch
from closed_form import GaussianPrior

sys.path.insert(0, str(Path(__file__).parents[1] / "benchmarks"))

from changed_part import changed_part, put_back

LEFT = torch.zeros(8, 8, dtype=torch.bool)
LEFT[:, :4] = True


class LeftSide(GaussianPrior):
    """A cat and a fox, which differ in their left half alone."""

    def __init__(self) -> None:
        same = torch.full((3, 8, 8), 0.2)
        super().__init__((3, 8, 8), torch.full((8, 8), 0.04), torch.stack([same, torch.where(LEFT, -0.4, same)]))


def part_of(target: str, **settings) -> torch.Tensor:
    prior, images = LeftSide(), torch.rand(2, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    source, other = prior.embed(["a cat"]), prior.embed([target])
    return changed_part(prior, images, source, other, torch.Generator().manual_seed(1), **settings)


def test_it_is_where_the_prompts_differ_in_every_picture():
    assert torch.equal(part_of("a fox"), LEFT.expand(2, 1, 8, 8))


def test_equal_prompts_are_about_nothing():
    assert not part_of("a cat").any()


def test_a_strength_is_a_share_of_the_diffusion_time():
    with pytest.raises(ValueError, match=r"strength=1.5 must lie in 0"):
        part_of("a fox", strength=1.5)


def test_what_is_put_back_is_the_source_and_the_rest_is_the_edit():
    source, edited, part = torch.zeros(1, 3, 8, 8), torch.ones(1, 3, 8, 8), LEFT.expand(1, 1, 8, 8)
    merged = put_back(edited, source, part)
    assert not merged[:, :, LEFT].any() and bool((merged[:, :, ~LEFT] == 1.0).all())

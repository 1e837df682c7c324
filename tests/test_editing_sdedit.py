"""SDEdit: nothing at strength 0, all of the text at strength 1, and more of the picture the less it is noised."""

from __future__ import annotations

import pytest
import torch
from closed_form import GaussianMixturePrior, GaussianPrior

from distill3d.systems.editing.sdedit import sdedit


def picture(size: int = 8, seed: int = 3) -> torch.Tensor:
    coarse = torch.rand(2, 3, 4, 4, generator=torch.Generator().manual_seed(seed))
    return torch.nn.functional.interpolate(coarse, (size, size), mode="bilinear")


def edited(prior, images, text="a fox", seed=0, **settings):
    rows, empty = prior.embed([text] * len(images)), prior.embed([""] * len(images))
    return sdedit(prior, images, rows, torch.Generator().manual_seed(seed), empty, **settings)


def test_strength_0_returns_the_picture_and_asks_the_prior_nothing():
    prior, images = GaussianPrior(), picture()
    assert torch.equal(edited(prior, images, strength=0.0), images)
    assert prior.evaluations == 0


def test_the_farther_it_is_noised_the_less_stays():
    prior, images = GaussianPrior(), picture()
    changes = [
        float((edited(prior, images, strength=s, guidance_scale=0.0) - images).square().mean()) for s in (0.1, 0.4, 0.9)
    ]
    assert 0.0 < changes[0] < 0.5 * changes[1] and changes[1] < changes[2]


@pytest.mark.parametrize("schedule", ["sd", "flow"])
def test_at_full_strength_the_text_alone_decides(schedule):
    means = torch.stack([torch.full((3, 4, 4), -0.5), torch.full((3, 4, 4), 0.5)])
    prior = GaussianMixturePrior(means, ("dark", "light"), schedule=schedule)
    light = torch.full((2, 3, 4, 4), 0.75)
    dark = edited(prior, light, "dark", strength=1.0, guidance_scale=0.0)
    torch.testing.assert_close(dark.mean((1, 2, 3)), torch.full((2,), 0.25), rtol=0, atol=0.05)
    kept = edited(prior, light, "light", strength=1.0, guidance_scale=0.0)
    torch.testing.assert_close(kept.mean((1, 2, 3)), torch.full((2,), 0.75), rtol=0, atol=0.05)


def test_pictures_of_any_size_come_back_in_theirs():
    images = torch.rand(1, 3, 10, 14, generator=torch.Generator().manual_seed(0))
    out = edited(GaussianPrior(), images, strength=0.5, clip=1.0)
    assert out.shape == images.shape and out.min() >= 0.0 and out.max() <= 1.0


def test_it_depends_on_the_generator_alone():
    prior, images = GaussianPrior(), picture()
    first, again, other = (edited(prior, images, seed=seed, strength=0.5) for seed in (1, 1, 2))
    assert torch.equal(first, again) and not torch.equal(first, other)


@pytest.mark.parametrize("strength", [-0.1, 1.1])
def test_a_strength_is_a_share(strength):
    with pytest.raises(ValueError, match=f"strength={strength} must lie in 0"):
        edited(GaussianPrior(), picture(), strength=strength)

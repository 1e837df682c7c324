"""Figures of pictures against closed forms."""

import math

import pytest
import torch

from distill3d.evaluation import figures


def flat(*color, size=32):
    return torch.tensor(color)[None, :, None, None].expand(1, 3, size, size).clone()


def wave(cycles_per_pixel, size=64):
    x = torch.arange(size) + 0.5
    return (0.5 + 0.4 * torch.sin(2 * math.pi * cycles_per_pixel * x))[None, None, None, :].expand(1, 3, size, size)


def test_grey_has_no_saturation_and_no_colour():
    assert figures.saturation(flat(0.3, 0.3, 0.3)) == 0.0
    assert figures.colourfulness(flat(0.3, 0.3, 0.3)) == 0.0
    assert figures.saturation(flat(1.0, 0.25, 0.5)) == pytest.approx(0.75)


def test_colourfulness_of_two_halves_is_its_formula():
    images = flat(1.0, 0.0, 0.0)
    images[..., 16:] = torch.tensor([0.0, 0.0, 1.0])[:, None, None]
    # rg is 1 and 0, yb is .5 and -1: deviations .5 and .75, means .5 and -.25
    expected = math.hypot(0.5, 0.75) + 0.3 * math.hypot(0.5, 0.25)
    assert figures.colourfulness(images) == pytest.approx(expected, rel=1e-5)


def test_high_frequencies_are_told_from_low_ones():
    assert figures.high_frequency_ratio(flat(0.2, 0.8, 0.1)) == 0.0
    assert figures.high_frequency_ratio(wave(1 / 16)) < 1e-3
    assert figures.high_frequency_ratio(wave(3 / 8)) > 0.999
    both = 0.5 * (wave(1 / 16) + wave(3 / 8))
    assert figures.high_frequency_ratio(both) == pytest.approx(0.5, abs=0.02)


def test_white_noise_has_its_share_of_the_plane():
    noise = torch.rand(8, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    outside = 1 - math.pi * 0.25**2  # of the square of frequencies, with the disc of the low ones cut out
    assert figures.high_frequency_ratio(noise) == pytest.approx(outside, abs=0.02)


def test_consistency_and_diversity_of_features():
    same = torch.tensor([[1.0, 0.0]]).repeat(4, 1)
    assert figures.view_consistency(same) == pytest.approx(1.0)
    assert figures.diversity(same) == pytest.approx(0.0)
    circle = torch.tensor([[1.0, 0.0], [0.0, 1.0], [-1.0, 0.0], [0.0, -1.0]])
    assert figures.view_consistency(circle) == pytest.approx(0.0)
    assert figures.diversity(circle) == pytest.approx(4 / 3)  # eight pairs at 1 and four at 2, over twelve
    assert figures.diversity(same[:1]) == 0.0


def test_ssim_agrees_with_scikit_image():
    from skimage.metrics import structural_similarity

    generator = torch.Generator().manual_seed(1)
    a = torch.rand(1, 3, 32, 32, generator=generator)
    b = (a + 0.1 * torch.randn(1, 3, 32, 32, generator=generator)).clamp(0, 1)
    _, full = structural_similarity(
        a[0].numpy(),
        b[0].numpy(),
        channel_axis=0,
        data_range=1.0,
        gaussian_weights=True,
        sigma=1.5,
        use_sample_covariance=False,
        full=True,
    )
    assert figures.ssim(a, b) == pytest.approx(full[:, 5:-5, 5:-5].mean(), abs=1e-4)
    assert figures.ssim(a, a) == pytest.approx(1.0)


def test_feature_distance_is_one_minus_the_cosine():
    a, b = torch.tensor([[1.0, 0.0], [0.0, 1.0]]), torch.tensor([[1.0, 0.0], [1.0, 0.0]])
    assert figures.feature_distance(a, b) == pytest.approx(0.5)

"""Figures of pictures against closed forms."""

import math

import pytest
import torch

from distill3d.evaluation import metrics
from distill3d.evaluation.scene_report import picture_figures


def flat(*color, size=32):
    return torch.tensor(color)[None, :, None, None].expand(1, 3, size, size).clone()


def wave(cycles_per_pixel, size=64):
    x = torch.arange(size) + 0.5
    return (0.5 + 0.4 * torch.sin(2 * math.pi * cycles_per_pixel * x))[None, None, None, :].expand(1, 3, size, size)


def test_grey_has_no_saturation_and_no_colour():
    assert metrics.saturation(flat(0.3, 0.3, 0.3)) == 0.0
    assert metrics.colourfulness(flat(0.3, 0.3, 0.3)) == 0.0
    assert metrics.saturation(flat(1.0, 0.25, 0.5)) == pytest.approx(0.75)


def test_figures_of_an_object_do_not_depend_on_the_colour_behind_it():
    found = []
    for background in ((0.5, 0.5, 0.5), (0.1, 0.3, 0.9), (1.0, 1.0, 1.0)):
        images = flat(*background)
        images[..., 8:24, 8:24] = flat(0.8, 0.4, 0.2, size=16)
        found.append(picture_figures(images))
    for figures in found:
        assert figures == pytest.approx(found[0], rel=1e-4)
        assert figures["saturation"] == pytest.approx(0.6, rel=1e-4)
    assert picture_figures(flat(0.1, 0.3, 0.9))["saturation"] == 0.0  # no object at all


def test_a_faint_gradient_is_background_and_a_soft_edge_counts_by_half():
    ramp = torch.linspace(-0.01, 0.01, 32)[None, None, None, :]
    assert float(metrics.foreground(flat(0.5, 0.5, 0.5) + ramp).max()) == 0.0
    images = flat(0.5, 0.5, 0.5)
    images[..., 10, 10] += 0.08
    assert float(metrics.foreground(images)[0, 0, 10, 10]) == pytest.approx(0.5, abs=1e-4)


def test_colourfulness_of_two_halves_is_its_formula():
    images = flat(1.0, 0.0, 0.0)
    images[..., 16:] = torch.tensor([0.0, 0.0, 1.0])[:, None, None]
    # rg is 1 and 0, yb is .5 and -1: deviations .5 and .75, means .5 and -.25
    expected = math.hypot(0.5, 0.75) + 0.3 * math.hypot(0.5, 0.25)
    assert metrics.colourfulness(images) == pytest.approx(expected, rel=1e-5)


def test_high_frequencies_are_told_from_low_ones():
    assert metrics.high_frequency_ratio(flat(0.2, 0.8, 0.1)) == 0.0
    assert metrics.high_frequency_ratio(wave(1 / 16)) < 1e-3
    assert metrics.high_frequency_ratio(wave(3 / 8)) > 0.999
    both = 0.5 * (wave(1 / 16) + wave(3 / 8))
    assert metrics.high_frequency_ratio(both) == pytest.approx(0.5, abs=0.02)


def test_white_noise_has_its_share_of_the_plane():
    noise = torch.rand(8, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    outside = 1 - math.pi * 0.25**2  # of the square of frequencies, with the disc of the low ones cut out
    assert metrics.high_frequency_ratio(noise) == pytest.approx(outside, abs=0.02)


def test_consistency_and_diversity_of_features():
    same = torch.tensor([[1.0, 0.0]]).repeat(4, 1)
    assert metrics.view_consistency(same) == pytest.approx(1.0)
    assert metrics.diversity(same) == pytest.approx(0.0)
    circle = torch.tensor([[1.0, 0.0], [0.0, 1.0], [-1.0, 0.0], [0.0, -1.0]])
    assert metrics.view_consistency(circle) == pytest.approx(0.0)
    assert metrics.diversity(circle) == pytest.approx(4 / 3)  # eight pairs at 1 and four at 2, over twelve
    assert metrics.diversity(same[:1]) == 0.0


@pytest.mark.parametrize("error", [0.5, 0.1, 0.01])
def test_psnr_of_a_constant_error_is_its_decibels(error):
    truth = torch.full((2, 3, 4, 5), 0.3)
    truth[1] = 0.2
    assert metrics.psnr_db(truth + error, truth).tolist() == pytest.approx([-20 * math.log10(error)] * 2, abs=1e-3)
    assert metrics.psnr_db(truth, truth).tolist() == [99.0] * 2


def test_psnr_of_the_counted_pixels_ignores_the_others():
    truth, images = torch.full((1, 3, 4, 4), 0.5), torch.full((1, 3, 4, 4), 0.6)
    counted = torch.zeros(1, 1, 4, 4)
    counted[..., :2] = 1.0
    images[..., 2:] = 0.0
    assert float(metrics.psnr_db(images, truth, counted)) == pytest.approx(20.0, abs=1e-3)
    assert float(metrics.psnr_db(images, truth)) < 10.0


def test_ssim_is_one_for_equal_pictures_and_falls_with_noise():
    truth = torch.rand(2, 3, 24, 20, generator=torch.Generator().manual_seed(0))
    noise = torch.randn(truth.shape, generator=torch.Generator().manual_seed(1))
    scores = [metrics.ssim((truth + s * noise).clamp(0, 1), truth).mean() for s in (0.0, 0.05, 0.3)]
    assert scores[0] == pytest.approx(1.0) and scores[0] > scores[1] > scores[2] > 0


def test_ssim_of_flat_pictures_is_its_luminance_term():
    a, b = torch.full((1, 3, 16, 16), 0.4), torch.full((1, 3, 16, 16), 0.6)
    constant = 0.01**2
    assert float(metrics.ssim(a, b)) == pytest.approx(
        (2 * 0.4 * 0.6 + constant) / (0.4**2 + 0.6**2 + constant), abs=1e-4
    )


def test_pictures_smaller_than_the_window_have_no_ssim():
    assert metrics.ssim(torch.zeros(3, 3, 10, 40), torch.zeros(3, 3, 10, 40)).isnan().tolist() == [True] * 3


def test_feature_distance_is_one_minus_the_cosine():
    a, b = torch.tensor([[1.0, 0.0], [0.0, 1.0]]), torch.tensor([[1.0, 0.0], [1.0, 0.0]])
    assert metrics.feature_distance(a, b) == pytest.approx(0.5)

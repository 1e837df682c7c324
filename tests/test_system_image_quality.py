"""PSNR and SSIM, against closed forms."""

import math

import pytest
import torch

from distill3d.systems.image_quality import psnr_db, ssim


@pytest.mark.parametrize("error", [0.5, 0.1, 0.01])
def test_psnr_of_a_constant_error_is_its_decibels(error):
    truth = torch.full((2, 3, 4, 5), 0.3)
    truth[1] = 0.2
    assert psnr_db(truth + error, truth).tolist() == pytest.approx([-20 * math.log10(error)] * 2, abs=1e-3)
    assert psnr_db(truth, truth).tolist() == [math.inf] * 2


def test_ssim_is_one_for_equal_pictures_and_falls_with_noise():
    truth = torch.rand(2, 3, 24, 20, generator=torch.Generator().manual_seed(0))
    noise = torch.randn(truth.shape, generator=torch.Generator().manual_seed(1))
    scores = [ssim((truth + s * noise).clamp(0, 1), truth).mean() for s in (0.0, 0.05, 0.3)]
    assert scores[0] == pytest.approx(1.0) and scores[0] > scores[1] > scores[2] > 0


def test_ssim_of_flat_pictures_is_its_luminance_term():
    a, b = torch.full((1, 3, 16, 16), 0.4), torch.full((1, 3, 16, 16), 0.6)
    constant = 0.01**2
    assert float(ssim(a, b)) == pytest.approx((2 * 0.4 * 0.6 + constant) / (0.4**2 + 0.6**2 + constant), abs=1e-4)


def test_pictures_smaller_than_the_window_have_no_ssim():
    assert ssim(torch.zeros(3, 3, 10, 40), torch.zeros(3, 3, 10, 40)).isnan().tolist() == [True] * 3

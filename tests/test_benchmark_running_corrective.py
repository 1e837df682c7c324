"""What is kept of a change is measured as a closed form says, and b_psi learns from what a run showed it."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
import torch
from closed_form import GaussianPrior

sys.path.insert(0, str(Path(__file__).parents[1] / "benchmarks"))

import running_corrective as bench

from distill3d.camera import CameraRanges, random_cameras
from distill3d.guidance.corrective import CorrectiveNetwork, save_corrective
from distill3d.guidance.corrective.spectral import radial_frequency
from distill3d.runtime.rng import rng


@pytest.fixture
def prior():
    return GaussianPrior((3, 16, 16), schedule="cosine")


@pytest.fixture
def shown(prior):
    """What eight steps of a run would show, two views each."""
    views = [random_cameras(CameraRanges(), 2, 16, 16, rng("camera", 0, step)) for step in range(8)]
    draw = torch.Generator().manual_seed(0)
    return [bench.Shown(i, prior.sample(2, draw), prior.embed(["a", "a"]), views[i]) for i in range(8)]


def test_a_change_lies_in_its_band():
    frequency = radial_frequency(16, 16)
    for low, high in bench.BANDS.values():
        change = bench.band_noise((2, 3, 16, 16), (low, high), torch.Generator().manual_seed(0))
        power = torch.fft.rfft2(change).abs().square().sum((0, 1))
        inside = (frequency >= low) & (frequency < high)
        assert float(power[~inside].sum()) < 1e-6 * float(power[inside].sum())
        assert float(change.square().mean().sqrt()) == pytest.approx(bench.AMPLITUDE)


def test_what_is_kept_is_the_wiener_gain_of_a_gaussian_prior(prior, shown):
    half = lambda x, t, alpha, sigma: 0.5 * x  # noqa: E731
    kept = list(bench.gains(prior, [half], bench.batch_of(shown, range(8)), 500))
    alpha, sigma = (float(each) for each in prior.alpha_sigma(torch.tensor([500])))
    full = torch.hypot(*torch.meshgrid(torch.fft.fftfreq(16), torch.fft.fftfreq(16), indexing="ij"))
    wiener = prior.wiener(torch.tensor(alpha).double(), torch.tensor(sigma).double())
    for (of_prior, of_half), (low, high) in zip(kept, bench.BANDS.values(), strict=True):
        inside = (full >= low) & (full < high)
        assert of_prior == pytest.approx(float(wiener[inside].mean()), rel=0.15)
        assert of_half == pytest.approx(0.5, abs=1e-4)
    assert kept[0][0] > 2 * kept[-1][0]  # a blur


def test_training_on_what_runs_showed_lowers_the_loss_there(prior, shown, tmp_path, monkeypatch):
    monkeypatch.setattr(bench, "EMBEDDED_WEIGHTS", tmp_path)
    monkeypatch.setattr(bench, "RATE", 5e-3)  # from nothing, not from a trained b_psi
    torch.manual_seed(0)
    shipped = CorrectiveNetwork(3, prior.num_train_timesteps, 0.4, 8)
    save_corrective(shipped, tmp_path / "corrective-16.safetensors", prior.identity, 16)
    taught, words = bench.train(prior, shipped.requires_grad_(False), shown, 60)
    before, after = (float(words.split(name)[1].split()[0].strip(".,")) for name in ("shipped ", "on it "))
    assert after < 0.9 * before
    assert not any(
        torch.equal(a, b) for a, b in zip(taught.net.stem.parameters(), shipped.net.stem.parameters(), strict=True)
    )
    assert bench.last_of(shown, steps=3).x.shape[0] == 6

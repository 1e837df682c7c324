"""b_psi: its network, the spectral fit, and the files that bind it to a prior."""

from __future__ import annotations

import logging

import pytest
import torch
from closed_form import GaussianPrior

from distill3d.guidance.corrective import (
    CorrectiveNetwork,
    SpectralCorrective,
    WrongPriorError,
    files,
    fit_spectral,
    load_corrective,
    save_corrective,
)
from distill3d.guidance.corrective.files import read_corrective
from distill3d.guidance.corrective.network import precondition
from distill3d.guidance.corrective.spectral import radial_frequency


@pytest.fixture
def prior():
    return GaussianPrior((3, 16, 16))


@pytest.fixture(params=[(1, None), (2, (4, 9))], ids=["pixels", "patches-and-filter"])
def network(request):
    """Random weights, also where training starts at zero."""
    torch.manual_seed(0)
    patch, filter_shape = request.param
    made = CorrectiveNetwork(3, 1000, 0.4, 8, patch, filter_shape)
    for parameter in made.net.head.parameters():
        torch.nn.init.normal_(parameter, std=0.2)
    if filter_shape is not None:
        gains = torch.linspace(1, 0.2, 4)[:, None] * torch.linspace(1, 0.1, 9)
        made.filter = SpectralCorrective(gains, torch.tensor([100.0, 350.0, 600.0, 900.0]))
    return made


def evaluate(corrective, prior, x, t):
    rows = torch.tensor(t)
    with torch.no_grad():
        return corrective(x, rows, *prior.alpha_sigma(rows))


def images(prior, count=4, seed=0):
    return prior.sample(count, torch.Generator().manual_seed(seed))


# -- the network --------------------------------------------------------------------------------------------------


def test_is_shallow():
    for network in (CorrectiveNetwork(3, 1000), CorrectiveNetwork(3, 1000, 0.5, 32, 2, (16, 17))):
        assert 50_000 < sum(p.numel() for p in network.parameters()) < 400_000


def test_starts_as_its_filter(prior):
    made = CorrectiveNetwork(3, 1000, 0.4, 8, 2, (4, 9))
    made.filter = SpectralCorrective(torch.rand(4, 9), torch.tensor([100.0, 350.0, 600.0, 900.0]))
    x, t = images(prior), [50, 300, 600, 950]
    assert torch.equal(evaluate(made, prior, x, t), evaluate(made.filter, prior, x, t))


def test_precondition_is_edms():
    one = torch.ones(1, 1, 1, 1)
    for n, skip, out in ((0.0, 1.0, 0.0), (0.5, 0.5, 0.5 / 2**0.5), (3.0, 0.25 / 9.25, 1.5 / 9.25**0.5)):
        c_skip, c_out = precondition(one, n * one, 0.5)
        assert float(c_skip) == pytest.approx(skip) and float(c_out) == pytest.approx(out)
    c_skip, c_out = precondition(0 * one, one, 0.5)  # the end of a flow's time
    assert c_skip.isfinite().all() and c_out.isfinite().all()


def test_is_the_exact_identity_without_noise(network):
    x, zero, one = torch.randn(2, 3, 9, 7), torch.zeros(2, 1, 1, 1), torch.ones(2, 1, 1, 1)
    time = torch.tensor([-1, -1])  # before any noise
    with torch.no_grad():
        torch.testing.assert_close(network(x, time, one, zero), x)


def test_knows_no_image_statistics(network, prior):
    """``b(a x + c) = a b(x) + c`` for a contrast a and a colour c."""
    x, colour = images(prior), torch.tensor([0.3, -0.2, 0.5])[None, :, None, None]
    t = [50, 300, 600, 950]
    expected = 0.5 * evaluate(network, prior, x, t) + colour
    torch.testing.assert_close(evaluate(network, prior, 0.5 * x + colour, t), expected, rtol=1e-3, atol=1e-3)


def test_depends_on_the_time(network, prior):
    """Beyond the preconditioning: the same noise ratio with another t gives another image."""
    x, rows = images(prior, 1), torch.tensor([300])
    alpha, sigma = prior.alpha_sigma(rows)
    with torch.no_grad():
        assert not torch.allclose(network(x, rows, alpha, sigma), network(x, rows + 300, alpha, sigma), atol=1e-3)


@pytest.mark.parametrize("size", [(5, 7), (16, 16), (33, 18)])
def test_flat_images_of_any_size_have_finite_gradients(network, prior, size):
    x, rows = torch.zeros(1, 3, *size, requires_grad=True), torch.tensor([500])
    network(x, rows, *prior.alpha_sigma(rows)).square().sum().backward()
    assert x.grad is not None and x.grad.isfinite().all()


def test_is_not_rounded_under_autocast(network, prior):
    x, rows = images(prior), torch.tensor([20, 300, 600, 950])
    expected = evaluate(network, prior, x, rows.tolist())
    with torch.no_grad(), torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(network(x, rows, *prior.alpha_sigma(rows)), expected)


# -- the spectral fit ---------------------------------------------------------------------------------------------


def test_fit_finds_the_wiener_filter():
    prior = GaussianPrior((1, 16, 16))
    generator = torch.Generator().manual_seed(0)
    fitted = fit_spectral(prior, images(prior, 256), prior.embed([""]), generator, t_bins=8)
    rings = torch.cat([(radial_frequency(16, 16) * 16).round()[None].long()])[0]
    for t in (187, 437, 687):  # near the middles of bins
        exact = prior.wiener(prior.alpha[t], prior.sigma[t])[:, :9].float()
        found = fitted.gain(torch.tensor([t]), 16, 16)[0, 0]
        for ring in range(1, 8):
            assert float(found[rings == ring].mean()) == pytest.approx(float(exact[rings == ring].mean()), abs=0.04)


def test_grey_and_colour_have_filters_of_their_own():
    grey, color = torch.full((5,), 0.8), torch.full((5,), 0.3)
    corrective = SpectralCorrective(torch.stack([grey, color])[None], torch.tensor([500.0]))
    wave = torch.cos(torch.arange(8) * (2 * torch.pi / 4)).expand(1, 1, 8, 8)
    grey_wave, color_wave = wave.repeat(1, 3, 1, 1), torch.cat([wave, 0 * wave, -wave], dim=1)
    t, one = torch.tensor([500]), torch.ones(1)
    torch.testing.assert_close(corrective(grey_wave + color_wave, t, one, one), 0.8 * grey_wave + 0.3 * color_wave)


def test_filter_is_the_identity_before_any_noise_and_keeps_the_colour():
    gains = torch.rand(3, 5, generator=torch.Generator().manual_seed(0))
    corrective = SpectralCorrective(gains, torch.tensor([100.0, 500.0, 900.0]))
    x, unused = torch.randn(2, 3, 8, 8, generator=torch.Generator().manual_seed(1)), torch.zeros(2, 1, 1, 1)
    torch.testing.assert_close(corrective(x, torch.tensor([-1, -1]), unused, unused), x)
    later = corrective(x, torch.tensor([100, 999]), unused, unused)
    torch.testing.assert_close(later.mean((2, 3)), x.mean((2, 3)))
    torch.testing.assert_close(corrective.gain(torch.tensor([900]), 8, 8), corrective.gain(torch.tensor([999]), 8, 8))


def test_filter_acts_on_cycles_per_pixel_at_every_size():
    gains = torch.linspace(1, 0, 9)[None]
    corrective = SpectralCorrective(gains, torch.tensor([500.0]))
    for size in (16, 32, 40):
        wave = torch.cos(torch.arange(size) * (2 * torch.pi / 4)).expand(1, 1, size, size)  # a quarter cycle a pixel
        out = corrective(wave, torch.tensor([500]), torch.ones(1), torch.ones(1))
        torch.testing.assert_close(out, 0.5 * wave, rtol=0, atol=1e-5)


def test_flat_images_cannot_be_fitted(prior):
    flat = torch.zeros(4, *prior.shape)
    with pytest.raises(ValueError, match="no contrast"):
        fit_spectral(prior, flat, prior.embed([""]), torch.Generator(), t_bins=2)


# -- files --------------------------------------------------------------------------------------------------------


def test_round_trip_of_both_kinds(prior, network, tmp_path):
    spectral = SpectralCorrective(torch.rand(2, 9), torch.tensor([100.0, 600.0]))
    x, t = images(prior), [50, 300, 600, 950]
    for name, corrective in (("network", network), ("spectral", spectral)):
        path = tmp_path / "deep" / f"{name}.safetensors"
        save_corrective(corrective, path, prior.identity, 16)
        again = read_corrective(path, prior.identity)
        assert type(again) is type(corrective)
        assert torch.equal(evaluate(again, prior, x, t), evaluate(corrective, prior, x, t))
    assert not list((tmp_path / "deep").glob("*.part"))


def test_wrong_prior_names_both(prior, network, tmp_path):
    path = tmp_path / "psi.safetensors"
    save_corrective(network, path, "another-model", 16)
    with pytest.raises(WrongPriorError, match=rf"another-model.*{prior.identity}"):
        load_corrective(str(path), prior, prior.embed([""]), 16)


def test_what_is_no_corrective_is_said_to_be_none(prior, tmp_path):
    from safetensors.torch import save_file

    with pytest.raises(FileNotFoundError, match=r"corrective='nowhere.safetensors' does not exist"):
        load_corrective("nowhere.safetensors", prior, prior.embed([""]), 16)
    (tmp_path / "text.safetensors").write_text("hello")
    with pytest.raises(ValueError, match="cannot be read as a safetensors file"):
        load_corrective(str(tmp_path / "text.safetensors"), prior, prior.embed([""]), 16)
    save_file({"a": torch.zeros(1)}, tmp_path / "other.safetensors")
    with pytest.raises(ValueError, match="is not a corrective"):
        load_corrective(str(tmp_path / "other.safetensors"), prior, prior.embed([""]), 16)


def test_auto_takes_what_is_shipped_for_this_prior(prior, network, tmp_path, monkeypatch, caplog):
    caplog.set_level(logging.INFO)
    monkeypatch.setattr(files, "SHIPPED_DIR", tmp_path)
    save_corrective(network, tmp_path / "corrective-16.safetensors", prior.identity, 16)
    made = load_corrective("auto", prior, prior.embed([""]), 16, str(tmp_path / "cache"))
    assert isinstance(made, CorrectiveNetwork) and not any(p.requires_grad for p in made.parameters())
    assert [r.message for r in caplog.records] == [
        "corrective: auto selects corrective-16.safetensors, trained for this prior"
    ]
    assert not (tmp_path / "cache").exists()


@pytest.mark.parametrize("owner", [None, "another-model"])
def test_auto_fits_a_spectral_one_for_other_priors_once(prior, network, owner, tmp_path, monkeypatch, caplog):
    caplog.set_level(logging.INFO)
    monkeypatch.setattr(files, "SHIPPED_DIR", tmp_path)
    if owner is not None:
        save_corrective(network, tmp_path / "corrective-16.safetensors", owner, 16)
    settings = ("auto", prior, prior.embed([""]), 16, str(tmp_path / "cache"))
    first = load_corrective(*settings)
    assert isinstance(first, SpectralCorrective) and "selects the spectral one" in caplog.text
    prior.calls.clear()
    second = load_corrective(*settings)
    assert not prior.calls and torch.equal(first.gains, second.gains)


def test_a_folder_has_one_for_each_image_size(prior, network, tmp_path):
    save_corrective(network, tmp_path / "corrective-16.safetensors", prior.identity, 16)
    assert isinstance(load_corrective(str(tmp_path), prior, prior.embed([""]), 16), CorrectiveNetwork)
    with pytest.raises(FileNotFoundError, match=r"corrective-32\.safetensors' does not exist"):
        load_corrective(str(tmp_path), prior, prior.embed([""]), 32)


def test_reading_takes_no_random_numbers(prior, network, tmp_path):
    save_corrective(network, tmp_path / "psi.safetensors", prior.identity, 16)
    before = torch.get_rng_state()
    read_corrective(tmp_path / "psi.safetensors", prior.identity)
    assert torch.equal(torch.get_rng_state(), before)

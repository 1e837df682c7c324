"""Training b_psi: the loss is LMC-SDS's own error, and falls below every simpler corrective's."""

from __future__ import annotations

import torch
from closed_form import GaussianPrior

from distill3d.guidance.corrective import CorrectiveNetwork, fit_spectral
from distill3d.guidance.corrective.picture import draw_report, loss_lines, radial_power, spectra
from distill3d.guidance.corrective.training import (
    Denoised,
    Memory,
    bin_timesteps,
    corrective_losses,
    denoise,
    identity,
    joined,
    losses_by_time,
    perturbed,
    validation_floor,
)
from distill3d.types import Pass


def test_loss_is_the_squared_error_in_eps_space_clipped():
    """For b = x it is ``|| eps_hat - eps ||^2`` wherever (alpha/sigma)^2 <= 20."""
    prior = GaussianPrior((3, 8, 8))
    x, t = prior.sample(3, torch.Generator().manual_seed(0)), torch.tensor([5, 300, 900])
    eps, text = torch.randn(x.shape, generator=torch.Generator().manual_seed(1)), prior.embed([""] * 3)
    losses = corrective_losses(identity, prior, denoise(prior, x, text, t, eps))
    alpha, sigma = prior.alpha_sigma(t)
    noise = prior.predict([Pass(alpha * x + sigma * eps, t, text)])[0].noise
    plain = (noise - eps).square().mean((1, 2, 3))
    torch.testing.assert_close(losses[1:], plain[1:], rtol=1e-4, atol=1e-6)
    torch.testing.assert_close(
        losses[0], plain[0] * 20 * (sigma[0] / alpha[0]).square().squeeze(), rtol=1e-3, atol=1e-6
    )


def test_bins_cover_the_time():
    t = bin_timesteps(4, 10, 1000)
    assert t.shape == (10, 4) and t.min() == 12 and t.max() == 987
    assert ((t // 100) == torch.arange(10)[:, None]).all()


def test_network_learns_what_the_prior_does_to_images(tmp_path):
    """In 120 small steps it is well below SDS's own b = x, and near the best linear filter."""
    prior, generator = GaussianPrior((1, 8, 8)), torch.Generator().manual_seed(0)
    torch.manual_seed(0)
    network = CorrectiveNetwork(1, 1000, sigma_data=0.25, width=4)
    optimizer = torch.optim.Adam(network.parameters(), lr=3e-3)
    text = prior.embed([""] * 16)
    for _ in range(120):
        x = prior.sample(16, generator)
        t, eps = torch.randint(0, 1000, (16,), generator=generator), torch.randn(x.shape, generator=generator)
        loss = corrective_losses(network, prior, denoise(prior, x, text, t, eps)).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    x = prior.sample(64, generator)
    spectral = fit_spectral(prior, prior.sample(256, generator), text[:1], generator)
    rivals = {"b_psi": network, "spectral": spectral, "none": identity}
    losses = losses_by_time(rivals, prior, x, prior.embed([""] * 64), generator, bins=5)
    means = {name: sum(values) / len(values) for name, values in losses.items()}
    assert means["b_psi"] < 0.5 * means["none"] and means["spectral"] < 0.5 * means["none"]
    assert means["b_psi"] < 1.3 * means["spectral"]

    lines = spectra(network, prior, x[:8], text[:8], generator)
    assert len(lines) == 10 and all(len(line.values) == 4 for line in lines)
    draw_report(tmp_path / "report.png", lines, loss_lines(losses))
    from PIL import Image

    assert len(set(Image.open(tmp_path / "report.png").convert("RGB").getdata())) > 10


def test_no_corrective_is_below_the_floor_and_the_closed_form_is_at_it():
    """For Gaussian data E[x_hat | x] is known: the mean plus the Wiener filter of the rest."""
    prior, generator = GaussianPrior((1, 8, 8)), torch.Generator().manual_seed(0)
    x, text = prior.sample(256, generator), prior.embed([""] * 256)
    floor = validation_floor(prior, x, text, generator, bins=4)

    def average(x, t, alpha, sigma):
        """x_hat is linear in the noise, so that of no noise is its mean over the noise."""
        return prior.predict([Pass(alpha * x, t, text)])[0].x0

    best = losses_by_time({"best": average}, prior, x, text, generator, bins=4)["best"]
    torch.testing.assert_close(torch.tensor(best), torch.tensor(floor), rtol=0.1, atol=1e-5)


def test_memory_gives_whole_pairs_back():
    prior, generator = GaussianPrior((1, 8, 8)), torch.Generator().manual_seed(0)
    memory, text = Memory(batches=2), prior.embed([""] * 4)
    assert memory.draw(8, generator) == []
    known = []
    for i in range(3):
        x, t = prior.sample(4, generator), torch.tensor([10, 300, 600, 900]) + i
        known.append(denoise(prior, x, text, t, torch.randn(x.shape, generator=generator)))
        memory.keep(known[-1])
    again = joined(memory.draw(40, generator))
    assert again.x.shape == (40, 1, 8, 8)
    for x, t, x_hat in zip(*again, strict=True):  # of the last two batches, each with its own time and answer
        batch, row = next((b, list(b.t).index(t)) for b in known[1:] if t in b.t)
        assert torch.equal(x, batch.x[row]) and torch.equal(x_hat, batch.x_hat[row])


def batch_of(value, rows=4):
    return Denoised(torch.full((rows, 1, 8, 8), value), torch.arange(rows), torch.full((rows, 1, 8, 8), -value))


def test_memory_is_bounded_in_batches_and_in_bytes():
    one = sum(part.nbytes for part in batch_of(0.0))
    for memory, kept in ((Memory(2), 2), (Memory(9, most_bytes=3 * one), 3), (Memory(9, most_bytes=1), 1)):
        for value in range(5):
            memory.keep(batch_of(float(value)))
        assert len(memory) == kept and memory.nbytes == kept * one
        assert [float(batch["x"][0, 0, 0, 0]) for batch in memory.state()] == list(range(5))[-kept:]
    memory = Memory(0)
    memory.keep(batch_of(0.0))
    assert len(memory) == 0 and memory.draw(8, torch.Generator()) == []


def test_memory_survives_a_checkpoint(tmp_path):
    """What is drawn after it has been written, read and restored is what would have been drawn anyway."""
    memory, again = Memory(3), Memory(3)
    for value in range(4):
        memory.keep(batch_of(float(value)))
    torch.save({"replay": memory.state()}, tmp_path / "some.ckpt")
    again.keep(batch_of(99.0))  # it makes way
    again.restore(torch.load(tmp_path / "some.ckpt", weights_only=True)["replay"], "cpu")
    for each in (memory, again):
        each.keep(batch_of(4.0))
    drawn = [joined(each.draw(20, torch.Generator().manual_seed(0))) for each in (memory, again)]
    assert all(torch.equal(*parts) for parts in zip(*drawn, strict=True))
    assert set(drawn[0].x.unique().tolist()) == {2.0, 3.0, 4.0}


def test_radial_power_of_a_wave_is_in_its_ring():
    wave = torch.cos(torch.arange(16) * (2 * torch.pi * 3 / 16)).expand(1, 1, 16, 16) + 5.0
    assert int(radial_power(wave).argmax()) == 3
    assert radial_power(wave)[0] < 1e-6


def test_perturbed_images_keep_their_mean_and_some_stay_clean():
    x = torch.zeros(64, 3, 16, 16)
    made = perturbed(x, 0.2, torch.Generator().manual_seed(0))
    deviation = made.flatten(1).std(1)
    assert 0.05 < float((deviation == 0).float().mean()) < 0.45 and float(deviation.max()) < 0.22
    assert float(deviation[deviation > 0].mean()) > 0.06
    assert torch.equal(perturbed(x, 0.0, torch.Generator().manual_seed(0)), x)

"""b_psi taught by running scenes, and what it keeps of fine patterns: python benchmarks/running_corrective.py.

LMC-SDS without k (the paper's rule) lets the finest patterns grow at 64x64. Its force is b_psi(x, t) - x_hat: a small
change of x fades where b_psi keeps more of it than the prior does, and grows where it keeps less. b_psi is taught by
finished renders; a run shows it half-made things. So this benchmark

1. records what the guidance is shown in runs without k, and in runs as shipped;
2. trains the shipped b_psi further on what runs without k showed it, at both image sizes;
3. measures what the prior, the shipped b_psi and the new one keep of noise in four bands of spatial frequency.

The new b_psi is in WORK/b_psi: system.guidance.corrective=WORK/b_psi. One process of two threads: about 10 minutes.
"""

# ruff: noqa: T201  a benchmark prints

from __future__ import annotations

import argparse
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import torch
from jaxtyping import Float
from lmc_bench import QUIET
from pytorch_lightning.callbacks import Callback
from tables import table
from torch import Tensor

from distill3d.config.files import EMBEDDED_WEIGHTS
from distill3d.guidance.corrective import CorrectiveNetwork, save_corrective
from distill3d.guidance.corrective.files import file_for, read_corrective
from distill3d.guidance.corrective.spectral import radial_frequency
from distill3d.guidance.corrective.training import corrective_losses, denoise, perturbed
from distill3d.priors.base import DiffusionPrior, add_noise
from distill3d.run import prepare
from distill3d.runtime.files import write_atomically
from distill3d.runtime.rng import rng
from distill3d.types import Cameras, Pass, PromptEmbedding
from distill3d.verbs import Request

RESULTS = Path(__file__).parent / "results"
CONFIG = "dreamfusion-lmc.yaml"
# nouns that the tables of LMC-SDS without k (benchmarks/results.py) do not have
TAUGHT_BY = ("a banana", "a dog", "a snowman", "a red car")
SIZES = (32, 64)
BANDS = {"coarse": (0.03, 0.125), "middle": (0.125, 0.25), "fine": (0.25, 0.375), "finest": (0.375, 0.71)}  # cycles/px
AMPLITUDE = 0.05  # root mean square of the change; images go from -1 to 1
TIMES = (300, 500, 800)  # the shipped schedule draws t between .2 and .8 at the end
BATCH = 16
RATE = 5e-4


@dataclass(frozen=True)
class Shown:
    """What the guidance was shown in one step: a batch of renders, and what the prior was told of them."""

    step: int
    x: Float[Tensor, "B C h w"]
    text: PromptEmbedding
    cameras: Cameras


@dataclass
class Recorder(Callback):
    """Keeps what the guidance of a run is shown, and the run's prior."""

    shown: list[Shown] = field(default_factory=list)
    prior: DiffusionPrior | None = None

    def on_train_start(self, trainer: object, system: object) -> None:
        guidance = system.guidance  # type: ignore[attr-defined]
        self.prior, rule = system.prior, guidance.gradient  # type: ignore[attr-defined]

        def gradient(prior, inputs, draw):
            self.shown.append(Shown(inputs.step, draw.x, inputs.texts["conditional"], inputs.cameras))
            return rule(prior, inputs, draw)

        guidance.gradient = gradient


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--prompts", nargs="+", default=list(TAUGHT_BY))
    parser.add_argument("--steps", type=int, default=300, help="of b_psi's training, at each image size")
    parser.add_argument("--work", type=Path, default=Path("outputs/running-corrective"))
    parser.add_argument("--results", type=Path, default=RESULTS)
    parser.add_argument("settings", nargs="*", help="key=value for all runs")
    given = parser.parse_args(arguments)
    begun = time.perf_counter()
    runs: dict[float, list[Shown]] = {}
    prior: DiffusionPrior | None = None
    for k, prompts in ((0.0, given.prompts), (0.6, given.prompts[:1])):
        for prompt in prompts:
            recorded = record(prompt, k, given.work, given.settings)
            runs.setdefault(k, []).extend(recorded.shown)
            prior = recorded.prior
            print(f"k = {k:g}, {prompt}: {time.perf_counter() - begun:.0f} s so far", flush=True)
    assert prior is not None
    shipped = {size: network(read_corrective(file_for(EMBEDDED_WEIGHTS, size), prior.identity)) for size in SIZES}
    parts = []
    for size in SIZES:
        taught, losses = train(prior, shipped[size], of_size(runs[0.0], size), given.steps)
        save_corrective(taught, given.work / "b_psi" / f"corrective-{size}.safetensors", prior.identity, size)
        parts += [f"## {size}x{size}", losses, gains_table(prior, (shipped[size], taught), runs, size)]
        print("\n\n".join(parts[-3:]), flush=True)
    head = ["# b_psi under running scenes", f"`python benchmarks/running_corrective.py`, {len(given.prompts)} prompts."]
    write_atomically(given.results / "running_corrective.md", "\n\n".join([*head, ABOUT, *parts]) + "\n")
    print(f"{time.perf_counter() - begun:.0f} s")
    return 0


ABOUT = (
    "What is kept, of 1, of a small change of the image in a band of spatial frequencies: by x_hat (the prior, told "
    "text and camera) and by b_psi, shipped and after training on what runs without k showed it. SDS takes away what "
    "the prior does not keep. LMC-SDS takes away the difference between b_psi and the prior: nothing where both keep "
    "nothing, and it lets a change grow where b_psi keeps less. k: the least share of SDS that stops that growth, for "
    "the shipped b_psi. Pictures: what the guidance was shown in the last 50 steps at this size."
)


def record(prompt: str, k: float, work: Path, settings: Sequence[str]) -> Recorder:
    """A run as ``launch.py --train`` makes it, of which only what its guidance was shown is kept."""
    own = (f"system.prompt_processor.prompt={prompt}", f"system.guidance.k={k:g}", f"exp_root_dir={work / 'trials'}")
    run = prepare(Request("train", CONFIG, (*own, *QUIET, *settings)))
    recorder = Recorder()
    run.trainer.callbacks.append(recorder)  # type: ignore[attr-defined]
    run.trainer.fit(run.system, datamodule=run.data)
    return recorder


def of_size(shown: Sequence[Shown], size: int) -> list[Shown]:
    return [one for one in shown if one.x.shape[-1] == size]


def network(corrective: object) -> CorrectiveNetwork:
    """The shipped b_psi. Raises TypeError where it has no weights to train."""
    if not isinstance(corrective, CorrectiveNetwork):
        raise TypeError("the shipped corrective is a spectral one, which is not trained")
    return corrective


def batch_of(shown: Sequence[Shown], chosen: Sequence[int]) -> Shown:
    """Some steps' renders as one batch."""
    parts = [shown[i] for i in chosen]
    text = PromptEmbedding.cat([part.text for part in parts])
    return Shown(-1, torch.cat([part.x for part in parts]), text, Cameras.cat([part.cameras for part in parts]))


def train(
    prior: DiffusionPrior, shipped: CorrectiveNetwork, shown: Sequence[Shown], steps: int
) -> tuple[CorrectiveNetwork, str]:
    """b_psi trained further as it was trained before, but on what runs showed it; and its loss before and after."""
    size = shown[0].x.shape[-1]
    path = file_for(EMBEDDED_WEIGHTS, size)
    taught = network(read_corrective(path, prior.identity)).requires_grad_(True)
    optimizer = torch.optim.AdamW(taught.parameters(), RATE, weight_decay=0.0)
    scheduler = torch.optim.lr_scheduler.LinearLR(optimizer, 1.0, 0.05, steps)
    generator = rng("noise", 0)
    before, after = [], []
    for _ in range(steps):
        batch = batch_of(shown, torch.randint(len(shown), (BATCH,), generator=generator).tolist())
        x = perturbed(batch.x, 0.2, generator)
        t = torch.randint(0, prior.num_train_timesteps, (len(x),), generator=generator)
        images = denoise(prior, x, batch.text, t, torch.randn(x.shape, generator=generator), batch.cameras)
        with torch.no_grad():
            before.append(float(corrective_losses(shipped, prior, images).mean()))
        loss = corrective_losses(taught, prior, images).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        scheduler.step()
        after.append(float(loss.detach()))
    last = slice(-max(1, steps // 10), None)
    mean = lambda losses: sum(losses[last]) / len(losses[last])  # noqa: E731
    words = f"Loss on what runs without k showed it, last tenth of {steps} steps: shipped {mean(before):.4f}"
    return taught.requires_grad_(False).eval(), f"{words}, trained on it {mean(after):.4f}."


def gains_table(
    prior: DiffusionPrior, b_psi: Sequence[CorrectiveNetwork], runs: dict[float, list[Shown]], size: int
) -> str:
    """A row for each kind of picture and t, and for each band what is kept by the prior, b_psi and the new b_psi."""
    rows = []
    for k, name in ((0.6, "as shipped"), (0.0, "without k")):
        shown = last_of(of_size(runs[k], size))
        for t in TIMES:
            row = [name, f"{t / prior.num_train_timesteps:g}"]
            for kept, old, new in gains(prior, b_psi, shown, t):
                least_k = (kept - old) / (1.0 - old) if old < kept else 0.0
                row.append(f"{kept:.3f} / {old:.3f} / {new:.3f}; k {least_k:.2f}")
            rows.append(row)
    return table(["pictures", "t", *(f"{name}: prior / b_psi / new" for name in BANDS)], rows)


def last_of(shown: Sequence[Shown], steps: int = 50) -> Shown:
    """A batch of what was shown in the last steps."""
    last = max(one.step for one in shown)
    own = [i for i, one in enumerate(shown) if one.step > last - steps]
    return batch_of(shown, own[:: max(1, len(own) // BATCH)][:BATCH])


@torch.no_grad()
def gains(
    prior: DiffusionPrior, b_psi: Sequence[CorrectiveNetwork], shown: Shown, t: int
) -> Iterator[tuple[float, ...]]:
    """For each band what x_hat and each b_psi keep of a change d in it: ``<f(x + d) - f(x), d> / <d, d>``."""
    generator = rng("noise", 0, t)
    rows, eps = torch.full((len(shown.x),), t), torch.randn(shown.x.shape, generator=generator)
    alpha, sigma = prior.alpha_sigma(rows)

    def answers(x: Tensor) -> list[Tensor]:
        told = Pass(add_noise(prior, x, eps, rows), rows, shown.text, cameras=shown.cameras)
        return [prior.predict([told])[0].x0, *(b(x, rows, alpha, sigma) for b in b_psi)]

    before = answers(shown.x)
    for band in BANDS.values():
        change = band_noise(shown.x.shape, band, generator)
        after, power = answers(shown.x + change), change.square().sum()
        yield tuple(float(((a - b) * change).sum() / power) for a, b in zip(after, before, strict=True))


def band_noise(shape: Sequence[int], band: tuple[float, float], generator: torch.Generator) -> Float[Tensor, "B C h w"]:
    """White noise within a band of radial frequencies (cycles per pixel), of `AMPLITUDE`."""
    frequency = radial_frequency(*shape[-2:])
    inside = (frequency >= band[0]) & (frequency < band[1])
    noise = torch.fft.irfft2(torch.fft.rfft2(torch.randn(tuple(shape), generator=generator)) * inside, s=shape[-2:])
    return AMPLITUDE * noise / noise.square().mean().sqrt()


if __name__ == "__main__":
    raise SystemExit(main())

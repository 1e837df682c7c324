"""Where the time of a training step goes: python benchmarks/step.py [--config dreamfusion.yaml] [--rounds 12].

The scene is the config's, its density blob replaced by a solid ball of radius .4 and the occupancy grid settled on it.
Times are medians over different cameras; stages are averaged over the shading modes as they are drawn in training
(25 / 37.5 / 37.5 % by default). The floor is the prior's own forward pass of the two texts. Nothing else may run
meanwhile.
"""

# ruff: noqa: T201  a benchmark prints

from __future__ import annotations

import argparse
import os
import statistics
import sys
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import torch
from torch import nn

from distill3d.config.experiment import build, load
from distill3d.config.registry import find
from distill3d.data.random_cameras import RandomCameraBatch, RandomCameraDataModule, training_batch
from distill3d.guidance.base import distillation_loss
from distill3d.optim import make_optimizer
from distill3d.priors.base import DiffusionPrior
from distill3d.priors.loader import PriorError
from distill3d.runtime.device import keep_freed_memory, set_threads
from distill3d.runtime.rng import rng
from distill3d.scenes.nerf.encoding import interpolate
from distill3d.scenes.nerf.grid import interpolate_reference
from distill3d.scenes.nerf.losses import regulariser
from distill3d.types import GuidanceInput, RenderOutput, ShadingMode

BALL = {"density_bias": "blob_magic3d", "density_blob_scale": 40.0, "density_blob_std": 0.4}
ENCODING_POINTS = 65_536


class Timer:
    """Milliseconds by name, one number for each visit."""

    def __init__(self) -> None:
        self.milliseconds: dict[str, list[float]] = defaultdict(list)

    @contextmanager
    def __call__(self, name: str) -> Iterator[None]:
        start = time.perf_counter()
        yield
        self.milliseconds[name].append(1000.0 * (time.perf_counter() - start))

    def median(self, name: str) -> float:
        return statistics.median(self.milliseconds[name])


class Step:
    """The parts of one training step of a config, without the Trainer around them."""

    def __init__(self, config: str, overrides: list[str]) -> None:
        experiment = load(config, overrides).experiment
        settings: dict[str, Any] = {**experiment.system}
        settings["geometry"] = {**settings.get("geometry", {}), **BALL}
        cls: Any = find("system", experiment.system_type)
        self.seed = experiment.seed
        self.system = cls(build(cls.Config, settings, "system"), seed=self.seed)
        self.data = RandomCameraDataModule(build(RandomCameraDataModule.Config, experiment.data, "data"), self.seed)
        self.max_steps = int(experiment.trainer.get("max_steps", 1000))
        parts = nn.ModuleDict(self.system.trained_parts())
        self.optimizer = make_optimizer(parts, self.system.cfg.optimizer)
        self.renderer = self.system.renderer

    def load_prior(self) -> DiffusionPrior | None:
        """The config's prior, its texts embedded; None, with a line that says why, where it cannot be loaded."""
        system, model = self.system, self.system.make("prior")
        try:
            system.prompt_processor.prepare(system.guidance.texts(system.prompt_processor.prompt), model, "cpu")
            prior = model.load("cpu")
        except PriorError as error:
            print(f"no prior, so neither guidance nor floor: {error}")
            return None
        if hasattr(system.guidance, "prepare"):
            system.guidance.prepare(prior, system.prompt_processor.texts(None, 1))
        return prior

    def settle(self) -> None:
        """Open every level, and let the occupancy grid see each cell several times."""
        interval = self.renderer.cfg.occupancy_update_interval
        for visit in range(12):
            self.renderer.update_step(visit * interval, self.seed)
        self.renderer.geometry.update_step(self.max_steps)

    def batch(self, visit: int) -> RandomCameraBatch:
        """A batch as at the end of training, where images are largest."""
        return training_batch(self.data.cfg, self.data.views, self.seed, self.max_steps + visit)

    def run(self, timer: Timer, mode: ShadingMode, visit: int, prior: DiffusionPrior | None) -> RenderOutput:
        """One step; each stage is timed."""
        weights = self.system.cfg.loss.weights(self.max_steps)
        with timer("cameras"):
            batch = self.batch(visit)
        with timer("render"):
            output = self.renderer(
                batch.cameras, batch.light, mode, visit, self.seed, need_normal="orient" in weights and mode != "albedo"
            )
        loss = output.rgb.square().mean()  # stands in for the distillation loss where there is no prior
        if prior is not None:
            with timer("guidance"):
                x = prior.encode(output.rgb)
                loss = distillation_loss(x, self.guide(prior, x, batch, visit))
        with timer("regularisers"):
            names = [n for n in weights if n != "sds" and (n != "orient" or output.sample_normals is not None)]
            for name in names:
                loss = loss + weights[name] * regulariser(name, output, self.system.cfg.loss.orient_reduction)
        with timer("backward"):
            loss.backward()
        with timer("optimizer"):
            self.optimizer.step()
            self.optimizer.zero_grad()
        return output

    def guide(self, prior: DiffusionPrior, x: torch.Tensor, batch: RandomCameraBatch, visit: int) -> torch.Tensor:
        texts = self.system.prompt_processor.texts(batch.cameras, len(x))
        generator = rng("noise", self.seed, visit)
        inputs = GuidanceInput(x, texts, self.max_steps - 1, self.max_steps, generator, batch.cameras)
        return self.system.guidance(prior, inputs).grad

    def floor(self, prior: DiffusionPrior, rounds: int) -> float:
        """Milliseconds of the guidance alone, in which the network's forward pass is all but everything."""
        timer, batch = Timer(), self.batch(0)
        x = prior.encode(torch.rand(len(batch.cameras), 3, batch.cameras.height, batch.cameras.width))
        for visit in range(rounds):
            with timer("floor"), torch.no_grad():
                self.guide(prior, x, batch, visit)
        return timer.median("floor")


def shares_of_modes(step: Step) -> dict[ShadingMode, float]:
    """How often training draws each mode once shading has begun."""
    settings = step.renderer.material.cfg
    shaded = settings.diffuse_prob
    textureless = shaded * settings.textureless_prob
    return {"albedo": 1.0 - shaded, "lambertian": shaded - textureless, "textureless": textureless}


def time_modes(
    step: Step, prior: DiffusionPrior | None, rounds: int
) -> tuple[dict[ShadingMode, Timer], dict[str, int]]:
    """Timers of whole steps by shading mode, and the mean number of samples."""
    timers, samples = {}, {}
    start = {name: p.detach().clone() for name, p in step.renderer.named_parameters()}
    for mode in shares_of_modes(step):
        step.run(Timer(), mode, 0, prior)  # warm caches
        timer, counts = Timer(), []
        for visit in range(rounds):
            counts.append(len(step.run(timer, mode, visit, prior).samples or ()))
            with torch.no_grad():  # the scene stays the ball
                for name, parameter in step.renderer.named_parameters():
                    parameter.copy_(start[name])
        timers[mode], samples[mode] = timer, round(statistics.mean(counts))
    return timers, samples


def time_occupancy(step: Step) -> float:
    """Milliseconds of an update of the grid, spread over the steps between updates."""
    timer, cfg = Timer(), step.renderer.cfg
    first = -(-cfg.occupancy_warmup_steps // cfg.occupancy_update_interval)
    for visit in range(5):
        with timer("occupancy"):
            step.renderer.update_step((first + visit) * cfg.occupancy_update_interval, step.seed)
    step.renderer.geometry.update_step(step.max_steps)
    return timer.median("occupancy") / cfg.occupancy_update_interval


def time_encoding(step: Step, rounds: int) -> dict[str, float]:
    """Milliseconds forward and backward, with the Jacobian that normals need, by backend."""
    encoding = step.renderer.geometry.encoding
    points = torch.rand(ENCODING_POINTS, 3, generator=torch.Generator().manual_seed(0))
    kernel = lambda: interpolate(encoding.table, points, encoding.levels, need_jacobian=True)  # noqa: E731
    twin = lambda: interpolate_reference(encoding.table, points, encoding.levels)  # noqa: E731
    grads = [torch.randn_like(x) for x in kernel()]
    return {
        "CPU kernel": _time(lambda: torch.autograd.grad(kernel(), encoding.table, grads), rounds),
        "torch twin": _time(lambda: torch.autograd.grad(twin(), encoding.table, grads), 3),
    }


def table(title: str, header: list[str], rows: list[list[str]]) -> None:
    """Print rows under a header, the first column to the left, the others to the right."""
    widths = [max(len(row[i]) for row in [header, *rows]) for i in range(len(header))]
    print(f"\n{title}")
    for row in [header, ["-" * w for w in widths], *rows]:
        print("  ".join(c.ljust(w) if i == 0 else c.rjust(w) for i, (c, w) in enumerate(zip(row, widths, strict=True))))


def report(step: Step, prior: DiffusionPrior | None, rounds: int) -> None:
    """Measure everything and print the three tables."""
    floor = step.floor(prior, rounds) if prior is not None else None
    timers, samples = time_modes(step, prior, rounds)
    shares = shares_of_modes(step)
    stages = {
        name: sum(shares[m] * timers[m].median(name) for m in shares)
        for name in next(iter(timers.values())).milliseconds
    }
    stages["occupancy"] = time_occupancy(step)
    total = sum(stages.values())
    ratio = lambda ms: f"{ms / floor:.2f}" if floor else "-"  # noqa: E731
    cameras = step.batch(0).cameras
    rows = [[name, f"{ms:.1f}", f"{100 * ms / total:.0f} %", ratio(ms)] for name, ms in stages.items()]
    rows += [["whole step", f"{total:.1f}", "100 %", ratio(total)]]
    if floor is not None:
        rows += [["floor: the prior's forward pair", f"{floor:.1f}", "", "1.00"]]
    views = f"{len(cameras)} view(s) of {cameras.width}x{cameras.height}"
    table(f"One training step, {views}", ["stage", "ms", "share", "ratio to the floor"], rows)
    rows = [[m, f"{samples[m]}", *_render_times(timers[m])] for m in shares]
    mean = sum(shares[m] * (timers[m].median("render") + timers[m].median("backward")) for m in shares)
    rows += [["mean as drawn", "", "", "", f"{mean:.1f}"]]
    table("Rendering by shading mode, ms", ["mode", "samples", "forward", "backward", "sum"], rows)
    encoding = time_encoding(step, rounds)
    fastest = encoding["CPU kernel"]
    rows = [[name, f"{ms:.1f}", f"{ms / fastest:.1f}"] for name, ms in encoding.items()]
    table(f"Encoding, {ENCODING_POINTS} points, forward and backward", ["backend", "ms", "ratio"], rows)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--config", default="dreamfusion.yaml")
    parser.add_argument("--rounds", type=int, default=12, help="visits of each stage")
    parser.add_argument("overrides", nargs="*", help="key=value, as for launch.py")
    arguments = parser.parse_args()
    threads = set_threads()
    keep_freed_memory()
    print(f"{threads} threads, load {os.getloadavg()[0]:.1f} before the start (more than 0.5 spoils the figures)")
    torch.manual_seed(0)
    step = Step(arguments.config, arguments.overrides)
    prior = step.load_prior()
    step.settle()
    report(step, prior, arguments.rounds)


def _render_times(timer: Timer) -> list[str]:
    forward, backward = timer.median("render"), timer.median("backward")
    return [f"{forward:.1f}", f"{backward:.1f}", f"{forward + backward:.1f}"]


def _time(function: Callable[[], Any], rounds: int) -> float:
    function()
    timer = Timer()
    for _ in range(rounds):
        with timer("it"):
            function()
    return timer.median("it")


if __name__ == "__main__":
    main()

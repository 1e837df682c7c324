"""What `lmc_vs_sds.py` runs: cells, each one training with one rule, scale, prompt and seed."""

from __future__ import annotations

import hashlib
import itertools
from collections.abc import Iterator
from dataclasses import dataclass, field

RULES = ("sds", "lmc-sds", "lmc-cond")
SCALES = (1.0, 3.0, 10.0, 20.0, 50.0, 100.0)
# the last two are combinations that the prior was never shown
PROMPTS = ("a hamburger", "a pineapple", "a christmas tree", "a fox", "a blue frog", "a frog on top of a hamburger")
MORE_PROMPTS = ("a red mushroom", "a fire truck", "a snowman", "a cactus in a pot", "a guitar", "a wooden horse")
COMPARED_AT_64 = (3.0, 10.0, 50.0)
NOISE_SCALE = 10.0
FLAT = ("data.width=32", "data.height=32", "trainer.max_steps=200")


@dataclass(frozen=True)
class Cell:
    """One training. ``size`` is that of the pictures which are compared; ``extra`` are further settings.

    The cells of ``stage`` 0 are the benchmark's first part; later ones widen it.
    """

    suite: str
    config: str
    rule: str
    scale: float
    prompt: str
    seed: int
    size: int
    variant: str = ""
    extra: tuple[str, ...] = field(default=())
    stage: int = 0

    @property
    def overrides(self) -> tuple[str, ...]:
        return (
            f"system.guidance_type={self.rule}",
            f"system.guidance.guidance_scale={self.scale:g}",
            f"system.prompt_processor.prompt={self.prompt}",
            f"seed={self.seed}",
            *self.extra,
        )

    @property
    def corrected(self) -> bool:
        """Whether b_psi takes part."""
        return self.rule == "lmc-sds"

    def key(self, conditions: str) -> str:
        """The name of a training under some weights; suites that ask for the same training share it."""
        text = "/".join((self.config, conditions, *self.overrides))
        return hashlib.blake2b(text.encode(), digest_size=8).hexdigest()


def grid_3d() -> Iterator[Cell]:
    """Six prompts, SDS and LMC-SDS with two seeds, L_cond with one; then it, too, with the second."""
    for seed, prompt, scale, rule in itertools.product((0, 1), PROMPTS, SCALES, RULES):
        stage = int(seed == 1 and rule == "lmc-cond")
        yield Cell("3d", "dreamfusion-quick.yaml", rule, scale, prompt, seed, 32, stage=stage)


def grid_2d() -> Iterator[Cell]:
    """Two pictures a run, six prompts, then twelve."""
    settings = (*FLAT, "system.count=2")
    for stage, prompts in enumerate((PROMPTS, MORE_PROMPTS)):
        for prompt, scale, rule in itertools.product(prompts, SCALES, RULES):
            yield Cell("2d", "image-synthesis.yaml", rule, scale, prompt, 0, 32, extra=settings, stage=stage)


def comparison_64() -> Iterator[Cell]:
    """The demo's size: both rules at three scales, six prompts, then a second seed. The first two are a picture."""
    for seed, prompt, scale, rule in itertools.product((0, 1), PROMPTS, COMPARED_AT_64, RULES[:2]):
        yield Cell("64", "dreamfusion.yaml", rule, scale, prompt, seed, 64, stage=seed)


def noises() -> Iterator[Cell]:
    """Fixed against fresh eps. In 2D four pictures a run, in 3D two seeds, then four; fresh noise is the default."""
    kinds = (("fresh", ()), ("fixed", ("system.guidance.fixed_condition_noise=true",)))
    flat = (*FLAT, "system.count=4")
    for prompt, (kind, extra) in itertools.product(PROMPTS, kinds):
        yield Cell("noise-2d", "image-synthesis.yaml", "lmc-sds", NOISE_SCALE, prompt, 0, 32, kind, (*flat, *extra))
    for seed, prompt, (kind, extra) in itertools.product(range(4), PROMPTS[:3], kinds):
        at = ("lmc-sds", NOISE_SCALE, prompt, seed)
        yield Cell("noise-3d", "dreamfusion-quick.yaml", *at, 32, kind, extra, stage=int(seed > 1))


def translations() -> Iterator[Cell]:
    """Cats to other animals, by a network for each rule."""
    rules = (("sds", 20.0), ("lmc-sds", 20.0), ("dds", 6.5), ("pds", 6.5))
    for prompt, (rule, scale) in itertools.product(("a fox", "a dog", "a pig"), rules):
        yield Cell("translation", "translation.yaml", rule, scale, prompt, 0, 32)


SUITES = {"3d": grid_3d, "2d": grid_2d, "64": comparison_64, "noise": noises, "translation": translations}

"""The prior's own samples as training images."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from jaxtyping import Float
from torch import Tensor

from distill3d.config.ranges import check_least
from distill3d.config.registry import register
from distill3d.data.image_batch import ImageBatch, ImageBatches
from distill3d.runtime.rng import rng


@register("data", "prior-samples-datamodule")
class PriorSamplesDataModule(ImageBatches):
    """Images sampled from the prior before training, for use in place of a data set."""

    @dataclass
    class Config:
        prompts: list[str] = field(default_factory=lambda: [""])  # drawn in turn
        count: int = 256
        guidance_scale: float = 0.0  # the papers' w
        sampling_steps: int = 20
        image_size: int | None = None  # null is the prior's largest
        batch_size: int = 32

        def __post_init__(self) -> None:
            if not self.prompts:
                raise ValueError('prompts=[] is empty; give at least one, which may be ""')
            check_least(self, count=1, sampling_steps=1, batch_size=1, image_size=1)

    def __init__(self, cfg: Config, seed: int = 0) -> None:
        super().__init__(cfg, seed)
        self._samples: Tensor | None = None

    def captions(self) -> list[str]:
        """What each sample was asked for."""
        return [self.cfg.prompts[i % len(self.cfg.prompts)] for i in range(self.cfg.count)]

    def fill(self, samples: Float[Tensor, "N C h w"]) -> None:
        """Take the samples that the system drew for `captions`."""
        self._samples = samples.cpu()

    def batch(self, step: int) -> ImageBatch:
        """Random samples, and their mirror images for half."""
        assert self._samples is not None  # the system fills it before it asks
        generator = rng("data", self.seed, step)
        rows = torch.randint(0, len(self._samples), (self.cfg.batch_size,), generator=generator)
        mirrored = torch.rand(len(rows), 1, 1, 1, generator=generator) < 0.5
        images, captions = self._samples[rows], self.captions()
        return ImageBatch(torch.where(mirrored, images.flip(3), images), [captions[row] for row in rows], encoded=True)

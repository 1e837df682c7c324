"""Systems of pictures on closed-form priors: small, exact, trained in no time."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytorch_lightning as pl
import torch
from closed_form import GaussianPrior
from system_doubles import make_trainer, merged

from distill3d.config.check import build
from distill3d.config.registry import find, register
from distill3d.priors.model import PriorModel
from distill3d.types import Prompt, PromptEmbedding


@register("prior", "gaussian-for-picture-tests")
class GaussianModel(PriorModel):
    """The closed-form Gaussian prior: each text has a mean image of its own."""

    @dataclass
    class Config:
        size: int = 8
        channels: int = 3
        contrast: float = 0.2  # of the mean images

    def load(self, device: Any) -> GaussianPrior:
        shape = (self.cfg.channels, self.cfg.size, self.cfg.size)
        if self.cfg.channels != 3:
            return LatentGaussian(shape)
        waves = torch.randn(4, *shape, generator=torch.Generator().manual_seed(11))
        return GaussianPrior(shape, directions=self.cfg.contrast * waves)


class LatentGaussian(GaussianPrior):
    """Latents of half the size of the image."""

    def __init__(self, shape: tuple[int, int, int]) -> None:
        super().__init__(shape)
        self.spec = replace(self.spec, image_sizes=(2 * shape[1],), factor=2)

    def decode(self, x: torch.Tensor) -> torch.Tensor:
        return super().decode(x).repeat_interleave(2, -1).repeat_interleave(2, -2)


@register("prompt_processor", "texts-for-picture-tests")
class Texts:
    """Every text as the closed-form priors embed it."""

    @dataclass
    class Config:
        prompt: str = "a fox"
        source_prompt: str | None = None

    def __init__(self, cfg: Config) -> None:
        self.prompt = Prompt(cfg.prompt, source=cfg.source_prompt)
        self.requests: dict[str, Any] = {}

    def prepare(self, requests: Any, prior: Any, device: Any) -> None:
        self.requests = dict(requests)

    def texts(self, cameras: Any, batch: int, shading: Any = None) -> dict[str, PromptEmbedding]:
        return {role: self.embed([request.text] * batch) for role, request in self.requests.items()}

    def embed(self, texts: list[str]) -> PromptEmbedding:
        return GaussianPrior().embed(texts)


SYSTEM: dict[str, Any] = {
    "prior_type": "gaussian-for-picture-tests",
    "prompt_processor_type": "texts-for-picture-tests",
    "guidance": {},
    "optimizer": {"args": {"lr": 0.02, "eps": 1e-8}},
}


def make_system(name: str, seed: int = 0, **changes: Any) -> Any:
    cls = find("system", name)
    return cls(build(cls.Config, merged(SYSTEM, changes), "system"), seed=seed)  # type: ignore[attr-defined]


def make_data(name: str = "image-datamodule", seed: int = 0, **settings: Any) -> pl.LightningDataModule:
    cls = find("data", name)
    return cls(build(cls.Config, settings, "data"), seed=seed)  # type: ignore[attr-defined]


def fit(name: str, root: Path, steps: int, data: Any = None, resume: Path | None = None, **changes: Any) -> Any:
    """Train a system of pictures for some steps in the trial folder ``root``."""
    system = make_system(name, **changes)
    system.attach(SimpleNamespace(root=root))
    module = make_data() if data is None else data
    make_trainer(root, steps).fit(system, module, ckpt_path=resume)
    return system


def picture_file(path: Path, size: tuple[int, int] = (8, 8), seed: int = 0) -> Path:
    """A PNG of smooth random colours."""
    from PIL import Image

    coarse = torch.randint(0, 255, (4, 4, 3), generator=torch.Generator().manual_seed(seed), dtype=torch.uint8)
    Image.fromarray(coarse.numpy()).resize(size).save(path)
    return path

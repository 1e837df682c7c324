"""Samples of a trial's own prior, as the reference for saturation and sharpness; kept beside the evaluation."""

from __future__ import annotations

import hashlib
import logging
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from distill3d.evaluate.prior_report import SampleSettings, make_sampler
from distill3d.evaluate.scene import Scene

log = logging.getLogger(__name__)


class ReferenceSamples:
    """Samples by prior and prompt. The model is loaded once, when the first picture is not in the folder."""

    def __init__(self, folder: Path, count: int) -> None:
        self.folder, self.count = folder, count
        self._samplers: dict[str, Any] = {}

    def __call__(self, scene: Scene) -> Float[Tensor, "B 3 H W"] | None:
        """None if none are wanted, or the prior is not the embedded one, which alone is cheap to sample."""
        if not self.count or scene.prior != "embedded" or not scene.prompt:
            return None
        try:
            return self._known_or_drawn(scene)
        except (ValueError, OSError) as error:  # PriorError is a ValueError
            log.warning("no samples of the prior to compare with: %s", error)
            self.count = 0
            return None

    def _known_or_drawn(self, scene: Scene) -> Float[Tensor, "B 3 H W"]:
        from distill3d.prior.loader import model_identity

        identity = model_identity(scene.system.make("prior").cfg)
        key = hashlib.blake2b(f"{identity}/{scene.prompt}/{self.count}".encode(), digest_size=6).hexdigest()
        path = self.folder / f"samples-{key}.png"
        if not path.is_file():
            self.folder.mkdir(parents=True, exist_ok=True)
            write_strip(path, self._draw(scene, identity))
        return read_strip(path)

    def _draw(self, scene: Scene, identity: str) -> Float[Tensor, "B 3 H W"]:
        from distill3d.prior.loader import load_prior, load_prompt_encoder

        if identity not in self._samplers:
            cfg = scene.system.make("prior").cfg
            settings = SampleSettings(batch_size=8)
            self._samplers[identity] = make_sampler(load_prior(cfg), load_prompt_encoder(cfg), settings)
        return self._samplers[identity]([scene.prompt] * self.count).clamp(0.0, 1.0)


def write_strip(path: Path, images: Float[Tensor, "B 3 H W"]) -> None:
    """Square images side by side, as one PNG."""
    from distill3d.pictures import to_uint8, write_png

    write_png(path, torch.cat(list(to_uint8(images)), dim=-1))


def read_strip(path: Path) -> Float[Tensor, "B 3 H W"]:
    """The images of `write_strip`, in [0, 1]."""
    import numpy as np
    from PIL import Image

    strip = torch.from_numpy(np.array(Image.open(path).convert("RGB"))).permute(2, 0, 1).float() / 255.0
    return torch.stack(strip.split(strip.shape[1], dim=2))

"""Samples of a trial's own prior, as the reference for saturation and sharpness: drawn once on a machine, then kept."""

from __future__ import annotations

import hashlib
import logging
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from distill3d.embedded.prior_report import SampleSettings, make_sampler
from distill3d.evaluation.loaded_trial import LoadedTrial, cameras_around
from distill3d.priors.embedding_cache import default_cache_dir
from distill3d.runtime.pictures import read_rgb, to_uint8, write_png

log = logging.getLogger(__name__)

# fewer steps are no cheaper reference but another one: 12 lose up to 8 % of the saturation, and the detail of a red car
SETTINGS = SampleSettings(batch_size=8)
SIZE = 64  # of the cameras' images; the light field asks for directions alone


class ReferenceSamples:
    """Samples by the prior's weights and the prompt, in a folder that all evaluations share.

    Where the scene is seen from all sides the prior is told cameras around it, as in training: a sample that is told
    none shows several sides in one. Views are spread evenly, from the front on.
    The model is loaded once, when the first picture is not there. A folder that cannot be written costs one warning.
    """

    def __init__(self, count: int, folder: Path | None = None) -> None:
        self.count = count
        self.folder = default_folder() if folder is None else folder
        self._models: dict[tuple[str, str], tuple[Any, Any]] = {}
        self._writable = True

    def __call__(self, scene: LoadedTrial) -> Float[Tensor, "B 3 H W"] | None:
        """None if none are wanted, or the prior is not the embedded one, which alone is cheap to sample."""
        identity = self.identity(scene)
        try:
            return None if identity is None else self._known_or_drawn(scene, identity)
        except (ValueError, OSError) as error:  # PriorError is a ValueError
            return self._give_up(error)

    def identity(self, scene: LoadedTrial) -> str | None:
        """The hash of the weights that are sampled for a scene; None where none are."""
        from distill3d.priors.loader import model_identity

        if not self.count or scene.prior != "embedded" or not scene.prompt:
            return None
        try:
            return model_identity(scene.system.make("prior").cfg)
        except (ValueError, OSError) as error:
            return self._give_up(error)

    def _give_up(self, error: Exception) -> None:
        log.warning("skipping the comparison with samples of the prior: %s", error)
        self.count = 0

    def _known_or_drawn(self, scene: LoadedTrial, identity: str) -> Float[Tensor, "B 3 H W"]:
        told = scene.can_turn and scene.system.make("prior").cfg.camera_conditioning
        content = f"{identity}/{scene.prompt}/{self.count}/{SETTINGS}/{told}"
        path = self.folder / f"{hashlib.blake2b(content.encode(), digest_size=10).hexdigest()}.png"
        if path.is_file():
            return read_strip(path)
        images = self._draw(scene, identity)
        self._keep(path, images)
        return to_uint8(images).float() / 255.0  # as they are read the next time

    def _draw(self, scene: LoadedTrial, identity: str) -> Float[Tensor, "B 3 H W"]:
        """With noise that depends on the place in the batch alone, not on what was drawn before."""
        from distill3d.priors.loader import load_prior, load_prompt_encoder

        cfg = scene.system.make("prior").cfg
        key = (identity, cfg.camera_conditioning)
        if key not in self._models:
            self._models[key] = (load_prior(cfg), load_prompt_encoder(cfg))
        cameras = cameras_around(scene, self.count, SIZE) if scene.can_turn else None
        return make_sampler(*self._models[key], SETTINGS)([scene.prompt] * self.count, cameras).clamp(0.0, 1.0)

    def _keep(self, path: Path, images: Tensor) -> None:
        try:
            if self._writable:
                path.parent.mkdir(parents=True, exist_ok=True)
                write_strip(path, images)
        except OSError as error:
            self._writable = False
            reason = error.strerror or error
            log.warning("samples of the prior cannot be kept in %s (%s); set DISTILL3D_CACHE", self.folder, reason)


def default_folder() -> Path:
    """Beside the cache of prompt embeddings."""
    return default_cache_dir().with_name("samples")


def write_strip(path: Path, images: Float[Tensor, "B 3 H W"]) -> None:
    """Square images side by side, as one PNG."""
    write_png(path, torch.cat(list(to_uint8(images)), dim=-1))


def read_strip(path: Path) -> Float[Tensor, "B 3 H W"]:
    """The images of `write_strip`, in [0, 1]."""
    strip = read_rgb(path).float() / 255.0
    return torch.stack(strip.split(strip.shape[1], dim=2))

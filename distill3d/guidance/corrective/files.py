"""Where a corrective comes from: a file, the prior's folder, or a fit that is cached on disk."""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Protocol

import torch
from jaxtyping import Float, Int
from torch import Tensor

from distill3d.config.files import EMBEDDED_WEIGHTS
from distill3d.guidance.corrective.network import CorrectiveNetwork
from distill3d.guidance.corrective.spectral import SpectralCorrective, fit_spectral
from distill3d.priors.base import DiffusionPrior
from distill3d.priors.embedding_cache import default_cache_dir
from distill3d.priors.sampling import ddim_sample
from distill3d.runtime.foreign import reading
from distill3d.runtime.rng import rng
from distill3d.runtime.tensor_file import read_tensors, write_tensors
from distill3d.types import PromptEmbedding

log = logging.getLogger(__name__)
SHIPPED_DIR = EMBEDDED_WEIGHTS
FIT_SAMPLES = 64
FIT_SAMPLING_STEPS = 20


class Corrective(Protocol):
    """b(x, t); a frozen module."""

    def __call__(
        self,
        x: Float[Tensor, "B C h w"],
        t: Int[Tensor, "B"],
        alpha: Float[Tensor, "B 1 1 1"],
        sigma: Float[Tensor, "B 1 1 1"],
    ) -> Float[Tensor, "B C h w"]: ...


class WrongPriorError(ValueError):
    """A corrective that was made for another diffusion model."""


def save_corrective(
    corrective: CorrectiveNetwork | SpectralCorrective, path: Path, prior_identity: str, image_size: int
) -> None:
    """Write a safetensors file that names the prior it belongs to; atomic."""
    learned = isinstance(corrective, CorrectiveNetwork)
    settings = json.dumps(corrective.settings() if learned else {})
    owner = {"prior_identity": prior_identity, "image_size": str(image_size)}
    kind = "network" if learned else "spectral"
    write_tensors(path, corrective.state_dict(), {"kind": kind, "settings": settings, **owner})


def read_corrective(path: Path, prior_identity: str) -> CorrectiveNetwork | SpectralCorrective:
    """The corrective in a file. Raises FileNotFoundError, ValueError (not a corrective) or WrongPriorError."""
    remedy = "give a file, or auto, spectral or none"
    tensors, metadata = read_tensors(path, f"corrective={str(path)!r}", remedy)
    if metadata.get("kind") not in ("network", "spectral"):
        raise ValueError(f"corrective={str(path)!r} is not a corrective; train one with configs/lmc/corrective.yaml")
    if metadata.get("prior_identity") != prior_identity:
        raise WrongPriorError(
            f"corrective={str(path)!r} belongs to the prior {metadata.get('prior_identity')}, and this run's prior is "
            f"{prior_identity}; train one for it with configs/lmc/corrective.yaml, or set corrective=spectral"
        )
    with reading(path, "a corrective", remedy, "corrective"):
        if metadata["kind"] == "spectral":
            return SpectralCorrective(tensors["gains"], tensors["times"])
        with torch.device("meta"):  # nothing to initialise, so no random numbers are taken
            network = CorrectiveNetwork(**json.loads(metadata["settings"]))
        network.load_state_dict(tensors, assign=True)
        return network


def load_corrective(
    corrective: str, prior: DiffusionPrior, empty_text: PromptEmbedding, image_size: int, cache_dir: str | None = None
) -> Corrective:
    """b_psi by its setting, frozen and on the prior's device; what ``auto`` chose is logged.

    corrective: ``auto``, ``spectral``, ``none``, a file, or a folder with one for each size.
    empty_text: one row of the empty prompt's embedding.
    image_size: the native size of the rendered images in pixels. cache_dir: of spectral fits; null is the user's cache.
    """
    if corrective == "none":
        return lambda x, t, alpha, sigma: x
    made = None
    if corrective == "auto":
        made = _shipped(prior, image_size)
    elif corrective != "spectral":
        made = read_corrective(file_for(Path(corrective), image_size), prior.identity)
    if made is None:
        folder = default_cache_dir().parent / "correctives" if cache_dir is None else Path(cache_dir)
        made = spectral_corrective(prior, empty_text, image_size, folder)
    return made.to(prior.device).eval().requires_grad_(False)


def file_for(path: Path, image_size: int) -> Path:
    """The file itself, or the one in a folder that the corrective-system wrote for this size."""
    return path / f"corrective-{image_size}.safetensors" if path.is_dir() else path


def spectral_corrective(
    prior: DiffusionPrior, empty_text: PromptEmbedding, image_size: int, cache_dir: Path
) -> SpectralCorrective:
    """The spectral fit to the prior's own samples, from the cache or made now."""
    path = cache_dir / f"spectral-{prior.identity[:40]}-{image_size}.safetensors"
    if path.is_file():
        cached = read_corrective(path, prior.identity)
        if isinstance(cached, SpectralCorrective):
            return cached
    log.info("corrective: fitting a spectral one to %d samples of the prior, cached in %s", FIT_SAMPLES, path)
    generator = rng("noise", 0)
    images = ddim_sample(prior, empty_text[[0] * FIT_SAMPLES], generator, image_size, steps=FIT_SAMPLING_STEPS)
    fitted = fit_spectral(prior, images, empty_text, generator)
    save_corrective(fitted, path, prior.identity, image_size)
    return fitted


def _shipped(prior: DiffusionPrior, image_size: int) -> CorrectiveNetwork | SpectralCorrective | None:
    """The corrective beside the embedded prior, if this is that prior and there is one for the size."""
    path = file_for(SHIPPED_DIR, image_size)
    try:
        made = read_corrective(path, prior.identity)
    except (FileNotFoundError, WrongPriorError):
        log.info("corrective: auto found none for this prior at %d pixels and selects the spectral one", image_size)
        return None
    log.info("corrective: auto selects %s, trained for this prior", path.name)
    return made

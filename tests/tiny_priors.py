"""Priors and texts of tiny model folders."""

from __future__ import annotations

import torch
from tiny_pipelines import TinyFolders

from distill3d.priors.base import DiffusionPrior
from distill3d.priors.loader import load_prior, load_prompt_encoder
from distill3d.types import PromptEmbedding

FLOWS = ["sd3", "flux", "z-image"]
TEXTS = ["a small red cat", ""]


def load(folders: TinyFolders, kind: str, **settings: object) -> DiffusionPrior:
    return load_prior(folders.config(kind, **settings), "cpu")


def embed(folders: TinyFolders, kind: str, texts: list[str] = TEXTS) -> PromptEmbedding:
    return load_prompt_encoder(folders.config(kind), "cpu")(texts)


def noisy(prior: DiffusionPrior, rows: int = 2, seed: int = 0) -> torch.Tensor:
    size = prior.spec.image_sizes[0]
    generator = torch.Generator().manual_seed(seed)
    shape = prior.encode(torch.zeros(1, 3, size, size)).shape[1:]
    return torch.randn(rows, *shape, generator=generator)

"""Randomness by name: every draw is a function of (stream, seed, step, rank) and of nothing else."""

from __future__ import annotations

import hashlib
from typing import Literal

import torch

Stream = Literal["camera", "light", "ray", "noise", "time", "shading", "background", "occupancy", "data", "scene"]


def rng(stream: Stream, seed: int, step: int = 0, rank: int = 0, device: torch.device | str = "cpu") -> torch.Generator:
    """A fresh generator, seeded by a hash of all four, so that a resumed run draws what an uninterrupted one draws."""
    digest = hashlib.blake2b(f"{stream}/{seed}/{step}/{rank}".encode(), digest_size=8).digest()
    return torch.Generator(device=device).manual_seed(int.from_bytes(digest, "little") >> 1)

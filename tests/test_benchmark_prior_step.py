"""The benchmark of a step under a latent model: its shapes are Stable Diffusion 2.1's, counted on ``meta``."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

FILE = Path(__file__).parents[1] / "benchmarks" / "prior_step.py"


@pytest.fixture(scope="module")
def bench() -> Any:
    spec = importlib.util.spec_from_file_location("prior_step", FILE)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses look there
    spec.loader.exec_module(module)
    return module


def test_the_needed_operations_are_those_of_stable_diffusion_at_512(bench: Any) -> None:
    from diffusers import AutoencoderKL, UNet2DConditionModel

    with torch.device("meta"):
        unet = UNet2DConditionModel(**bench.UNET).requires_grad_(False)
        vae = AutoencoderKL(**bench.VAE).requires_grad_(False)
        assert sum(p.numel() for p in unet.parameters()) == 865_910_724  # as published
        image, z = torch.zeros(1, 3, 512, 512, requires_grad=True), torch.zeros(2, 4, 64, 64)
        with FlopCounterMode(display=False) as network, torch.no_grad():
            unet(z, torch.zeros(2, dtype=torch.long), torch.zeros(2, 77, 1024))
        with FlopCounterMode(display=False) as encode:
            mean = vae.encode(image).latent_dist.mean
        with FlopCounterMode(display=False) as backward:
            mean.sum().backward()
    counted = [each.get_total_flops() / 1e12 for each in (encode, network, backward)]
    assert list(bench.NEEDED.values()) == pytest.approx([*counted, sum(counted)], abs=1e-3)

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


def counted(unet: Any, vae: Any, side: int, context: int, **told: Any) -> list[float]:
    """TFLOP of encode, of two passes of the network, of backward through the encoder, and their sum."""
    latents = side // 8
    image, z = torch.zeros(1, 3, side, side, requires_grad=True), torch.zeros(2, 4, latents, latents)
    with FlopCounterMode(display=False) as network, torch.no_grad():
        unet(z, torch.zeros(2, dtype=torch.long), torch.zeros(2, 77, context), **told)
    with FlopCounterMode(display=False) as encode:
        mean = vae.encode(image).latent_dist.mean
    with FlopCounterMode(display=False) as backward:
        mean.sum().backward()
    each = [counter.get_total_flops() / 1e12 for counter in (encode, network, backward)]
    return [*each, sum(each)]


def test_the_needed_operations_are_those_of_stable_diffusion_at_512(bench: Any) -> None:
    from diffusers import AutoencoderKL, UNet2DConditionModel

    with torch.device("meta"):
        unet = UNet2DConditionModel(**bench.UNET).requires_grad_(False)
        vae = AutoencoderKL(**bench.VAE).requires_grad_(False)
        assert sum(p.numel() for p in unet.parameters()) == 865_910_724  # as published
        assert list(bench.NEEDED.values()) == pytest.approx(counted(unet, vae, 512, 1024), abs=1e-3)


@pytest.mark.slow  # pytest -m slow tests/test_benchmark_prior_step.py
def test_the_needed_operations_are_those_of_sdxl_at_1024(bench: Any) -> None:
    from diffusers import AutoencoderKL, UNet2DConditionModel

    with torch.device("meta"):
        unet = UNet2DConditionModel(**bench.SDXL_UNET).requires_grad_(False)
        vae = AutoencoderKL(**bench.SDXL_VAE).requires_grad_(False)
        assert sum(p.numel() for p in unet.parameters()) == 2_567_463_684  # as published
        told = {"text_embeds": torch.zeros(2, 1280), "time_ids": torch.zeros(2, 6)}
        operations = counted(unet, vae, 1024, 2048, added_cond_kwargs=told)
    assert list(bench.NEEDED_XL.values()) == pytest.approx(operations, abs=1e-3)

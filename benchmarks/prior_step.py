"""What a guidance step costs under a latent diffusion model: python benchmarks/prior_step.py [--size base] [--compile].

The model has the shapes of Stable Diffusion 2.1-base and random weights, so nothing is downloaded. ``--size small``
has a fifth of its channels and a quarter of its image size, for a CPU; ``base`` is the default on a GPU, ``sdxl`` has
the shapes of SDXL. The table
splits an SDS step into encode, network (the conditional and the unconditional pass in one batch) and backward through
the encoder, with the floating-point operations that torch counts and those that are needed. Below it: the whole
text-to-3D step with the scene of dreamfusion-sd.yaml, and the same modules called bare (bf16 on a GPU, channels_last,
compiled with --compile).
Nothing else may run meanwhile.
"""

# ruff: noqa: T201  a benchmark prints

from __future__ import annotations

import argparse
import statistics
import sys
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import torch
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from distill3d.config.experiment import build, load
from distill3d.config.registry import find
from distill3d.data.random_cameras import RandomCameraDataModule, training_batch
from distill3d.guidance.base import distillation_loss
from distill3d.optim import make_optimizer
from distill3d.priors.kinds import kind_of
from distill3d.priors.latent import LatentPrior, SdxlPrior
from distill3d.priors.model_folder import ModelFolder
from distill3d.priors.settings import PriorConfig
from distill3d.types import Pass, PromptEmbedding

UNET: dict[str, Any] = {
    "sample_size": 64,
    "attention_head_dim": (5, 10, 20, 20),
    "cross_attention_dim": 1024,
    "use_linear_projection": True,
}
VAE: dict[str, Any] = {
    "block_out_channels": (128, 256, 512, 512),
    "down_block_types": ("DownEncoderBlock2D",) * 4,
    "up_block_types": ("UpDecoderBlock2D",) * 4,
    "layers_per_block": 2,
    "latent_channels": 4,
    "sample_size": 512,
}
# TFLOP of a step at batch 1 that nothing of these shapes can do without (tests/test_benchmark_prior_step.py)
NEEDED = {"encode": 1.117, "network, two passes": 1.609, "backward through the encoder": 1.151, "guidance step": 3.876}
NEEDED_XL = {
    "encode": 4.879,
    "network, two passes": 13.522,
    "backward through the encoder": 5.429,
    "guidance step": 23.830,
}
SDXL_UNET: dict[str, Any] = {
    "sample_size": 128,
    "block_out_channels": (320, 640, 1280),
    "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
    "up_block_types": ("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
    "transformer_layers_per_block": (1, 2, 10),
    "attention_head_dim": (5, 10, 20),
    "cross_attention_dim": 2048,
    "use_linear_projection": True,
    "addition_embed_type": "text_time",
    "addition_time_embed_dim": 256,
    "projection_class_embeddings_input_dim": 2816,
}
SDXL_VAE = VAE | {"sample_size": 1024}
SMALL_UNET = UNET | {"sample_size": 16, "block_out_channels": (64, 128, 256, 256), "attention_head_dim": (1, 2, 4, 4)}
SMALL_VAE = VAE | {"block_out_channels": (32, 64, 128, 128), "sample_size": 128}
TINY_VAE = SMALL_VAE | {"block_out_channels": (32, 32, 32, 32), "layers_per_block": 1}
TINY_UNET = SMALL_UNET | {"block_out_channels": (32, 32, 64, 64), "layers_per_block": 1, "sample_size": 8}
TINY_SDXL_UNET = SDXL_UNET | {
    "sample_size": 8,
    "block_out_channels": (32, 32, 64),
    "transformer_layers_per_block": (1, 1, 1),
    "attention_head_dim": (1, 1, 2),
    "layers_per_block": 1,
}
# U-Net, VAE, and the operations that nothing of these shapes can do without, where they were counted
SHAPES: dict[str, tuple[dict[str, Any], dict[str, Any], dict[str, float]]] = {
    "base": (UNET, VAE, NEEDED),
    "sdxl": (SDXL_UNET, SDXL_VAE, NEEDED_XL),
    "small": (SMALL_UNET, SMALL_VAE, {}),
    "tiny": (TINY_UNET, TINY_VAE, {}),
    "tiny-sdxl": (TINY_SDXL_UNET, TINY_VAE, {}),
}


@dataclass(frozen=True)
class RandomModel(ModelFolder):
    """A folder that is not on disk: its networks are made when they are asked for."""

    unet: dict[str, Any] | None = None
    vae: dict[str, Any] | None = None

    def config(self, component: str) -> dict[str, Any]:
        return {}

    def load_module(self, component: str, dtype: torch.dtype, device: torch.device, bits: Any = None) -> Any:
        from diffusers import AutoencoderKL, UNet2DConditionModel
        from diffusers.utils import logging

        logging.set_verbosity_error()
        with device:
            made = UNet2DConditionModel(**self.unet) if component == "unet" else AutoencoderKL(**self.vae)  # type: ignore[arg-type]
        return made.eval().requires_grad_(False).to(dtype)

    def load_plain(self, component: str) -> Any:
        from diffusers import DDIMScheduler

        return DDIMScheduler(beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear")


def random_prior(size: str, cfg: PriorConfig, device: torch.device) -> LatentPrior:
    """The real prior on random weights of these `SHAPES`, which have no identity."""
    unet, vae, _ = SHAPES[size]
    cls, pipeline = (
        (SdxlPrior, "StableDiffusionXLPipeline") if "sdxl" in size else (LatentPrior, "StableDiffusionPipeline")
    )
    kind = kind_of(pipeline)
    assert kind is not None
    return cls(RandomModel("random", Path("random"), kind, {}, None, None, unet, vae), cfg, device)


def random_text(prior: LatentPrior, device: torch.device, rows: int = 1) -> PromptEmbedding:
    """An embedding of the width that the network reads, with pooled text where it reads that."""
    config, pooled = prior.network.config, None
    if config.get("addition_embed_type") == "text_time":
        width = config.projection_class_embeddings_input_dim - 6 * config.addition_time_embed_dim
        pooled = torch.randn(rows, width, device=device)
    return PromptEmbedding(torch.randn(rows, 77, config.cross_attention_dim, device=device), pooled=pooled)


@dataclass(frozen=True)
class Cost:
    milliseconds: float
    flops: float
    peak_bytes: int


def measure(run: Callable[[], Any], device: torch.device, rounds: int) -> Cost:
    """The median of some rounds after some to warm up; peak memory and FLOPs are of one more each."""
    times, warm_up = [], 3 if device.type == "cuda" else 1
    for _ in range(rounds + warm_up):
        synchronise(device)
        start = time.perf_counter()
        run()
        synchronise(device)
        times.append(1000.0 * (time.perf_counter() - start))
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats()
        run()
    peak = torch.cuda.max_memory_allocated() if device.type == "cuda" else 0
    with FlopCounterMode(display=False) as counter:  # under it a compiled network runs uncompiled
        run()
    return Cost(statistics.median(times[warm_up:]), counter.get_total_flops(), peak)


def synchronise(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize()


def peak_flops(device: torch.device, dtype: torch.dtype) -> float:
    """What a large matrix product reaches, in operations a second."""
    side = 8192 if device.type == "cuda" else 1024
    a = torch.randn(side, side, device=device, dtype=dtype)
    return 2.0 * side**3 / (measure(lambda: a @ a, device, 10).milliseconds / 1000.0)


def guidance_step(prior: LatentPrior, device: torch.device, rounds: int) -> dict[str, Cost]:
    """The stages of a step, and the whole. ``encode`` keeps what backward needs, as it does in training."""
    rgb = torch.rand(1, 3, 64, 64, device=device, requires_grad=True)
    text, other, t = random_text(prior, device), random_text(prior, device), torch.tensor([500], device=device)
    x = prior.encode(rgb)
    z = torch.randn_like(x)
    passes = [Pass(z, t, text), Pass(z, t, other)]

    def backward() -> None:
        distillation_loss(x, z).backward(retain_graph=True)

    def whole() -> None:
        rendered = prior.encode(rgb)
        positive, negative = prior.predict(passes)
        distillation_loss(rendered, positive.noise - negative.noise).backward()

    stages = {
        "encode": lambda: prior.encode(rgb),
        "network, two passes": lambda: prior.predict(passes),
        "backward through the encoder": backward,
        "guidance step": whole,
    }
    return {name: measure(run, device, rounds) for name, run in stages.items()}


def modules_alone(prior: LatentPrior, device: torch.device, rounds: int, compiled: bool) -> float:
    """Milliseconds of encoder, its input gradient and the network, called bare: the least that a step can cost."""
    dtype = prior.dtype if device.type != "cuda" else torch.bfloat16
    unet, vae = prior.network.to(dtype), prior.codec.vae.to(dtype)
    encoder = torch.compile(vae.encoder) if compiled else vae.encoder
    network = torch.compile(unet) if compiled else unet
    size, side = prior.spec.image_sizes[0], prior.network.config.sample_size
    image = torch.rand(1, 3, size, size, device=device, dtype=dtype).to(memory_format=torch.channels_last)
    image.requires_grad_()
    z = torch.randn(2, 4, side, side, device=device, dtype=dtype).to(memory_format=torch.channels_last)
    text = random_text(prior, device, 2).to(dtype=dtype)
    told = None if text.pooled is None else {"text_embeds": text.pooled, "time_ids": z.new_zeros(2, 6)}

    def run() -> None:
        moments: Tensor = encoder(image)
        with torch.no_grad():
            network(z, 500, text.tokens, added_cond_kwargs=told)
        moments.sum().backward()

    return measure(run, device, rounds).milliseconds


Watch = Callable[[str], Any]  # a context around a stage
INSIDE = ("encode", "network", "backward through the encoder")  # what the model costs, whatever is around it


class WholeStep:
    """A text-to-3D step with the scene of dreamfusion-sd.yaml: render, guidance, backward, optimiser."""

    def __init__(
        self, prior: LatentPrior, device: torch.device, samples: int, batch: int = 1, scene: tuple[str, ...] = ()
    ) -> None:
        """``scene``: settings of a smaller one."""
        overrides = [f"system.renderer.num_samples_per_ray={samples}", f"data.batch_size={batch}", *scene]
        experiment = load("dreamfusion-sd.yaml", overrides).experiment
        made = [find(kind, getattr(experiment, f"{kind}_type")) for kind in ("system", "data")]
        self.system, self.data = (
            cls(build(cls.Config, getattr(experiment, kind), kind), seed=0)  # type: ignore[attr-defined]
            for cls, kind in zip(made, ("system", "data"), strict=True)
        )
        assert isinstance(self.data, RandomCameraDataModule)
        self.system.to(device)
        parts = torch.nn.ModuleDict(self.system.trained_parts())
        self.optimizer = make_optimizer(parts, self.system.cfg.optimizer)
        self.prior, self.device, self.number = prior, device, 0
        self.texts = [random_text(prior, device, batch) for _ in range(2)]
        self.t = torch.full((batch,), 500, device=device)

    def __call__(self, watch: Watch = lambda _: nullcontext()) -> None:
        with watch("render"):
            batch = training_batch(self.data.cfg, self.data.views, 0, self.number).to(self.device)
            self.system.renderer.update_step(self.number, 0)
            rgb = self.system.renderer(batch.cameras, batch.light, "albedo", self.number, 0).rgb
        with watch("encode"):
            seen = rgb.detach().requires_grad_()
            x = self.prior.encode(seen)
        with watch("network"):
            z = torch.randn_like(x)
            positive, negative = self.prior.predict([Pass(z, self.t, text) for text in self.texts])
        with watch("backward through the encoder"):
            (grad,) = torch.autograd.grad(distillation_loss(x, positive.noise - negative.noise), seen)
        with watch("backward through the scene"):
            rgb.backward(grad)
        with watch("optimizer"):
            self.optimizer.step()
            self.optimizer.zero_grad()
        self.number += 1


def split_step(step: WholeStep, rounds: int) -> dict[str, float]:
    """Milliseconds of each stage, the device waited for around it: medians of some rounds after some to warm up."""
    warm_up = 3 if step.device.type == "cuda" else 1
    times: dict[str, list[float]] = defaultdict(list)

    @contextmanager
    def watch(stage: str) -> Iterator[None]:
        synchronise(step.device)
        start = time.perf_counter()
        yield
        synchronise(step.device)
        times[stage].append(1000.0 * (time.perf_counter() - start))

    for _ in range(rounds + warm_up):
        step(watch)
    return {stage: statistics.median(values[warm_up:]) for stage, values in times.items()}


def whole_step(prior: LatentPrior, device: torch.device, rounds: int, samples: int) -> float:
    """Milliseconds of a text-to-3D step."""
    return measure(WholeStep(prior, device, samples), device, rounds).milliseconds


def print_costs(costs: dict[str, Cost], peak: float, needed: dict[str, float]) -> None:
    """A row for each stage; ``needed`` is in TFLOP, and more is counted where a checkpoint computes twice."""
    print(f"{'stage':30}{'ms':>10}{'GFLOP':>10}{'needed':>10}{'of peak':>10}{'peak GB':>10}")
    for stage, cost in costs.items():
        share = cost.flops / (cost.milliseconds / 1000.0) / peak
        least = f"{1000.0 * needed[stage]:.0f}" if needed else "-"
        memory = f"{cost.peak_bytes / 1e9:.2f}" if cost.peak_bytes else "-"
        print(f"{stage:30}{cost.milliseconds:10.1f}{cost.flops / 1e9:10.1f}{least:>10}{share:10.0%}{memory:>10}")


def main() -> None:
    cuda = torch.cuda.is_available()
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", choices=tuple(SHAPES), default="base" if cuda else "small")
    parser.add_argument("--rounds", type=int, default=20 if cuda else 3)
    parser.add_argument("--precision", default="auto")
    parser.add_argument("--compile", action="store_true", help="torch.compile the network, and the modules alone")
    parser.add_argument("--vae-checkpointing", action="store_true")
    args = parser.parse_args()
    device = torch.device("cuda" if cuda else "cpu")
    torch.manual_seed(0)
    cfg = PriorConfig(precision=args.precision, compile=args.compile, vae_checkpointing=args.vae_checkpointing)
    prior = random_prior(args.size, cfg, device)
    peak = peak_flops(device, prior.dtype)
    name = torch.cuda.get_device_name() if cuda else f"CPU, {torch.get_num_threads()} threads"
    print(
        f"{name}; network {prior.dtype}, VAE {prior.codec.dtype}; a matrix product reaches {peak / 1e12:.2f} TFLOP/s\n"
    )
    print_costs(costs := guidance_step(prior, device, args.rounds), peak, SHAPES[args.size][2])
    milliseconds = whole_step(prior, device, args.rounds, samples=512 if args.size in ("base", "sdxl") else 96)
    print(f"\ntext-to-3D step: {milliseconds:.1f} ms, {1000.0 / milliseconds:.2f} it/s")
    alone = modules_alone(prior, device, args.rounds, args.compile)
    ratio = costs["guidance step"].milliseconds / alone
    print(f"modules alone: {alone:.1f} ms; the guidance step takes {ratio:.2f} x that")


if __name__ == "__main__":
    main()

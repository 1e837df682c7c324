"""Training the embedded prior: v-prediction on captioned mesh views, text encoder and network together."""

from __future__ import annotations

import copy
import dataclasses
import logging
import random
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
from jaxtyping import Float
from torch import Tensor

from distill3d.data.mesh_views import ViewBatch
from distill3d.registry import register
from distill3d.rng import rng
from distill3d.schedule import Scheduled, check_schedule, scheduled

log = logging.getLogger(__name__)


def v_target(x: Tensor, eps: Tensor, alpha: Tensor, sigma: Tensor) -> Tensor:
    """``v = alpha eps - sigma x`` (arXiv 2202.00512)."""
    return alpha * eps - sigma * x


def min_snr_weight(alpha: Tensor, sigma: Tensor, gamma: float = 5.0) -> Tensor:
    """``min(SNR, gamma) / (SNR + 1)``: min-SNR weighting (arXiv 2303.09556) of a loss on v."""
    snr = (alpha / sigma.clamp_min(1e-8)) ** 2
    return snr.clamp_max(gamma) / (snr + 1.0)


@register("system", "embedded-prior-system")
class EmbeddedPriorSystem(pl.LightningModule):
    """Trains the small text-to-image diffusion model that ships with the program."""

    @dataclass
    class Config:
        network: dict[str, Any] = field(default_factory=dict)  # arguments of PixelUNet2DConditionModel
        text_width: int = 256
        text_layers: int = 4
        learning_rate: Scheduled = 5e-4
        weight_decay: float = 0.01
        ema_decay: float = 0.9995
        caption_dropout: float = 0.12
        gradient_clip: float = 1.0
        save_every: int = 500
        initial_folder: str | None = None  # start from the weights of a prior's folder

        def __post_init__(self) -> None:
            check_schedule(self.learning_rate, "system.learning_rate")
            if not 0.0 <= self.caption_dropout < 1.0:
                raise ValueError(f"caption_dropout={self.caption_dropout} must lie in [0, 1)")

    def __init__(self, cfg: Config, seed: int = 0):
        super().__init__()
        self.cfg, self.seed = cfg, seed
        self.out_dir: Path | None = None

    def attach(self, trial: Any) -> None:
        """Where sample grids and the prior's folder are written."""
        self.out_dir = Path(trial.save_dir)

    def build(self, nouns: list[str], tokenizer_dir: Path) -> None:
        """Make tokenizer, networks and their averages; called with the datamodule's nouns before training."""
        from distill3d.prior.embedded.folder import make_scheduler
        from distill3d.prior.embedded.network import PixelUNet2DConditionModel
        from distill3d.prior.embedded.text import make_text_encoder, make_tokenizer

        torch.manual_seed(rng("data", self.seed).initial_seed())
        self.nouns = nouns
        self.tokenizer = make_tokenizer(nouns, tokenizer_dir)
        self.scheduler = make_scheduler()
        self.unet = PixelUNet2DConditionModel(**self.cfg.network).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.text_encoder = make_text_encoder(self.tokenizer, self.cfg.text_width, self.cfg.text_layers)
        if self.cfg.initial_folder:
            self._load_initial(Path(self.cfg.initial_folder))
        self.ema_unet = copy.deepcopy(self.unet).requires_grad_(False).eval()
        self.ema_text_encoder = copy.deepcopy(self.text_encoder).requires_grad_(False).eval()
        self.register_buffer("alphas_cumprod", self.scheduler.alphas_cumprod.float(), persistent=False)

    def _load_initial(self, folder: Path) -> None:
        from transformers import CLIPTextModel

        from distill3d.prior.embedded.network import PixelUNet2DConditionModel

        unet = PixelUNet2DConditionModel.from_pretrained(folder / "unet", torch_dtype=torch.float32)
        text_encoder = CLIPTextModel.from_pretrained(folder / "text_encoder", dtype=torch.float32)
        self.unet.load_state_dict(unet.state_dict())
        self.text_encoder.load_state_dict(text_encoder.state_dict())

    def transfer_batch_to_device(self, batch: ViewBatch, device: torch.device, dataloader_idx: int) -> ViewBatch:
        return dataclasses.replace(batch, images=batch.images.to(device))

    def training_step(self, batch: ViewBatch, _: int) -> Tensor:
        x = batch.images.contiguous(memory_format=torch.channels_last)
        generator = rng("noise", self.seed, self.global_step, device=x.device)
        t = torch.randint(0, len(self.alphas_cumprod), (len(x),), generator=generator, device=x.device)
        eps = torch.randn(x.shape, generator=generator, device=x.device)
        alpha, sigma = self._alpha_sigma(t)
        state, pooled = self._encode(self._dropped(batch.captions))
        v = self.unet(alpha * x + sigma * eps, t, state, {"text_embeds": pooled}).sample.float()
        error = (v - v_target(x, eps, alpha, sigma)).square().mean(dim=(1, 2, 3))
        loss = (error * min_snr_weight(alpha, sigma).flatten()).mean()
        self.log("loss", loss, prog_bar=True)
        return loss

    def _alpha_sigma(self, t: Tensor) -> tuple[Tensor, Tensor]:
        abar = self.alphas_cumprod[t][:, None, None, None]
        return abar.sqrt(), (1.0 - abar).sqrt()

    def _encode(self, captions: list[str]) -> tuple[Float[Tensor, "B N C"], Float[Tensor, "B C"]]:
        ids = self.tokenizer(
            captions,
            padding="max_length",
            truncation=True,
            max_length=self.tokenizer.model_max_length,
            return_tensors="pt",
        ).input_ids.to(self.device)
        out = self.text_encoder(ids)
        return out.last_hidden_state, out.pooler_output

    def _dropped(self, captions: list[str]) -> list[str]:
        draw = random.Random(f"dropout/{self.seed}/{self.global_step}")
        return ["" if draw.random() < self.cfg.caption_dropout else caption for caption in captions]

    def configure_optimizers(self) -> torch.optim.Optimizer:
        parameters = [*self.unet.parameters(), *self.text_encoder.parameters()]
        return torch.optim.AdamW(parameters, lr=1.0, betas=(0.9, 0.99), weight_decay=self.cfg.weight_decay, fused=True)

    def on_before_optimizer_step(self, optimizer: torch.optim.Optimizer) -> None:
        for group in optimizer.param_groups:
            group["lr"] = scheduled(self.cfg.learning_rate, self.global_step)
        parameters = [p for group in optimizer.param_groups for p in group["params"]]
        norm = torch.nn.utils.clip_grad_norm_(parameters, self.cfg.gradient_clip)
        self.log("gradient_norm", norm, prog_bar=True)

    def on_train_batch_end(self, *_: Any) -> None:
        decay = min(self.cfg.ema_decay, (1.0 + self.global_step) / (10.0 + self.global_step))
        for average, model in ((self.ema_unet, self.unet), (self.ema_text_encoder, self.text_encoder)):
            torch._foreach_lerp_(list(average.parameters()), list(model.parameters()), 1.0 - decay)
        if self.out_dir is not None and self.global_step % self.cfg.save_every == 0:
            self.save(self.out_dir / "prior")

    def save(self, folder: Path) -> None:
        """The averaged weights as a diffusers folder."""
        from distill3d.prior.embedded.folder import save_folder

        save_folder(folder, self.ema_unet, self.ema_text_encoder, self.tokenizer, self.scheduler, self.nouns)
        log.info("step %d: the prior's folder is %s", self.global_step, folder)

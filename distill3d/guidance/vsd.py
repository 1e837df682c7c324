"""VSD, variational score distillation (ProlificDreamer)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import torch
from jaxtyping import Float
from torch import Tensor, nn

from distill3d.config.registry import register
from distill3d.guidance.base import (
    Diagnostics,
    DistillationConfig,
    Draw,
    ScoreDistillation,
    classifier_free,
    mean_norm,
    per_set,
)
from distill3d.priors.base import DiffusionPrior, add_noise
from distill3d.types import Cameras, GuidanceInput, GuidanceOutput, Pass, Prompt, PromptEmbedding, TextRequest

INITIAL_SEED = 0  # the adapter starts the same in every run: what it learns follows from the run's own seed


class CameraToken(nn.Module):
    """The camera as one more text token, zero until it is trained, so that it works on every prior."""

    def __init__(self, token_dim: int, width: int = 128) -> None:
        super().__init__()
        self.net = nn.Sequential(nn.Linear(12, width), nn.SiLU(), nn.Linear(width, token_dim))
        for parameter in self.net[-1].parameters():
            nn.init.zeros_(parameter)

    def forward(self, text: PromptEmbedding, cameras: Cameras) -> PromptEmbedding:
        pose = cameras.c2w[:, :3].flatten(1).to(text.tokens)
        token = self.net(pose)[:, None].to(text.tokens)
        mask = None if text.mask is None else torch.cat([text.mask, torch.ones_like(text.mask[:, :1])], 1)
        return PromptEmbedding(torch.cat([text.tokens, token], 1), mask, text.pooled)


@register("guidance", "vsd")
class VSD(ScoreDistillation, nn.Module):
    """VSD: c(t) (eps^w(z_t; y) - eps_lora(z_t; y, camera)), a LoRA trained on the renders alongside (arXiv 2305.16213).

    The LoRA sees the prompt without view words, and the camera as one extra token; a prior without a network has
    another adapter in its place (`DiffusionPrior.make_adapter`). Its own loss is
    ``|| eps_lora(z_u; y, camera) - eps ||^2`` with fresh u ~ U{0 .. T-1} and eps, at x.detach(); its learning
    rate is the published 1e-4 unless system.optimizer.params.guidance.lr gives another. max_step_percent falls from .98
    to .5 at a fifth of the run.
    """

    @dataclass
    class Config(DistillationConfig):
        lora_rank: int = 4
        condition_on_camera: bool = True

        published: ClassVar = {"guidance_scale": 6.5}
        published_over_run: ClassVar = {"max_step_percent": [200, 0.98, 0.5, 200]}

    cfg: Config
    optimizer_defaults: ClassVar[Mapping[str, float]] = {"lr": 1e-4}  # where system.optimizer.params has no guidance

    def __init__(self, cfg: Any) -> None:
        nn.Module.__init__(self)
        ScoreDistillation.__init__(self, cfg)
        self.adapter: nn.Module | None = None
        self.camera_token: CameraToken | None = None

    def texts(self, prompt: Prompt) -> dict[str, TextRequest]:
        """Also ``object``: the prompt without view words."""
        return {**super().texts(prompt), "object": TextRequest(prompt.text)}

    def prepare(self, prior: DiffusionPrior, prompt_embeddings: Mapping[str, PromptEmbedding]) -> None:
        """Build the parameters, before the optimiser is made. Raises ValueError where VSD cannot run."""
        if torch.distributed.is_available() and torch.distributed.is_initialized():
            raise ValueError("guidance_type=vsd trains a LoRA and supports a single device; set trainer.devices=1")
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(INITIAL_SEED)
            self.adapter = prior.make_adapter(self.cfg.lora_rank)
            if self.cfg.condition_on_camera:
                self.camera_token = CameraToken(prompt_embeddings["object"].tokens.shape[-1]).to(prior.device)

    def __call__(self, prior: DiffusionPrior, inputs: GuidanceInput) -> GuidanceOutput:
        if self.adapter is None:
            self.prepare(prior, inputs.texts)
        output = ScoreDistillation.__call__(self, prior, inputs)
        own_loss = self.lora_loss(prior, inputs)
        return replace(output, own_loss=own_loss, diagnostics={**output.diagnostics, "lora_loss": own_loss.detach()})

    def gradient(self, prior: DiffusionPrior, inputs: GuidanceInput, draw: Draw) -> tuple[Tensor, Diagnostics]:
        with torch.no_grad():
            w = self.at("guidance_scale", inputs)
            queries = draw.pair(w)
            queries["lora"] = draw.query("object")._replace(adapter=self.adapter)
            text = self.lora_text(inputs)
            answer = self.predict(prior, replace(inputs, texts={**inputs.texts, "object": text}), queries)
        y, reference, lora = (answer[name].noise for name in (*self.roles, "lora"))
        guided = classifier_free(y, reference, w)
        diagnostics: Diagnostics = {"norm_cond": mean_norm(y - reference), "norm_lora": mean_norm(y - lora)}
        return draw.weight * (guided - lora), diagnostics

    def lora_loss(self, prior: DiffusionPrior, inputs: GuidanceInput) -> Float[Tensor, ""]:
        """The denoising loss of the LoRA on this step's renders; its graph reaches the guidance's parameters alone."""
        x, generator = inputs.x.detach().float(), inputs.generator
        drawn = {"generator": generator, "device": generator.device}
        t = per_set(prior, x, lambda sets: torch.randint(0, prior.num_train_timesteps, (sets,), **drawn))
        eps = torch.randn(x.shape, generator=generator, device=generator.device).to(x.device)
        with torch.enable_grad():
            one = Pass(add_noise(prior, x, eps, t), t, self.lora_text(inputs), self.adapter, inputs.cameras)
            return ((prior.predict([one], grad=True)[0].noise - eps) ** 2).mean()

    def lora_text(self, inputs: GuidanceInput) -> PromptEmbedding:
        text = inputs.texts["object"]
        if self.camera_token is None or inputs.cameras is None:
            return text
        return self.camera_token(text, inputs.cameras)

"""Training the embedded prior: v-prediction on captioned mesh views, text encoder and network together."""

from __future__ import annotations

import copy
import logging
import random
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from distill3d.config.registry import register
from distill3d.config.schedule import Scheduled
from distill3d.embedded.light_views import light_batch
from distill3d.embedded.mesh_scenes import extents_of
from distill3d.embedded.mesh_view_module import MeshViewDataModule
from distill3d.embedded.mesh_views import ViewBatch, ViewSampler, all_nouns, core_nouns
from distill3d.runtime.foreign import reading
from distill3d.runtime.protocols import check_kind
from distill3d.runtime.rng import rng
from distill3d.runtime.word_list import taught_nouns
from distill3d.systems.model_training import ModelTraining, check_learning_rate, muon_groups

if TYPE_CHECKING:
    from transformers import CLIPTokenizer

log = logging.getLogger(__name__)

TRUST_RATE_FACTOR = 20.0  # logits of a range of ten, which a network's rate would not move in a short training

_FIRST_AND_LAST = (
    "size.",
    "outer_in.",
    "inner_in.",
    "outer_out.",
    "inner_out.",
    "words.score.",
    "light.enter.",
    "light.guess.",
    "light.layers.0.choice.",
    "light.layers.1.choice.",
    "light.layers.2.choice.",
    "light.layers.3.choice.",
    "light.layers.4.choice.",
)  # left to Adam by Muon


def v_target(x: Tensor, eps: Tensor, alpha: Tensor, sigma: Tensor) -> Tensor:
    """``v = alpha eps - sigma x`` (arXiv 2202.00512)."""
    return alpha * eps - sigma * x


def min_snr_weight(alpha: Tensor, sigma: Tensor, gamma: float = 5.0) -> Tensor:
    """``min(SNR, gamma) / (SNR + 1)``: min-SNR weighting (arXiv 2303.09556) of a loss on v."""
    snr = (alpha / sigma.clamp_min(1e-8)) ** 2
    return snr.clamp_max(gamma) / (snr + 1.0)


def loss_weight(alpha: Tensor, sigma: Tensor, high_noise: float) -> Tensor:
    """min-SNR plus ``high_noise sigma^2``.

    min-SNR alone weighs t = 900 with .02, and there a picture's layout is decided: a short training needs more of it.
    """
    return min_snr_weight(alpha, sigma) + high_noise * sigma**2


def draw_timesteps(
    count: int, timesteps: int, high_noise_share: float, generator: torch.Generator, device: torch.device
) -> Int[Tensor, "B"]:
    """Timesteps with a density that rises as t, but for ``high_noise_share``, which are uniform over the noisiest 15 %.

    There a sample finds its outline and its colours, and there most of the error is chance: both ask for more draws.
    """
    t = (timesteps * torch.rand(count, generator=generator, device=device).sqrt()).long().clamp_max(timesteps - 1)
    high = torch.randint(int(0.85 * timesteps), timesteps, (count,), generator=generator, device=device)
    return torch.where(torch.rand(count, generator=generator, device=device) < high_noise_share, high, t)


@register("system", "embedded-prior-system")
class EmbeddedPriorSystem(ModelTraining):
    """Trains the small text-to-image diffusion model that ships with the package."""

    @dataclass
    class Config:
        network: dict[str, Any] = field(default_factory=dict)  # arguments of PixelUNet2DConditionModel
        text_width: int = 256
        text_layers: int = 4
        learning_rate: Scheduled = 5e-4
        optimizer: Literal["AdamW", "Muon"] = "Muon"
        high_noise_weight: float = 0.5
        high_noise_share: float = 0.25
        # the text encoder's layers learn slowly: at the network's rate their outputs collapse into one before they mean
        # anything, since what all captions have in common is the first thing that lowers the loss
        text_rate_factor: float = 0.05  # 0: the text encoder is frozen after its pretraining
        reading_steps: int = 500  # pretraining steps of the text encoder, before the prior is trained
        weight_decay: float = 0.01
        ema_decay: float = 0.9995
        caption_dropout: float = 0.13
        camera_dropout: float = 0.15
        light_weight: float = 5.0  # of the light field's own error against the clean view
        # the light field's own batch in each step: scenes, views of each, and rays of each view; scenes 0: none
        light_scenes: int = 16
        light_views: int = 16
        light_rays: int = 64
        light_batch_weight: float = 10.0
        save_every: int = 500
        evaluate: str = "embedded"  # the prior that --test measures: embedded, or a folder
        evaluate_guidance_scale: float = 4.0
        evaluate_steps: int = 50
        evaluate_eta: float = 1.0
        evaluate_image_size: int | None = None  # None: the largest
        evaluate_per_noun: int = 4
        initial_folder: str | None = None  # start from the weights of a prior's folder
        loggers: dict[str, Any] = field(default_factory=dict)

        def __post_init__(self) -> None:
            check_learning_rate(self.learning_rate)
            for name in ("caption_dropout", "camera_dropout", "high_noise_share"):
                if not 0.0 <= (value := getattr(self, name)) < 1.0:
                    raise ValueError(f"system.{name}={value} must lie in [0, 1)")

    alphas_cumprod: Tensor
    logged = ("gradient_norm", "loss", "light_loss", "light_batch_loss")

    def check_data(self, data: Any, training: bool) -> None:
        check_kind(data, MeshViewDataModule, "mesh-view-datamodule, with data.assets, a folder of meshes")

    def build(self, data: Any) -> None:
        """Make tokenizer, networks and their averages for the nouns of a mesh-view datamodule."""
        from distill3d.embedded.caption_reading import teach_reading
        from distill3d.embedded.folder import make_scheduler
        from distill3d.embedded.network import PixelUNet2DConditionModel
        from distill3d.embedded.text import make_text_encoder, make_tokenizer

        # every noun of the folder has its tokens, whichever are trained on, so that training can go on with more
        self.tokenizer = self._initial_tokenizer() or make_tokenizer(all_nouns(data.assets), self.out_dir / "tokenizer")
        self.nouns, self.cameras = list(data.nouns), data.cameras
        self.extents = extents_of(data.assets, self.nouns)
        self.scheduler = make_scheduler()
        self.unet = PixelUNet2DConditionModel(**self.cfg.network).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.text_encoder = make_text_encoder(self.tokenizer, self.cfg.text_width, self.cfg.text_layers)
        if self.cfg.initial_folder:
            self._load_initial(Path(self.cfg.initial_folder))
        elif self.trainer.ckpt_path is None:
            teach_reading(self.text_encoder, self.tokenizer, all_nouns(data.assets), self.cfg.reading_steps, self.seed)
        self.ema_unet = copy.deepcopy(self.unet).requires_grad_(False).eval()
        self.text_encoder.requires_grad_(self.cfg.text_rate_factor > 0)
        self.ema_text_encoder = copy.deepcopy(self.text_encoder).requires_grad_(False).eval()
        self.register_buffer("alphas_cumprod", self.scheduler.alphas_cumprod.float(), persistent=False)

    def _initial_tokenizer(self) -> CLIPTokenizer | None:
        """The text encoder's own: with another it would read some words as others."""
        from transformers import CLIPTokenizer

        folder = self.cfg.initial_folder
        if folder is None:
            return None
        with reading(Path(folder) / "tokenizer", "a tokenizer", setting="system.initial_folder"):
            return CLIPTokenizer.from_pretrained(Path(folder) / "tokenizer")

    def _load_initial(self, folder: Path) -> None:
        from transformers import CLIPTextModel

        from distill3d.embedded.network import PixelUNet2DConditionModel

        with reading(folder, "an embedded prior", setting="system.initial_folder"):
            unet = PixelUNet2DConditionModel.from_pretrained(folder / "unet", torch_dtype=torch.float32)
            text_encoder = CLIPTextModel.from_pretrained(folder / "text_encoder", dtype=torch.float32)
        self.unet.load_state_dict(unet.state_dict())
        self.text_encoder.load_state_dict(text_encoder.state_dict())

    def training_step(self, batch: ViewBatch, _: int) -> Tensor:
        x = batch.images.contiguous(memory_format=torch.channels_last)
        generator = rng("noise", self.seed, self.global_step, device=x.device)
        t = draw_timesteps(len(x), len(self.alphas_cumprod), self.cfg.high_noise_share, generator, x.device)
        eps = torch.randn(x.shape, generator=generator, device=x.device)
        alpha, sigma = self._alpha_sigma(t)
        captions = self._dropped(batch.captions)
        state, pooled = self._encode(captions)
        conditions = {"text_embeds": pooled, **self._cameras(batch, generator)}
        seen = self.unet.look(conditions)
        v = self.unet(alpha * x + sigma * eps, t, state, conditions, seen=seen).sample.float()
        error = (v - v_target(x, eps, alpha, sigma)).square().mean(dim=(1, 2, 3))
        loss = (error * loss_weight(alpha, sigma, self.cfg.high_noise_weight).flatten()).mean()
        light_loss = (seen.guess.float() - batch.clean).square().mean()
        self.log("loss", loss, prog_bar=True)
        self.log("light_loss", light_loss, prog_bar=True)
        return loss + self.cfg.light_weight * light_loss + self._light_batch_loss()

    def _light_batch_loss(self) -> Tensor | float:
        """The light field's error on a batch of its own: many views, few rays of each."""
        cfg = self.cfg
        if not cfg.light_scenes:
            return 0.0
        counts = (cfg.light_scenes, cfg.light_views, cfg.light_rays)
        batch = light_batch(self.trainer.datamodule.sampler, self.global_step, *counts, cfg.camera_dropout)  # type: ignore[attr-defined]
        pooled, light = self._encode(batch.captions)[1], self.unet.light
        found = light.guess(light.along(batch.rays.to(self.device), batch.known.to(self.device), pooled))
        error = (found.float() - batch.clean.to(self.device)).square().mean()
        self.log("light_batch_loss", error)
        return cfg.light_batch_weight * error

    def _cameras(self, batch: ViewBatch, generator: torch.Generator) -> dict[str, Tensor]:
        """The batch's cameras as the network takes them, some to be ignored."""
        cameras = batch.cameras
        kept = torch.rand(len(cameras), generator=generator, device=generator.device) >= self.cfg.camera_dropout
        return {"c2w": cameras.c2w, "fovy_rad": cameras.fovy_rad, "known": kept.float().to(cameras.c2w.device)}

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

    def trained(self) -> list[tuple[nn.Module, nn.Module]]:
        return [(self.ema_unet, self.unet), (self.ema_text_encoder, self.text_encoder)]

    def parameter_groups(self) -> list[dict[str, Any]]:
        """The network's kernels and matrices (for Muon), its other parameters with the word table, the text layers."""
        from distill3d.embedded.text import word_table

        words = word_table(self.text_encoder)
        layers = [p for p in self.text_encoder.parameters() if p is not words]
        table_factor = 1.0 if self.cfg.text_rate_factor else 0.0
        groups = [
            *muon_groups(self.unet, _FIRST_AND_LAST, ("light_in.trust",)),
            {"params": list(self.unet.light_in.trusts()), "rate_factor": TRUST_RATE_FACTOR, "weight_decay": 0.0},
            {"params": [words], "rate_factor": table_factor},
            {"params": layers, "rate_factor": self.cfg.text_rate_factor},
        ]
        return [group for group in groups if group["rate_factor"]]

    def save(self) -> None:
        """The averaged weights as a diffusers folder."""
        from distill3d.embedded.folder import save_folder

        folder = self.out_dir / "prior"
        networks = (self.ema_unet, self.ema_text_encoder, self.tokenizer, self.scheduler)
        save_folder(folder, *networks, self.nouns, self.cameras, self.extents)
        log.info("step %d: the prior's folder is %s", self.global_step, folder)

    def report(self, data: Any) -> None:
        """Measure ``cfg.evaluate``: evaluation.json and contact sheets in save/, with a judge if one is shipped."""
        from distill3d.embedded import prior_report
        from distill3d.embedded.condition_effects import camera_effects, caption_effects, view_word_effects
        from distill3d.priors.loader import PriorConfig, load_prior, load_prompt_encoder, prior_folder

        cfg = PriorConfig(pretrained_model_name_or_path=self.cfg.evaluate)
        settings = prior_report.SampleSettings(
            guidance_scale=self.cfg.evaluate_guidance_scale,
            steps=self.cfg.evaluate_steps,
            eta=self.cfg.evaluate_eta,
            per_noun=self.cfg.evaluate_per_noun,
            image_size=self.cfg.evaluate_image_size,
            seed=self.seed,
        )
        folder = prior_folder(cfg)
        nouns = taught_nouns(folder) if folder else []
        if not nouns:
            raise ValueError(
                f"system.evaluate={self.cfg.evaluate!r} has no nouns in a words.json; train it with this config"
            )
        prior, encoder = load_prior(cfg, self.device), load_prompt_encoder(cfg, self.device)
        known, fresh = comparison_views(data, nouns)
        sample = prior_report.make_sampler(prior, encoder, settings)
        judge = _shipped_judge()
        if judge is None:
            report, pictures = prior_report.PriorReport(), {"nouns": prior_report.draw_nouns(sample, nouns, settings)}
        else:
            core, unseen = core_nouns(data.assets), 0.5 + 0.5 * fresh.images
            report, pictures = prior_report.report_prior(sample, judge, nouns, core, settings, known, unseen)
        cache = data.held_out_cache()
        fronted = [asset.noun for asset in data.assets if asset.has_front and asset.noun in set(nouns)]
        report.condition_effects = [
            *caption_effects(prior, encoder, fresh[:96]),
            *camera_effects(prior, encoder, cache, nouns),
            *view_word_effects(prior, encoder, cache, list(dict.fromkeys(fronted))),
        ]
        self.out_dir.mkdir(parents=True, exist_ok=True)
        prior_report.save_sheets(pictures, nouns, settings, self.out_dir)
        prior_report.write_report(report, self.out_dir / "evaluation.json", judged=judge is not None)


def _shipped_judge() -> Any:
    from distill3d.embedded.judge import FOLDER, load_judge

    if (FOLDER / "judge.json").is_file():
        return load_judge()
    log.warning("no judge is shipped: retrieval metrics are skipped; train one with configs/prior/judge.yaml")
    return None


def comparison_views(data: Any, nouns: list[str], count: int = 2000) -> tuple[Tensor, ViewBatch]:
    """Training views in [0, 1], and views by other cameras; plain nouns alone."""
    known = ViewSampler(data.cache(), nouns, seed=1, pair_share=0.0, override_share=0.0)
    views = [0.5 + 0.5 * known.batch(step, 100, 64).images for step in range(count // 100)]
    return torch.cat(views), data.held_out_views(nouns, 300)

"""The gradients of score distillation as pictures: the first figure of LMC-SDS (arXiv 2401.05293)."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, cast

import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from distill3d.config.check import ConfigError
from distill3d.config.ranges import check_least
from distill3d.config.registry import register
from distill3d.config.schedule import scheduled
from distill3d.guidance.base import ScoreDistillation, mean_cosine, mean_norm
from distill3d.guidance.lmc_cond import LMCCond
from distill3d.guidance.lmc_sds import LMCSDS
from distill3d.guidance.sds import SDS
from distill3d.priors.base import DiffusionPrior
from distill3d.runtime.files import write_json
from distill3d.runtime.pictures import labelled_grid, to_uint8
from distill3d.runtime.rng import rng
from distill3d.scenes.image import centre_square
from distill3d.systems.images import image_data
from distill3d.systems.pictures import PictureSettings, PictureSystem, enlarged
from distill3d.types import GuidanceInput, GuidanceOutput

log = logging.getLogger(__name__)
GRADIENTS = ("L_cond", "L_proj", "L_lmc", "SDS", "LMC-SDS")
BRIGHTEST = 0.99  # the quantile of |g| that is drawn at full strength
PROBE = 0.1  # deviation of the step along a gradient of latents whose effect is drawn


@dataclass(frozen=True)
class GradientRow:
    """At one t: the predictions of x in the prior's space, and the gradients, ``SDS = w L_cond + L_proj`` and
    ``LMC-SDS = w L_cond + L_lmc`` with c(t) = 1."""

    t: float
    x_hat: Float[Tensor, "1 C h w"]
    b_psi: Float[Tensor, "1 C h w"]
    gradients: Mapping[str, Float[Tensor, "1 C h w"]]


@register("system", "gradient-picture-system")
class GradientPicture(PictureSystem):
    """Pictures of the gradients of SDS and LMC-SDS and of their terms, for one image; trains nothing.

    The picture is ``data.image``, or a sample of the prompt. save/it*-gradients.png has a row for each of ``times``
    (fractions of the diffusion time), the video goes from max_step_percent down to min_step_percent in
    ``trainer.max_steps`` steps, and gradients.json has norms and cosines. What is drawn is -g, the way the picture
    would go, each at its own scale. draws: noises that a gradient is the mean over.
    """

    @dataclass
    class Config(PictureSettings):
        times: list[float] = field(default_factory=lambda: [0.25, 0.5, 0.75])
        draws: int = 1

        def __post_init__(self) -> None:
            super().__post_init__()
            if not self.times or not all(0.0 < t < 1.0 for t in self.times):
                raise ValueError(f"times={self.times} must be fractions of the diffusion time between 0 and 1")
            check_least(self, draws=1)

    def configure(self) -> None:
        super().configure()
        if not isinstance(self.guidance, LMCSDS):
            raise ConfigError(
                f"system.guidance_type={self.cfg.guidance_type!r}: the gradients of SDS are compared with those of "
                "lmc-sds, whose settings system.guidance has; set it to lmc-sds",
                "system.guidance_type",
            )

    def check_data(self, data: Any, training: bool) -> None:
        """Of any size: the square in the middle is taken."""
        image_data(data)

    def configure_optimizers(self) -> None:
        """Nothing is trained, on purpose: no warning is due."""
        for message in ("`LightningModule.configure_optimizers` returned", "`training_step` returned `None`"):
            warnings.filterwarnings("ignore", message=f".?{message}")

    def begin(self) -> None:
        data = image_data(cast(Any, self.trainer).datamodule)
        given = data.picture()
        picture = centre_square(data.resized(self.sample_picture("conditional") if given is None else given))
        with torch.no_grad():
            self.x = self.prior.encode(picture[None].to(self.prior.device))

    def training_step(self, batch: Any, batch_idx: int) -> None:  # type: ignore[override]
        """Write one frame of the video; nothing is trained."""

    def on_train_end(self) -> None:
        """Write the picture and its numbers."""
        rows = [self.row(t) for t in self.cfg.times]
        self.save_png(self.sheet(rows), f"it{self.steps_done}-gradients.png")
        if self.save_dir is not None:
            path = self.save_dir / "gradients.json"
            write_json(path, [figures(row) for row in rows])
            self.record.add_files(path)

    # -- one t ---------------------------------------------------------------------------------------------------

    @torch.no_grad()
    def row(self, t: float) -> GradientRow:
        """All gradients at one t and one noise."""
        at_t = {"min_step_percent": t, "max_step_percent": t, "timestep_sampling": "fixed", "noise": "fresh"}
        shared = {**at_t, "weighting_strategy": "uniform"}
        self.lmc.cfg, settings = replace(self.lmc.cfg, **shared), self.lmc.cfg
        self.lmc.look = True
        lmc = self.ask(self.lmc)
        self.lmc.cfg, w = settings, self.guidance_scale
        cond, sds = (self.ask(rule(rule.Config(guidance_scale=w, **shared))).grad for rule in (LMCCond, SDS))
        terms = {"L_cond": cond / w if w else cond, "L_proj": sds - cond, "L_lmc": lmc.grad - cond}
        means = {name: g.mean(0, keepdim=True) for name, g in (terms | {"SDS": sds, "LMC-SDS": lmc.grad}).items()}
        x_hat, b_psi = (cast(Tensor, lmc.diagnostics[name])[:1] for name in ("x_hat", "b_psi"))
        return GradientRow(t, x_hat, b_psi, means)

    def ask(self, rule: ScoreDistillation) -> GuidanceOutput:
        """A rule's gradient; every rule gets the same noise."""
        x = self.x.expand(self.cfg.draws, -1, -1, -1)
        texts = self.prompt_processor.texts(None, len(x))
        return rule(self.prior, GuidanceInput(x, texts, 0, 1, rng("noise", self.seed), seed=self.seed))

    @property
    def lmc(self) -> LMCSDS:
        return self.guidance

    @property
    def guidance_scale(self) -> float:
        return scheduled(self.lmc.cfg.guidance_scale or 0.0, 0)

    # -- pictures ------------------------------------------------------------------------------------------------

    def frame(self) -> UInt8[Tensor, "3 H W"]:
        low, high = (scheduled(getattr(self.lmc.cfg, f"{end}_step_percent"), 0) for end in ("min", "max"))
        share = min(self.global_step / max(self.trainer.max_steps, 1), 1.0)
        return self.sheet([self.row(high - (high - low) * share)])

    def sheet(self, rows: list[GradientRow]) -> UInt8[Tensor, "3 H W"]:
        """A line of pictures for each row."""
        w = f"w = {self.guidance_scale:g}"
        names = [f"{name}, {w}" if "SDS" in name else name for name in GRADIENTS]
        cells = []
        for row in rows:
            decoded = [self.prior.decode(x) for x in (self.x, row.x_hat, row.b_psi)]
            drawn = [gradient_image(self.prior, self.x, row.gradients[name]) for name in GRADIENTS]
            cells.append([enlarged(to_uint8(image)[0], 128) for image in (*decoded, *drawn)])
        return labelled_grid(cells, ["image", "x_hat", "b_psi", *names], [f"t = {row.t:.2f}" for row in rows])


def gradient_image(
    prior: DiffusionPrior, x: Float[Tensor, "1 C h w"], grad: Float[Tensor, "1 C h w"]
) -> Float[Tensor, "1 3 H W"]:
    """-g as colours around grey, its 99 % quantile at full strength; of latents what a small step does to the image."""
    change = -grad
    if x.shape[1] != 3:
        step = change * (PROBE / change.std().clamp_min(1e-12))
        change = prior.decode(x + step) - prior.decode(x)
    largest = torch.quantile(change.abs().flatten(), BRIGHTEST).clamp_min(1e-12)
    return (0.5 + 0.5 * change / largest).clamp(0.0, 1.0)


def figures(row: GradientRow) -> dict[str, Any]:
    """Norms of the gradients, and the cosine of each with L_cond."""
    return {
        "t": row.t,
        "norm": {name: float(mean_norm(g)) for name, g in row.gradients.items()},
        "cosine with L_cond": {
            name: float(mean_cosine(g, row.gradients["L_cond"])) for name, g in row.gradients.items()
        },
    }

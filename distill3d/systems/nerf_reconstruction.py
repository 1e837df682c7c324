"""Reconstruction: the volume of text to 3D, fitted to posed images. What an edit of it starts from."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from distill3d.config.registry import Kind, register
from distill3d.config.schedule import Scheduled
from distill3d.data.posed.images import PosedImageBatch, PosedImages, counted_mean
from distill3d.data.posed.module import PosedImageDataModule
from distill3d.evaluation.metrics import psnr_db, ssim
from distill3d.runtime.files import finite_or_none
from distill3d.runtime.pictures import contact_sheet
from distill3d.runtime.protocols import check_kind
from distill3d.scenes.base import Step, Views
from distill3d.scenes.nerf.losses import OrientReduction, regulariser
from distill3d.systems.base import LossWeights
from distill3d.systems.text_to_3d import TextTo3D
from distill3d.types import Prompt, RenderOutput

SHEET_VIEWS = 8  # test views in the picture that compares them, at most


@dataclass
class ReconstructionLosses(LossWeights):
    """``lambda_rgb`` weighs the mean squared error of colours, ``lambda_opacity`` that of the opacity to the alpha.

    The others are those of text to 3D.
    """

    lambda_rgb: Scheduled = 1.0
    lambda_opacity: Scheduled = 0.1
    lambda_orient: Scheduled = 0.0
    lambda_opaque: Scheduled = 0.0
    lambda_z_variance: Scheduled = 0.0
    orient_reduction: OrientReduction = "sum"


@register("system", "nerf-reconstruction-system")
class NeRFReconstruction(TextTo3D):
    """Reconstructs a NeRF or another scene from posed images by a photometric loss."""

    logged = ("train/", "val/psnr_db")

    @dataclass
    class Config(TextTo3D.Config):
        prompt_processor_type: str | None = None  # type: ignore[assignment]
        guidance_type: str | None = None  # type: ignore[assignment]
        prior_type: str | None = None  # type: ignore[assignment]
        background_type: str = "solid-color-background"
        loss: ReconstructionLosses = field(default_factory=ReconstructionLosses)  # type: ignore[assignment]

        def __post_init__(self) -> None:
            super().__post_init__()
            if self.background.get("random_aug"):
                raise ValueError(
                    "background.random_aug=true would replace the background of the images; set it to false; for "
                    "images with an alpha channel data.background=alpha gives random backgrounds"
                )

    def make(self, kind: Kind, *parts: Any) -> Any:
        """The part that ``<kind>_type`` names; what a reconstruction has none of stays empty."""
        if getattr(self.cfg, f"{kind}_type") is not None:
            return super().make(kind, *parts)
        return _NoPrompt() if kind == "prompt_processor" else None

    def check(self) -> None:
        """There is no prompt, no prior and no guidance that could lack anything."""
        self.check_optimizer()
        self.scene.check()

    def check_data(self, data: Any, training: bool) -> None:
        check_kind(data, PosedImageDataModule, "posed-images-datamodule, with data.root, a folder of posed images")

    def setup(self, stage: str) -> None:
        self.record.describe(self.trainer)
        if stage == "fit":
            self.scene.prepare(self.seed)

    # -- one step ------------------------------------------------------------------------------------------------

    def training_step(self, batch: PosedImageBatch, batch_idx: int) -> Tensor:  # type: ignore[override]
        weights = self.cfg.loss.weights(self.global_step, self.current_epoch)
        with self.record.watch("render"), self.full_precision():
            output = self.scene.fitted(batch.cameras, self.step_now(), need_normal="orient" in weights)
            terms = self.losses(output, batch, list(weights))
        self.observe(Views(output.rgb, opacity=output.opacity))
        self.log_numbers({f"loss_{name}": term.detach() for name, term in terms.items()})
        self.log_numbers({"psnr_db": psnr_db(output.rgb.detach(), batch.images, batch.counted).mean()})
        return sum((weights[name] * term for name, term in terms.items()), torch.zeros(()).to(self.device))

    def losses(self, output: RenderOutput, batch: PosedImageBatch, names: list[str]) -> dict[str, Tensor]:
        """The named losses of one render, unweighted."""
        own = {"rgb": lambda: counted_mean((self.before(output, batch) - batch.images).square(), batch.counted)}
        alpha = batch.alpha
        if alpha is not None:
            own["opacity"] = lambda: counted_mean((output.opacity - alpha).square(), batch.counted)
        shared = [name for name in names if name not in ("rgb", "opacity")]
        terms = {name: regulariser(name, output, self.cfg.loss.orient_reduction) for name in shared}
        return {name: own[name]() for name in names if name in own} | terms

    def before(self, output: RenderOutput, batch: PosedImageBatch) -> Float[Tensor, "B 3 H W"]:
        """The render before the images' own background where that is known, else before the scene's.

        ``C + (1 - opacity) (b' - b)``: the scene's b is taken out exactly, so that it is not trained there.
        """
        if batch.background is None:
            return output.rgb
        own = self.scene.backdrop(batch.cameras, Step(self.global_step, self.seed))  # without those of evaluation
        return output.rgb + (1.0 - output.opacity) * (batch.background[:, :, None, None] - own)

    # -- pictures ------------------------------------------------------------------------------------------------

    def validation_step(self, batch: PosedImageBatch, batch_idx: int) -> None:  # type: ignore[override]
        """The image, the render, and where they differ."""
        seen = self.view(batch)
        self.log("val/psnr_db", psnr_db(seen, batch.images, batch.counted).mean(), batch_size=len(batch))
        sheet = contact_sheet([batch.images, seen, (seen - batch.images).abs()])
        self.save_png(sheet, f"it{self.steps_done}-{int(batch.index[0])}.png")

    def view(self, batch: PosedImageBatch) -> Float[Tensor, "B 3 H W"]:
        """The scene from the cameras of a batch, before its background; without gradient."""
        color = None if batch.background is None else batch.background[0]
        with self.full_precision():
            return self.scene.preview(batch.cameras, None, "albedo", color, need_normal=False).rgb.clamp(0.0, 1.0)

    def on_test_epoch_end(self) -> None:
        """Measure the test views; then the turntable and the contact sheet."""
        views = self.trainer.datamodule.test_views  # type: ignore[attr-defined]
        batches = (views.batch([i]) for i in range(len(views)))
        figures = [self.compared(batch) for batch in batches]  # one at a time: a hundred renders are a gigabyte
        means = [torch.stack(values).mean() for values in zip(*figures, strict=True)]
        known = [finite_or_none(float(value)) for value in means]  # null where a figure has no value
        self.record.figures |= zip(("test_psnr_db", "test_ssim"), known, strict=True)
        shown = views.batch(range(min(SHEET_VIEWS, len(views))))
        sheet = contact_sheet([shown.images, self.view(shown.to(self.device)).cpu()])
        self.save_png(sheet, f"it{self.steps_done}-test-views.png")
        super().on_test_epoch_end()

    def compared(self, batch: PosedImageBatch) -> tuple[Float[Tensor, ""], Float[Tensor, ""]]:
        """PSNR in dB and SSIM of the scene's renders to the images of a batch, where these count."""
        seen = self.view(batch.to(self.device)).cpu()
        psnr = psnr_db(seen, batch.images, batch.counted).mean()
        return psnr, ssim(batch.shown_in(seen), batch.images).mean()

    def rendered(self, views: PosedImages) -> tuple[Float[Tensor, "N 3 H W"], Float[Tensor, "N 3 H W"]]:
        """Renders of all views of a set, and its images, on the CPU."""
        batches = [views.batch([i]).to(self.device) for i in range(len(views))]
        return torch.cat([self.view(batch).cpu() for batch in batches]), views.images


class _NoPrompt:
    """In the place of a prompt processor."""

    prompt = Prompt("")

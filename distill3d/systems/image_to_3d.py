"""Image to 3D: text to 3D that is also fitted to one picture, from the camera that took it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, cast

from jaxtyping import Float
from torch import Tensor

from distill3d.config.check import ConfigError
from distill3d.config.registry import register
from distill3d.config.schedule import Scheduled
from distill3d.data.reference_image import ReferenceImageBatch, ReferenceImageDataModule, ReferenceView
from distill3d.evaluation.metrics import psnr_db
from distill3d.runtime.pictures import contact_sheet
from distill3d.runtime.protocols import check_kind
from distill3d.systems.text_to_3d import LossSettings, TextTo3D


@dataclass
class ImageTo3DLosses(LossSettings):
    """``lambda_rgb`` and ``lambda_mask`` weigh the mean squared errors of the picture's view: colours and opacity.

    The others are those of text to 3D, of the random views.
    """

    lambda_rgb: Scheduled = 1.0
    lambda_mask: Scheduled = 1.0


@register("system", "image-to-3d-system")
class ImageTo3D(TextTo3D):
    """Image to 3D: distillation from random views and a photometric loss in the given one (arXiv 2306.17843, 3.1)."""

    @dataclass
    class Config(TextTo3D.Config):
        loss: ImageTo3DLosses = field(default_factory=ImageTo3DLosses)

    def training_step(self, batch: ReferenceImageBatch, batch_idx: int) -> Tensor | None:
        distilled = super().training_step(batch, batch_idx)
        weights = self.cfg.loss.weights(self.global_step, self.current_epoch)
        with self.record.watch("render"), self.full_precision():
            terms = {name: term for name, term in self.reference_terms(batch.reference).items() if name in weights}
        self.log_numbers({f"loss_{name}": term.detach() for name, term in terms.items()})
        return sum((weights[name] * term for name, term in terms.items()), cast(Tensor, distilled))

    def reference_terms(self, reference: ReferenceView) -> dict[str, Float[Tensor, ""]]:
        """How the scene differs from the picture, over the scene's own background, unweighted."""
        step = self.step_now()
        seen = self.scene.fitted(reference.cameras, step)
        target = reference.over(self.scene.backdrop(reference.cameras, step).detach())
        return {
            "rgb": (seen.rgb - target).square().mean(),
            "mask": (seen.opacity - reference.alpha).square().mean(),
        }

    def on_test_epoch_end(self) -> None:
        """The picture beside the scene from its camera, and their PSNR; then the turntable and the contact sheet."""
        data = cast(Any, self.trainer).datamodule
        if isinstance(data, ReferenceImageDataModule):
            reference = data.reference(self.steps_done).to(self.device)
            with self.full_precision():
                seen = self.scene.preview(reference.cameras, need_normal=False).rgb.clamp(0.0, 1.0)
            target = reference.over(self.scene.backdrop(reference.cameras))
            self.record.figures["reference_psnr_db"] = float(psnr_db(seen, target).mean())
            self.save_png(contact_sheet([target, seen]), f"it{self.steps_done}-reference.png")
        super().on_test_epoch_end()

    def check_data(self, data: Any, training: bool) -> None:
        check_kind(data, ReferenceImageDataModule, "reference-image-datamodule, with data.image")
        super().check_data(data, training)

    def check(self) -> None:
        """As in text to 3D; a negative prompt means nothing to a model that reads a picture."""
        super().check()
        kind = self.make("prior").kind()
        if kind is not None and kind.image_encoder is not None and self.prompt_processor.prompt.negative:
            raise ConfigError(
                f"system.prompt_processor.negative_prompt is set, and {kind.title} reads no text; leave it empty",
                "system.prompt_processor.negative_prompt",
            )

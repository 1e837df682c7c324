"""Editing of drawings by score distillation: the curves of an SVG are moved and coloured, and it stays an SVG."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from distill3d.config.ranges import check_least
from distill3d.config.registry import register
from distill3d.config.schedule import Scheduled
from distill3d.data.svg import SvgDataModule
from distill3d.evaluation.metrics import ssim
from distill3d.runtime.checkpoint import CheckpointError
from distill3d.runtime.files import write_atomically
from distill3d.runtime.pictures import contact_sheet, to_uint8
from distill3d.runtime.protocols import check_kind
from distill3d.scenes.base import Step, Views
from distill3d.scenes.svg.document import SvgDocument, parse_svg
from distill3d.scenes.svg.scene import QUANTITIES, Quantity, SvgScene
from distill3d.systems.pictures import PictureLosses, PictureSettings, PictureSystem


@dataclass
class SvgLosses(PictureLosses):
    """``lambda_points`` weighs ``0.5 sum ||p - p_source||^2`` over control points, in fractions of the picture."""

    lambda_points: Scheduled = 0.0


@register("system", "svg-edit-system")
class SvgEdit(PictureSystem):
    """Edits an SVG file to match the prompt, by pds, dds, sds or lmc-sds (as in arXiv 2311.13831).

    trained: what is optimised: points, colours, widths (of strokes), opacities. Learning rates of their own are given
    in optimizer.params as scene.points, scene.colours, ...; points and widths are in fractions of the picture's longer
    side. picture_size: shorter side in pixels of the pictures and the video that are kept.
    """

    @dataclass
    class Config(PictureSettings):
        scene_type: str | None = "svg"
        loss: SvgLosses = field(default_factory=SvgLosses)
        trained: list[Quantity] = field(default_factory=lambda: list(QUANTITIES))
        picture_size: int = 256

        def __post_init__(self) -> None:
            super().__post_init__()
            if not self.trained:
                raise ValueError(f"trained=[] leaves nothing to optimise; choose from {', '.join(QUANTITIES)}")
            check_least(self, picture_size=16)

    def configure(self) -> None:
        super().configure()
        self.source: Tensor | None = None  # the original, encoded

    def check_data(self, data: Any, training: bool) -> None:
        svg_data(data)
        super().check_data(data, training)

    def begin(self) -> None:
        data = svg_data(cast(Any, self.trainer).datamodule)
        document = data.document()
        if self.scene.document is not None and self.scene.document.text != document.text:
            raise CheckpointError(f"resume: the checkpoint belongs to another drawing than data.svg={data.cfg.svg!r}")
        self.scene.begin(document, tuple(self.cfg.trained))
        self.scene.to(self.prior.device)
        self._name_what_stays(document)
        self.scene.size = data.drawn_size(document, self.prior.spec.image_sizes[-1])
        self.scene.copies = data.cfg.batch_size
        with torch.no_grad():
            self.source = self.prior.encode(self.scene.render_source(*self.scene.size)[None])
        self.save_png(to_uint8(self._large(self.scene.render_source)[None])[0], "source.png")

    def _name_what_stays(self, document: SvgDocument) -> None:
        if document.unsupported:
            self.warn_user(f"data.svg: not drawn, and kept unchanged: {', '.join(document.unsupported)}")
        if document.invisible:
            self.warn_user(f"data.svg: without extent or paint, and kept unchanged: {', '.join(document.invisible)}")

    # -- training ------------------------------------------------------------------------------------------------

    def views_of_original(self, batch: Any, step: Step) -> Views | None:
        return None if self.source is None else Views(self.source, encoded=True, copies=self.scene.copies)

    # -- pictures ------------------------------------------------------------------------------------------------

    def frame(self) -> UInt8[Tensor, "3 H W"]:
        """The original beside the present state, both in large, since drawings have any size."""
        return contact_sheet([torch.stack([self._large(self.scene.render_source), self._large(self.scene.render)])])

    def results(self) -> dict[str, UInt8[Tensor, "3 H W"]]:
        return {"0": to_uint8(self._finished()[None])[0]}

    def export(self, strict: bool = True) -> list[Path]:
        """Also final.svg, and how similar it is to the source."""
        files = super().export(strict)
        assert self.save_dir is not None  # else there was an error
        svg = write_atomically(self.save_dir / "final.svg", self.scene.svg().encode())
        final, source = self._finished()[None], self._large(self.scene.render_source)[None]
        motion = (self.scene.points.values.detach() - self.scene.points.start).norm(dim=1)
        figures = {"ssim_to_source": float(ssim(final, source)), "mean_point_motion": float(motion.mean())}
        self.record.add_export([svg], figures)
        self.write_metrics()
        return [*files, svg]

    @torch.no_grad()
    def _finished(self) -> Float[Tensor, "3 H W"]:
        """What final.svg shows, drawn from its text."""
        scene = SvgScene()
        scene.begin(parse_svg(self.scene.svg(), "the edited SVG"), ())
        return self._large(scene.render)

    @torch.no_grad()
    def _large(self, render: Any) -> Float[Tensor, "3 H W"]:
        assert self.scene.document is not None
        across, down = self.scene.document.size
        scale = self.cfg.picture_size / min(across, down)
        return render(round(scale * down), round(scale * across)).cpu().clamp(0.0, 1.0)

    # -- checkpoints ---------------------------------------------------------------------------------------------

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        super().on_save_checkpoint(checkpoint)
        if self.scene.document is not None:
            checkpoint["distill3d"]["svg"] = self.scene.document.text

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """A checkpoint brings its drawing along, before anything else names one."""
        text = checkpoint.get("distill3d", {}).get("svg")
        if self.scene.is_empty and text is not None:
            self.scene.begin(parse_svg(text, "the checkpoint's SVG"), tuple(self.cfg.trained))
        super().on_load_checkpoint(checkpoint)


def svg_data(data: Any) -> SvgDataModule:
    """The data module. Raises ConfigError if it is of another kind."""
    return check_kind(data, SvgDataModule, "svg-datamodule, with data.svg=FILE")

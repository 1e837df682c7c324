"""One drawing to edit: an SVG file."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from jaxtyping import Float
from torch import Tensor

from distill3d.config.registry import register
from distill3d.data.image import ImageDataModule
from distill3d.runtime.foreign import read_bytes
from distill3d.runtime.protocols import ViewSize
from distill3d.scenes.svg.document import SvgDocument, SvgError, parse_svg
from distill3d.scenes.svg.scene import SvgScene
from distill3d.scenes.svg.xml_text import decode

_ANY_SIZE = 512  # pixels
MOST_STRETCHED = 64  # times that one side is the other: a picture of such a drawing would not fit into memory
DRAWINGS = Path(__file__).parent / "drawings"  # those that are shipped


@register("data", "svg-datamodule")
class SvgDataModule(ImageDataModule):
    """One SVG file and the size to rasterise it at.

    svg: the file, or the name of a shipped one: apple.svg.
    width and height: of what the prior is shown, in pixels; null is the prior's size, or the drawing's shape where one
        of the two is given.
    batch_size: times and noises a step, all for the one drawing.
    """

    @dataclass
    class Config(ImageDataModule.Config):
        svg: str = "apple.svg"

        def __post_init__(self) -> None:
            super().__post_init__()
            if self.image is not None:
                raise ValueError(f"image={self.image!r} is not used here; give the drawing as svg")

    cfg: Config

    def document(self) -> SvgDocument:
        """The drawing. Raises SvgError if it cannot be read, or if there is nothing to draw."""
        path, setting = Path(self.cfg.svg), f"data.svg={self.cfg.svg!r}"
        if not path.is_file() and (DRAWINGS / self.cfg.svg).is_file():
            path = DRAWINGS / self.cfg.svg
        if not path.is_file():
            shipped = ", ".join(sorted(file.name for file in DRAWINGS.glob("*.svg")))
            raise SvgError(f"{setting} is no file; give an SVG, or one of those that are shipped: {shipped}")
        text = decode(read_bytes(path, "an SVG", setting="data.svg"), setting)
        document = parse_svg(text, setting)
        across, down = document.size
        if max(across, down) > MOST_STRETCHED * min(across, down):
            raise SvgError(
                f"{setting} is {across:g} x {down:g}, one side over {MOST_STRETCHED} times the other; crop it"
            )
        return document

    def check(self) -> None:
        """Read the drawing, so that a mistake is told before the run begins. Raises SvgError."""
        self.document()

    def view_sizes(self) -> list[ViewSize]:
        """The shape that a prior is shown, at a size of no meaning where the settings leave it open."""
        height, width = self.drawn_size(self.document(), _ANY_SIZE)
        return [ViewSize(height, width, f"data.svg={self.cfg.svg!r} is drawn {width}:{height}")]

    def drawn_size(self, document: SvgDocument, shorter: int) -> tuple[int, int]:
        """Height and width in pixels; where the settings leave them open, ``shorter`` is the shorter side."""
        across, down = document.size
        scale = shorter / min(across, down)
        return self.size(round(scale * down), round(scale * across))

    def picture(self) -> Float[Tensor, "3 H W"]:
        """The drawing in pixels, in its own size, so that systems of pictures can start from it."""
        document, scene = self.document(), SvgScene()
        scene.begin(document, ())
        across, down = document.size
        return scene.render(round(down), round(across)).detach()

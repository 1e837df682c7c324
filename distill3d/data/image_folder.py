"""Images of a folder, with captions from the text files beside them."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import torch
from jaxtyping import Float
from torch import Tensor

from distill3d.config.ranges import check_least
from distill3d.config.registry import register
from distill3d.data.image_batch import ImageBatch, ImageBatches
from distill3d.runtime.foreign import MAX_PIXELS, ForeignFileError, open_image, read_text
from distill3d.runtime.rng import rng

SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".bmp")
MAX_CAPTION_BYTES = 2**16  # what is longer is no caption, and would keep a tokenizer busy for minutes


@register("data", "image-folder-datamodule")
class ImageFolderDataModule(ImageBatches):
    """Random square crops of the images in a folder, captioned by text files of the same names."""

    @dataclass
    class Config:
        root: str = ""
        image_size: int = 64
        batch_size: int = 32

        def __post_init__(self) -> None:
            check_least(self, image_size=1, batch_size=1)

    def __init__(self, cfg: Config, seed: int = 0) -> None:
        super().__init__(cfg, seed)
        self._images: dict[Path, Tensor] = {}

    @cached_property
    def paths(self) -> list[Path]:
        """Images below the root, sorted. Raises ValueError where there are none."""
        if not self.cfg.root:
            raise ValueError("data.root is not set; give the folder of images: data.root=PATH")
        return image_paths(Path(self.cfg.root), "data.root")

    def captions(self) -> list[str]:
        """What the images are called, in their order."""
        return [caption_of(path) for path in self.paths]

    def batch(self, step: int) -> ImageBatch:
        """Random images, each in a random crop."""
        generator = rng("data", self.seed, step)
        rows = torch.randint(0, len(self.paths), (self.cfg.batch_size,), generator=generator).tolist()
        crops = [random_crop(self._image(self.paths[row]), self.cfg.image_size, generator) for row in rows]
        return ImageBatch(torch.stack(crops), [caption_of(self.paths[row]) for row in rows])

    def _image(self, path: Path) -> Float[Tensor, "3 H W"]:
        if path not in self._images:
            self._images[path] = read_image(path, self.cfg.image_size)
        return self._images[path]


def image_paths(root: Path, setting: str) -> list[Path]:
    """Images below a folder, sorted, or the one image that ``root`` is. Raises ValueError where there are none.

    Files that macOS writes beside others (``._name``) are none.
    """
    below = (path for path in root.rglob("*") if path.suffix.lower() in SUFFIXES and not path.name.startswith("._"))
    paths = [root] if root.is_file() else sorted(path for path in below if path.is_file() or path.is_symlink())
    if not paths:
        kinds = ", ".join(SUFFIXES)
        raise ValueError(f"{setting}={str(root)!r} holds no images ({kinds}); give another folder")
    return paths


def read_image(path: Path, short_side: int | None = None) -> Float[Tensor, "3 H W"]:
    """An image in [-1, 1], transparent parts on white, its shorter side resized; null keeps its size.

    Photographs are turned upright. Raises ForeignFileError if it is none.
    """
    import numpy as np
    from PIL import Image

    image = open_image(path).convert("RGBA")
    flat = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image).convert("RGB")
    if short_side is not None:
        scale = short_side / min(flat.size)
        width, height = (max(short_side, round(side * scale)) for side in flat.size)
        if width * height > MAX_PIXELS:
            raise ForeignFileError(
                f"{path} has {flat.width}x{flat.height} pixels, too long for a shorter side of {short_side}; crop it"
            )
        flat = flat.resize((width, height), Image.Resampling.LANCZOS)
    pixels = np.array(flat, dtype=np.float32)
    return torch.from_numpy(pixels).permute(2, 0, 1) / 127.5 - 1.0


def random_crop(image: Float[Tensor, "3 H W"], size: int, generator: torch.Generator) -> Float[Tensor, "3 S S"]:
    """A square of the image, mirrored half of the time."""
    top, left = (int(torch.randint(0, side - size + 1, (), generator=generator)) for side in image.shape[1:])
    crop = image[:, top : top + size, left : left + size]
    return crop.flip(2) if torch.rand((), generator=generator) < 0.5 else crop


def caption_of(path: Path) -> str:
    """The text file beside an image, else nothing."""
    beside = path.with_suffix(".txt")
    is_there = beside.is_file() or beside.is_dir() or beside.is_symlink()  # what cannot be read is told
    return read_text(beside, "a caption", limit=MAX_CAPTION_BYTES).strip() if is_there else ""

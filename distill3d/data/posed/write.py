"""Posed images as files: PNGs with an alpha, and the transforms.json of Blender's form that reads them back."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from distill3d.data.posed.transforms_json import OWN_WORLD
from distill3d.runtime.files import replacing_folder, write_json
from distill3d.runtime.foreign import read_record
from distill3d.types import Cameras


@dataclass(frozen=True)
class RenderedViews:
    """Views to write: premultiplied colours and opacities, in [0, 1]."""

    cameras: Cameras
    rgb: Float[Tensor, "N 3 H W"]
    alpha: Float[Tensor, "N 1 H W"]


def write_posed_images(
    folder: Path, splits: Mapping[str, RenderedViews], source: str, overwrite: bool = False, caption: str = ""
) -> None:
    """``transforms_<split>.json`` and ``<split>/r_<i>.png`` of each split.

    ``camera_angle_x`` is in radians and stands in each frame too; poses are in the project's world, and say so. A
    caption goes into caption.txt. With ``overwrite`` an earlier data set of this function gives way, and nothing else
    does. Raises ValueError otherwise.
    """
    check_free(folder, overwrite)
    with replacing_folder(folder) as temporary:
        for split, views in splits.items():
            (temporary / split).mkdir()
            frames = [_write_view(temporary, split, views, i) for i in range(len(views.cameras))]
            content = {"camera_angle_x": frames[0]["camera_angle_x"], "world": OWN_WORLD, "source": source}
            content |= {"w": views.cameras.width, "h": views.cameras.height, "frames": frames}
            write_json(temporary / f"transforms_{split}.json", content)
        if caption:
            (temporary / "caption.txt").write_text(caption + "\n", encoding="utf-8")


def check_free(folder: Path, overwrite: bool) -> None:
    """Raise ValueError unless ``folder`` is free, empty, or, with ``overwrite``, a data set that was written here."""
    if not folder.exists() or (folder.is_dir() and not any(folder.iterdir())):
        return
    if not overwrite:
        raise ValueError(f"{folder} exists; give another folder, or overwrite=true to replace a data set")
    if not _is_own(folder):
        raise ValueError(
            f"{folder} exists and is no data set of --render-views, so it is not replaced; remove it first"
        )


def _is_own(folder: Path) -> bool:
    return read_record(folder / "transforms_train.json").get("world") == OWN_WORLD


def _write_view(folder: Path, split: str, views: RenderedViews, i: int) -> dict[str, Any]:
    from PIL import Image

    cameras, alpha = views.cameras, views.alpha[i].clamp(0.0, 1.0)
    straight = views.rgb[i] / alpha.clamp_min(1e-4)
    pixels = (torch.cat([straight, alpha]).clamp(0.0, 1.0) * 255.0).round().to(torch.uint8)
    name = f"{split}/r_{i:03d}"
    Image.fromarray(pixels.permute(1, 2, 0).contiguous().cpu().numpy()).save(folder / f"{name}.png")
    fovx_rad = 2.0 * torch.atan(torch.tan(0.5 * cameras.fovy_rad[i]) * cameras.width / cameras.height)
    return {"file_path": name, "camera_angle_x": float(fovx_rad), "transform_matrix": cameras.c2w[i].tolist()}

"""The exported mesh beside the scene it came from: one contact sheet, and how much they differ."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F

from distill3d.evaluation.metrics import psnr_db
from distill3d.export.formats.asset import Asset
from distill3d.export.views import AlbedoViews
from distill3d.runtime.pictures import contact_sheet, png_bytes
from distill3d.scenes.mesh.raster import GBuffer, Mesh, rasterize
from distill3d.types import Cameras

SUPERSAMPLE = 3
GREY, AMBIENT = 0.8, 0.25  # of the textureless row, lit from the camera


def preview(asset: Asset, views: AlbedoViews) -> tuple[bytes, dict[str, float | int | str]]:
    """A PNG with a row of the scene's albedo, a row of the mesh's, and a row of its bare shape; all over white.

    The figures: PSNR over whole images, over what either of them covers, and the overlap of the silhouettes.
    """
    scene, opacity = views.color, views.opacity
    mesh, shape, mask = render_asset(asset, views.cameras)
    covered = (torch.maximum(opacity, mask) > 0.5).expand_as(mesh)
    overlap = ((opacity > 0.5) & (mask > 0.5)).sum() / ((opacity > 0.5) | (mask > 0.5)).sum().clamp_min(1)
    figures: dict[str, float | int | str] = {
        "mesh_psnr": float(psnr_db(mesh[None], scene[None])),
        "mesh_psnr_foreground": float(psnr_db(mesh[covered][None], scene[covered][None])),
        "mesh_silhouette_overlap": float(overlap),
    }
    return png_bytes(contact_sheet([scene, mesh, shape])), figures


def render_asset(
    asset: Asset, cameras: Cameras
) -> tuple[Float[Tensor, "B 3 H W"], Float[Tensor, "B 3 H W"], Float[Tensor, "B 1 H W"]]:
    """Unlit colours and lambertian shape over white, and the mask, from the asset's own texture or vertex colours."""
    fine = replace(cameras, height=cameras.height * SUPERSAMPLE, width=cameras.width * SUPERSAMPLE)
    textured = asset.base_color is not None and asset.uv is not None
    attributes = asset.uv if textured and asset.uv is not None else asset.colors
    buffer = rasterize(Mesh(asset.vertices, asset.faces, attributes), fine, supersample=1)
    color = _textured(buffer.attributes, asset) if textured else buffer.attributes
    mask = buffer.mask
    images = [color, _headlit(buffer, fine).expand_as(color)]
    over_white = [F.avg_pool2d(image * mask + 1.0 - mask, SUPERSAMPLE).clamp(0.0, 1.0) for image in images]
    return over_white[0], over_white[1], F.avg_pool2d(mask, SUPERSAMPLE)


def _textured(uv: Float[Tensor, "B 2 H W"], asset: Asset) -> Float[Tensor, "B 3 H W"]:
    """Bilinear look-up, as a graphics card does it."""
    texture = torch.from_numpy(np.ascontiguousarray(asset.base_color)).permute(2, 0, 1)[None].float() / 255.0
    at = 2.0 * uv.permute(0, 2, 3, 1) - 1.0
    return F.grid_sample(texture.expand(len(uv), -1, -1, -1), at, align_corners=False, padding_mode="border")


def _headlit(buffer: GBuffer, cameras: Cameras) -> Float[Tensor, "B 1 H W"]:
    """Lambertian shading of the flat normals by a light at the camera."""
    towards = F.normalize(cameras.position[:, :, None, None] - buffer.position, dim=1)
    return GREY * (AMBIENT + (1.0 - AMBIENT) * (buffer.normal * towards).sum(dim=1, keepdim=True).clamp_min(0.0))

"""The exported mesh in pictures: beside the scene it came from with how much they differ, and turning."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np
import torch
from jaxtyping import Float, UInt8
from torch import Tensor
from torch.nn import functional as F

from distill3d.evaluation.metrics import psnr_db
from distill3d.export.formats.asset import Asset
from distill3d.export.surface.grid import Box
from distill3d.export.views import LENS_PIXELS, AlbedoViews, framed, turning_cameras
from distill3d.runtime.pictures import labelled_grid, large_panel, png_bytes, to_uint8
from distill3d.scenes.mesh.raster import GBuffer, Mesh, rasterize, unit_vectors
from distill3d.types import Cameras

SUPERSAMPLE = 3
GREY, AMBIENT = 0.8, 0.25  # of the textureless row, lit from the camera
TURN_COLUMNS = ("colour", "normal")


@dataclass(frozen=True)
class AssetViews:
    """What an asset looks like: unlit colours and lambertian shape over white, normals over black, and the mask."""

    color: Float[Tensor, "B 3 H W"]
    shape: Float[Tensor, "B 3 H W"]
    normal: Float[Tensor, "B 3 H W"]  # of the vertices, interpolated, as ``(n + 1) / 2``
    mask: Float[Tensor, "B 1 H W"]


def preview(asset: Asset, views: AlbedoViews, scene: str = "volume") -> tuple[bytes, dict[str, float | int | str]]:
    """A PNG with a row of the scene's albedo, a row of the mesh's, and a row of its bare shape; all over white.

    ``scene``: what the first row is called. The figures: PSNR over whole images, over what either of them covers, and
    the overlap of the silhouettes.
    """
    mesh, shape, mask = render_asset(asset, views.cameras)
    figures = likeness(mesh, mask, views)
    on_object, overlap = figures["mesh_psnr_foreground"], figures["mesh_silhouette_overlap"]
    rows = [scene, f"mesh: {on_object:.1f} dB on the object, outlines overlap {overlap:.1%}", "textureless"]
    columns = [f"{azimuth:.0f} degrees" for azimuth in (views.cameras.azimuth_deg % 360.0).tolist()]
    cells = [list(to_uint8(images)) for images in (views.color, mesh, shape)]
    named: dict[str, float | int | str] = {"mesh_psnr": float(psnr_db(mesh[None], views.color[None])), **figures}
    return png_bytes(labelled_grid(cells, columns, rows)), named


def likeness(mesh: Float[Tensor, "B 3 H W"], mask: Float[Tensor, "B 1 H W"], views: AlbedoViews) -> dict[str, float]:
    """PSNR of pixels that either covers by more than half, both over white, and intersection over union of those."""
    covered = torch.maximum(views.opacity, mask) > 0.5
    both = torch.minimum(views.opacity, mask) > 0.5
    pixels = covered.expand_as(mesh)
    return {
        "mesh_psnr_foreground": float(psnr_db(mesh[pixels][None], views.color[pixels][None])),
        "mesh_silhouette_overlap": float(both.sum() / covered.sum().clamp_min(1)),
    }


def render_asset(
    asset: Asset, cameras: Cameras
) -> tuple[Float[Tensor, "B 3 H W"], Float[Tensor, "B 3 H W"], Float[Tensor, "B 1 H W"]]:
    """Unlit colours and lambertian shape over white, and the mask, from the asset's own texture or vertex colours."""
    seen = asset_views(asset, cameras)
    return seen.color, seen.shape, seen.mask


def asset_views(asset: Asset, cameras: Cameras, supersample: int = SUPERSAMPLE) -> AssetViews:
    """The asset as a viewer shows it, each pixel the mean of its subpixels."""
    fine = replace(cameras, height=cameras.height * supersample, width=cameras.width * supersample)
    textured = asset.base_color is not None and asset.uv is not None
    attributes = asset.uv if textured and asset.uv is not None else asset.colors
    buffer = rasterize(
        Mesh(asset.vertices, asset.faces, np.concatenate([attributes, asset.normals], axis=1)), fine, supersample=1
    )
    looked_up, mask = buffer.attributes[:, :-3], buffer.mask
    color = _textured(looked_up, asset) if textured else looked_up
    normal = 0.5 + 0.5 * unit_vectors(buffer.attributes[:, -3:])
    shape = _headlit(buffer, fine).expand_as(color)
    small = lambda image: F.avg_pool2d(image, supersample).clamp(0.0, 1.0)  # noqa: E731
    over_white = [small(image * mask + 1.0 - mask) for image in (color, shape)]
    return AssetViews(over_white[0], over_white[1], small(normal * mask), small(mask))


def turntable(asset: Asset, count: int, size: int) -> Iterator[UInt8[Tensor, "3 h w"]]:
    """Frames of the mesh once around: colour and normal side by side under their names, each ``size`` high and wide.

    Drawn at half of that and enlarged: no volume shows more, and it takes a quarter of the time.
    """
    low, high = (torch.from_numpy(corner) for corner in (asset.vertices.min(axis=0), asset.vertices.max(axis=0)))
    cameras = turning_cameras(Box(low, high), count, -(-size // 2))
    mesh = Mesh(asset.vertices, asset.faces, asset.vertices[:, :0])
    cameras = framed(cameras, rasterize(mesh, replace(cameras, height=LENS_PIXELS, width=LENS_PIXELS)).mask)
    for i in range(count):
        seen = asset_views(asset, cameras[[i]], supersample=2)
        yield large_panel(to_uint8(torch.cat([seen.color, seen.normal], dim=-1))[0], size, TURN_COLUMNS)


def _textured(uv: Float[Tensor, "B 2 H W"], asset: Asset) -> Float[Tensor, "B 3 H W"]:
    """Bilinear look-up, as a graphics card does it."""
    texture = torch.from_numpy(np.ascontiguousarray(asset.base_color)).permute(2, 0, 1)[None].float() / 255.0
    at = 2.0 * uv.permute(0, 2, 3, 1) - 1.0
    return F.grid_sample(texture.expand(len(uv), -1, -1, -1), at, align_corners=False, padding_mode="border")


def _headlit(buffer: GBuffer, cameras: Cameras) -> Float[Tensor, "B 1 H W"]:
    """Lambertian shading of the flat normals by a light at the camera."""
    towards = unit_vectors(cameras.position[:, :, None, None] - buffer.position)
    return GREY * (AMBIENT + (1.0 - AMBIENT) * (buffer.normal * towards).sum(dim=1, keepdim=True).clamp_min(0.0))

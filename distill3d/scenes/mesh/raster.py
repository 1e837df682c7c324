"""Triangle meshes to G-buffers on a CPU: a z-buffer with supersampling. It feeds the prior, the judge and previews.

The inner loops are in `kernels.raster` (numba), imported on first use.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Int
from numpy import ndarray
from torch import Tensor

from distill3d.types import Cameras

NEAR = 1e-3


@dataclass(frozen=True)
class Mesh:
    """Triangles in the world frame (z up, front at +x) with one row of attributes a vertex (colours in [0, 1])."""

    vertices: Float[ndarray, "V 3"]
    faces: Int[ndarray, "F 3"]
    colors: Float[ndarray, "V A"]

    def transformed(self, scale: float = 1.0, offset: tuple[float, float, float] = (0.0, 0.0, 0.0)) -> Mesh:
        moved = self.vertices * np.float32(scale) + np.asarray(offset, np.float32)
        return Mesh(moved.astype(np.float32), self.faces, self.colors)

    def normalized(self, radius: float = 0.5) -> Mesh:
        """Centred by its bounding box, then scaled so that the farthest vertex lies at ``radius``."""
        center = 0.5 * (self.vertices.min(0) + self.vertices.max(0))
        farthest = np.linalg.norm(self.vertices - center, axis=1).max()
        scale = radius / max(float(farthest), 1e-12)
        return self.transformed(scale, tuple(-center * scale))

    @staticmethod
    def merged(meshes: list[Mesh]) -> Mesh:
        offsets = np.cumsum([0] + [len(m.vertices) for m in meshes[:-1]])
        return Mesh(
            np.concatenate([m.vertices for m in meshes]),
            np.concatenate([m.faces + o for m, o in zip(meshes, offsets, strict=True)]),
            np.concatenate([m.colors for m in meshes]),
        )


@dataclass(frozen=True)
class GBuffer:
    """What is seen at each pixel, averaged over the covered subpixels; zero where the mask is zero."""

    attributes: Float[Tensor, "B A H W"]  # the mesh's colours, perspective-correct
    normal: Float[Tensor, "B 3 H W"]  # flat, unit length, towards the camera, world frame
    position: Float[Tensor, "B 3 H W"]  # world
    mask: Float[Tensor, "B 1 H W"]  # share of covered subpixels

    def __len__(self) -> int:
        return self.mask.shape[0]


def rasterize(mesh: Mesh, cameras: Cameras, supersample: int = 3) -> GBuffer:
    """Render one mesh under every camera of a batch. Triangles behind the near plane are dropped whole.

    Raises ValueError for a mesh without faces or with indices out of range.
    """
    from distill3d.scenes.mesh import kernels

    if len(mesh.faces) == 0 or mesh.faces.min() < 0 or mesh.faces.max() >= len(mesh.vertices):
        raise ValueError(f"mesh with {len(mesh.vertices)} vertices and {len(mesh.faces)} faces has bad or no indices")
    vertices = np.ascontiguousarray(mesh.vertices, np.float32)
    faces = np.ascontiguousarray(mesh.faces, np.int32)
    attributes = np.ascontiguousarray(mesh.colors, np.float32)
    normals = face_normals(vertices, faces)
    images = [
        kernels.rasterize_view(
            *screen_vertices(vertices, c2w, fovy, cameras.height, cameras.width, supersample),
            vertices,
            faces,
            attributes,
            normals,
            c2w[:3, 3].copy(),
            cameras.height,
            cameras.width,
            supersample,
        )
        for c2w, fovy in zip(cameras.c2w.cpu().float().numpy(), cameras.fovy_rad.cpu().tolist(), strict=True)
    ]
    stacked = torch.from_numpy(np.stack(images)).permute(0, 3, 1, 2).contiguous()
    count = attributes.shape[1]
    return GBuffer(
        stacked[:, :count], stacked[:, count : count + 3], stacked[:, count + 3 : count + 6], stacked[:, count + 6 :]
    )


def screen_vertices(
    vertices: Float[ndarray, "V 3"],
    c2w: Float[ndarray, "4 4"],
    fovy_rad: float,
    height: int,
    width: int,
    supersample: int,
) -> tuple[Float[ndarray, "V 2"], Float[ndarray, "V"]]:
    """Subpixel coordinates (x right, y down) and depth along the view axis (positive in front of the camera)."""
    local = (vertices - c2w[:3, 3]) @ c2w[:3, :3]
    depth = -local[:, 2]
    focal = 0.5 * height * supersample / np.tan(0.5 * fovy_rad)
    safe = np.where(depth > NEAR, depth, 1.0)
    x = local[:, 0] / safe * focal + 0.5 * width * supersample
    y = -local[:, 1] / safe * focal + 0.5 * height * supersample
    return np.stack([x, y], axis=1).astype(np.float32), depth.astype(np.float32)


def unit_vectors(image: Float[Tensor, "B 3 H W"]) -> Float[Tensor, "B 3 H W"]:
    """Each pixel's vector with length 1, zero where it is zero; torch's own norm takes 8 to 80 times as long here."""
    return image / image.square().sum(dim=1, keepdim=True).sqrt().clamp_min(1e-12)


def face_normals(vertices: Float[ndarray, "V 3"], faces: Int[ndarray, "F 3"]) -> Float[ndarray, "F 3"]:
    """Unit normals by the right-hand rule; zero for triangles without area."""
    a, b, c = (vertices[faces[:, i]] for i in range(3))
    normal = np.cross(b - a, c - a)
    return (normal / np.maximum(np.linalg.norm(normal, axis=1, keepdims=True), 1e-20)).astype(np.float32)

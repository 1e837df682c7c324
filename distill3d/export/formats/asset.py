"""What the writers write: a mesh with its colours, and the frames that files use."""

from __future__ import annotations

import io
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Literal

import numpy as np
from jaxtyping import Float, Int, UInt8
from numpy import ndarray

ImageFormat = Literal["png", "jpg"]
Up = Literal["y", "z"]
FRONT_OF: dict[Up, str] = {"y": "+z", "z": "-y"}  # of files; a program with z up shows both alike


@dataclass(frozen=True)
class Asset:
    """A mesh with a texture or with vertex colours, right-handed, in the world frame unless ``up`` or ``front`` differ.

    Colours are display-referred (sRGB-encoded) in [0, 1] or 0..255. Texture coordinates have their origin at the
    upper left of the image, as in glTF. ``normal_map`` is in the tangent space of ``normals`` and ``tangents``,
    whose fourth component is the handedness: ``bitangent = cross(normal, tangent) * w`` points up in the image.
    """

    vertices: Float[ndarray, "V 3"]
    faces: Int[ndarray, "F 3"]
    normals: Float[ndarray, "V 3"]
    colors: Float[ndarray, "V 3"]
    uv: Float[ndarray, "V 2"] | None = None
    tangents: Float[ndarray, "V 4"] | None = None
    base_color: UInt8[ndarray, "H W 3"] | None = None
    normal_map: UInt8[ndarray, "H W 3"] | None = None
    roughness: float = 0.9
    image_format: ImageFormat = "png"
    metadata: Mapping[str, str] = field(default_factory=dict)
    up: Up = "z"
    front: str = "+x"


def y_up(vectors: Float[ndarray, "V 3"]) -> Float[ndarray, "V 3"]:
    """World to the y-up frame of glTF and USD: ``(x, y, z) -> (y, z, x)``, a rotation; the front then faces +z."""
    return vectors[:, [1, 2, 0]]


def front_minus_y(vectors: Float[ndarray, "V 3"]) -> Float[ndarray, "V 3"]:
    """World to the z-up frame of Blender and slicers: ``(x, y, z) -> (y, -x, z)``; the front then faces -y."""
    return np.stack([vectors[:, 1], -vectors[:, 0], vectors[:, 2]], axis=1)


def turned(asset: Asset, up: Up) -> Asset:
    """An asset of the world frame in a frame of files: y up with the front at +z, or z up with the front at -y."""
    turn, tangents = (y_up if up == "y" else front_minus_y), asset.tangents
    if tangents is not None:
        tangents = np.concatenate([turn(tangents[:, :3]), tangents[:, 3:]], axis=1)
    vertices, normals = turn(asset.vertices), turn(asset.normals)
    return replace(asset, vertices=vertices, normals=normals, tangents=tangents, up=up, front=FRONT_OF[up])


def encoded_image(image: UInt8[ndarray, "H W 3"], image_format: ImageFormat) -> bytes:
    """PNG, or JPEG at quality 95 without chroma subsampling."""
    from PIL import Image

    buffer = io.BytesIO()
    if image_format == "png":
        Image.fromarray(image).save(buffer, "PNG", compress_level=6)
    else:
        Image.fromarray(image).save(buffer, "JPEG", quality=95, subsampling=0)
    return buffer.getvalue()

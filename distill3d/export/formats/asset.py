"""What the writers write: a mesh with its colours, and the frames that files use."""

from __future__ import annotations

import io
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
from jaxtyping import Float, Int, UInt8
from numpy import ndarray

ImageFormat = Literal["png", "jpg"]


@dataclass(frozen=True)
class Asset:
    """A mesh in the world frame (z up, front at +x, right-handed), with a texture or with vertex colours.

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


def y_up(vectors: Float[ndarray, "V 3"]) -> Float[ndarray, "V 3"]:
    """World to the y-up frame of glTF and USD: ``(x, y, z) -> (y, z, x)``, a rotation; the front then faces +z."""
    return vectors[:, [1, 2, 0]]


def linear_from_srgb(color: Float[ndarray, "*S"]) -> Float[ndarray, "*S"]:
    """The inverse of the sRGB transfer function (IEC 61966-2-1), for files whose vertex colours are linear."""
    return np.where(color <= 0.04045, color / 12.92, ((color + 0.055) / 1.055) ** 2.4)


def encoded_image(image: UInt8[ndarray, "H W 3"], image_format: ImageFormat) -> bytes:
    """PNG, or JPEG at quality 95 without chroma subsampling."""
    from PIL import Image

    buffer = io.BytesIO()
    if image_format == "png":
        Image.fromarray(image).save(buffer, "PNG", compress_level=6)
    else:
        Image.fromarray(image).save(buffer, "JPEG", quality=95, subsampling=0)
    return buffer.getvalue()

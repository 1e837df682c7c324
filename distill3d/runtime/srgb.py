"""The transfer function of sRGB (IEC 61966-2-1): pictures and files encode colours by it, light adds up without it."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float
from numpy import ndarray


def srgb_from_linear(color: Float[ndarray, "*S"]) -> Float[ndarray, "*S"]:
    """Encoded values, in float32; what lies outside [0, 1] is clipped."""
    color = np.clip(color, 0.0, 1.0)
    return np.where(color <= 0.0031308, 12.92 * color, 1.055 * np.power(color, 1.0 / 2.4) - 0.055).astype(np.float32)


def linear_from_srgb(color: Float[ndarray, "*S"]) -> Float[ndarray, "*S"]:
    """The inverse of `srgb_from_linear`, in float32."""
    return np.where(color <= 0.04045, color / 12.92, np.power((color + 0.055) / 1.055, 2.4)).astype(np.float32)

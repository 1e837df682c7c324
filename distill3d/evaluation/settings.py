"""Settings of an evaluation."""

from __future__ import annotations

from dataclasses import dataclass

from distill3d.config.ranges import check_least


@dataclass(frozen=True)
class EvaluateSettings:
    """``python launch.py --evaluate FOLDER views=8 size=128 judge=auto``."""

    views: int = 8  # equally spaced in azimuth
    size: int = 128  # of the colour renders, in pixels
    shape_size: int = 64  # of the textureless ones, which cost the most, at most ``size``; CLIP sees more at 224
    judge: str = "auto"  # or none, embedded, a folder, a CLIP of the Hub, open_clip:MODEL:WEIGHTS
    samples: int = 4  # of the embedded prior, for each prompt: what saturation and sharpness are compared with; 0: none
    batch_size: int = 4
    device: str = "auto"
    again: bool = False  # also where figures of the same checkpoint and settings exist
    resamples: int = 2000  # of the bootstrap

    def __post_init__(self) -> None:
        check_least(self, size=16, shape_size=16, views=1, samples=0, batch_size=1, resamples=100)

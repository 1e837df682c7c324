"""Frames as an MP4 file, in the size that was asked for."""

from __future__ import annotations

import logging
from pathlib import Path

import torch
from jaxtyping import UInt8
from torch import Tensor

from distill3d.runtime.files import replacing

log = logging.getLogger(__name__)


def write_video(path: Path, frames: UInt8[Tensor, "T 3 H W"], fps: int) -> None:
    """H.264 with 4:2:0 colours, which every player shows. Never resizes.

    4:2:0 needs even sides: an odd one gets a copy of its last row or column, and the log says so.
    """
    frames = even_sides(frames, path.name)
    with replacing(path) as temporary:
        _encode(temporary, frames, fps)


def _encode(path: Path, frames: UInt8[Tensor, "T 3 H W"], fps: int) -> None:
    import imageio_ffmpeg

    height, width = frames.shape[-2:]
    writer = imageio_ffmpeg.write_frames(
        str(path),
        (width, height),
        fps=fps,
        codec="libx264",
        pix_fmt_out="yuv420p",
        macro_block_size=1,  # its default of 16 resizes in silence
        output_params=["-crf", "18"],
        ffmpeg_log_level="error",
    )
    writer.send(None)
    for frame in frames:
        writer.send(frame.permute(1, 2, 0).contiguous().cpu().numpy())
    writer.close()


def even_sides(frames: UInt8[Tensor, "T 3 H W"], name: str) -> UInt8[Tensor, "T 3 h w"]:
    """Repeat the last row or column where a side is odd."""
    height, width = frames.shape[-2:]
    if height % 2:
        frames = torch.cat([frames, frames[..., -1:, :]], dim=-2)
    if width % 2:
        frames = torch.cat([frames, frames[..., -1:]], dim=-1)
    if height % 2 or width % 2:
        log.warning(
            "%s: %dx%d is padded to %dx%d, because H.264 needs even sides", name, width, height, *frames.shape[:-3:-1]
        )
    return frames

"""Frames as an MP4 file, in the size that was asked for."""

from __future__ import annotations

import logging
import tempfile
from collections.abc import Iterable, Iterator
from itertools import chain
from pathlib import Path

import torch
from jaxtyping import UInt8
from torch import Tensor

from distill3d.runtime.files import replacing

log = logging.getLogger(__name__)


def write_video(path: Path, frames: Iterable[UInt8[Tensor, "3 H W"]], fps: int) -> None:
    """H.264 with 4:2:0 colours, which every player shows. Never resizes; frames are asked for one after another.

    4:2:0 needs even sides: an odd one gets a copy of its last row or column, and the log says so.
    """
    given = iter(frames)
    first = even_sides(next(given), path.name)
    with replacing(path) as temporary:
        _encode(temporary, chain([first], (_padded(frame) for frame in given)), first.shape[-2:], fps)


def video_bytes(frames: Iterable[UInt8[Tensor, "3 H W"]], fps: int) -> bytes:
    """The contents of the file that `write_video` would write."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "frames.mp4"
        write_video(path, frames, fps)
        return path.read_bytes()


def _encode(path: Path, frames: Iterator[UInt8[Tensor, "3 H W"]], size: torch.Size, fps: int) -> None:
    import imageio_ffmpeg

    height, width = size
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


def even_sides(frames: UInt8[Tensor, "*T 3 H W"], name: str) -> UInt8[Tensor, "*T 3 h w"]:
    """Repeat the last row or column where a side is odd, and say so."""
    padded = _padded(frames)
    if padded.shape != frames.shape:
        sizes = (*frames.shape[:-3:-1], *padded.shape[:-3:-1])
        log.warning("%s: %dx%d is padded to %dx%d, because H.264 needs even sides", name, *sizes)
    return padded


def _padded(frames: UInt8[Tensor, "*T 3 H W"]) -> UInt8[Tensor, "*T 3 h w"]:
    if frames.shape[-2] % 2:
        frames = torch.cat([frames, frames[..., -1:, :]], dim=-2)
    return torch.cat([frames, frames[..., -1:]], dim=-1) if frames.shape[-1] % 2 else frames

"""A small image-to-image network: what score distillation trains instead of one picture, to change many at once."""

from __future__ import annotations

import itertools
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.functional import interpolate, pad, silu

from distill3d.config.ranges import check_least
from distill3d.config.registry import register
from distill3d.runtime.foreign import reading
from distill3d.runtime.tensor_file import read_tensors, write_tensors
from distill3d.scenes.base import Scene, Step, Views

LEVELS = 2  # halvings


class Translator(nn.Module):
    """``image + net(image)`` for colours in [0, 1] of any size; the identity until it is trained.

    A U-Net with two halvings; 32 channels make 0.5 M parameters.
    """

    def __init__(self, width: int = 32) -> None:
        super().__init__()
        self.width = width
        widths = [width, 2 * width, 4 * width]
        self.first = nn.Conv2d(3, width, 3, padding=1)
        self.down = nn.ModuleList(_Block(a, b, 2) for a, b in itertools.pairwise(widths))
        self.middle = _Block(widths[-1], widths[-1])
        self.up = nn.ModuleList(_Block(a + b, b) for a, b in zip(widths[:0:-1], widths[-2::-1], strict=True))
        self.last = nn.Conv2d(width, 3, 3, padding=1)
        nn.init.zeros_(self.last.weight)
        nn.init.zeros_(self.last.bias)  # type: ignore[arg-type]

    def forward(self, images: Float[Tensor, "B 3 H W"]) -> Float[Tensor, "B 3 H W"]:
        """In one pass; the colours are not clamped."""
        height, width = images.shape[-2:]
        factor = 2**LEVELS
        x = pad(2.0 * images - 1.0, (0, -width % factor, 0, -height % factor), mode="replicate")
        x = self.first(x)
        skips = []
        for block in self.down:
            skips.append(x)
            x = block(x)
        x = self.middle(x)
        for block in self.up:
            x = block(torch.cat([interpolate(x, scale_factor=2, mode="nearest"), skips.pop()], dim=1))
        return images + 0.5 * self.last(silu(x))[..., :height, :width]


@register("scene", "translator")
class TranslatorScene(Scene):
    """An image-to-image network; its views are its translations of a batch of images in [0, 1]."""

    @dataclass
    class Config:
        width: int = 32  # channels of the network

        def __post_init__(self) -> None:
            check_least(self, width=1)

    def __init__(self, cfg: Config) -> None:
        super().__init__(cfg)
        self.network = Translator(cfg.width)

    def views(self, batch: Any, step: Step) -> Views:
        return Views(self.network(batch))

    def parameter_groups(self) -> dict[str, nn.Module]:
        return {"network": self.network}

    def export(self, folder: Path) -> list[Path]:
        path = folder / "translator.safetensors"
        save_translator(self.network, path)
        return [path]


class _Block(nn.Module):
    """``skip(x) + conv(silu(norm(conv(silu(norm(x))))))``, the first convolution with a stride."""

    def __init__(self, channels_in: int, channels_out: int, stride: int = 1) -> None:
        super().__init__()
        self.norms = nn.ModuleList((nn.GroupNorm(1, channels_in), nn.GroupNorm(1, channels_out)))
        self.convs = nn.ModuleList(
            (
                nn.Conv2d(channels_in, channels_out, 3, stride, 1),
                nn.Conv2d(channels_out, channels_out, 3, padding=1),
            )
        )
        self.skip = nn.Conv2d(channels_in, channels_out, 1, stride)

    def forward(self, x: Tensor) -> Tensor:
        hidden = x
        for norm, conv in zip(self.norms, self.convs, strict=True):
            hidden = conv(silu(norm(hidden)))
        return self.skip(x) + hidden


def save_translator(network: Translator, path: Path) -> None:
    """As safetensors, with what rebuilds it."""
    settings = json.dumps({"width": network.width})
    write_tensors(path, network.state_dict(), {"kind": "translator", "settings": settings})


def load_translator(path: Path) -> Translator:
    """A network written by `save_translator`. Raises FileNotFoundError, or ValueError for another file."""
    remedy = "train one with configs/translation.yaml"
    tensors, metadata = read_tensors(path, str(path), remedy)
    if metadata.get("kind") != "translator":
        raise ValueError(f"{path} holds no translator; {remedy}")
    with reading(path, "a translator", remedy):
        network = Translator(**json.loads(metadata["settings"]))
        network.load_state_dict(tensors)
        return network.eval()

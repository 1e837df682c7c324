"""The picture of `edit.py`: edits by methods, each at its best setting, and identity against change."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
from edit_choice import Line, chosen
from edit_claims import Picture
from edit_curve import draw_curves
from jaxtyping import UInt8
from torch import Tensor

from distill3d.evaluation.samples import read_strip
from distill3d.runtime.files import write_atomically
from distill3d.runtime.pictures import blank, labelled_grid, to_uint8
from distill3d.systems.pictures import enlarged

GRIDS = ("nerf", "image", "svg")
CURVES = {"image": "pictures: identity against change", "psi": "identity against change, by psi"}
SHOWN = 64  # pixels of a picture, at least
SHOWN_VIEWS = (0, 3)  # of a scene
BYTES = 400_000


def draw_sheet(lines: Sequence[Line], picture: Picture, path: Path) -> bool:
    """One JPEG of all suites, and one of the scenes alone beside it; whether there is anything to draw."""
    grids = {suite: grid([line for line in lines if line[0].suite == suite], picture) for suite in GRIDS}
    curves = [draw_curves([line for line in lines if line[0].suite == suite], title) for suite, title in CURVES.items()]
    drawn = [part for part in (*grids.values(), *curves) if part is not None]
    if drawn:
        write_jpeg(path, stacked(drawn))
    scenes = grids["nerf"]
    if scenes is not None:
        write_jpeg(path.with_stem(f"{path.stem}_scenes"), scenes)
    return bool(drawn)


def grid(lines: Sequence[Line], picture: Picture) -> UInt8[Tensor, "3 H W"] | None:
    """Edits by methods, the source first; None where no pictures were kept."""
    lines = [line for line in chosen(lines) if picture(line[1]["key"], "edited").is_file()]
    lines = [line for line in lines if not line[0].method.name.endswith("longer")]
    if not lines:
        return None
    edits = list(dict.fromkeys(cell.edit for cell, _ in lines))
    methods = list(dict.fromkeys(cell.method.name for cell, _ in lines))
    images = {(cell.edit, cell.method.name): read_views(picture(line["key"], "edited")) for cell, line in lines}
    sources = {cell.edit: read_views(picture(line["key"], "source")) for cell, line in lines}
    empty = torch.full_like(next(iter(images.values())), 255)
    cells = [[sources[edit], *(images.get((edit, method), empty) for method in methods)] for edit in edits]
    return labelled_grid(cells, ["source", *methods], [edit.target for edit in edits])


def read_views(path: Path) -> UInt8[Tensor, "3 h w"]:
    """The shown ones of a strip side by side, enlarged."""
    strip = to_uint8(read_strip(path))
    chosen_views = [enlarged(strip[i], SHOWN) for i in SHOWN_VIEWS if i < len(strip)]
    return torch.cat(chosen_views, dim=2)


def stacked(parts: Sequence[UInt8[Tensor, "3 h w"]]) -> UInt8[Tensor, "3 H W"]:
    """One below the other, on white."""
    width = max(part.shape[2] for part in parts)
    return torch.cat([torch.cat([part, blank(part.shape[1], width - part.shape[2])], dim=2) for part in parts], dim=1)


def write_jpeg(path: Path, image: UInt8[Tensor, "3 H W"], most_bytes: int = BYTES) -> None:
    """At the best quality that keeps the file that small."""
    import io

    from PIL import Image

    for quality in (92, 85, 75, 60):
        buffer = io.BytesIO()
        Image.fromarray(image.permute(1, 2, 0).contiguous().numpy()).save(
            buffer, "JPEG", quality=quality, subsampling=0
        )
        if buffer.tell() <= most_bytes:
            break
    write_atomically(path, buffer.getvalue())

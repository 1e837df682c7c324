"""How many drawings of a folder are drawn like resvg draws them: python benchmarks/svg_sets.py FOLDER ... --count 150.

The error of a drawing is the mean absolute difference over white of all pixels and channels, the longer side being
``--size`` pixels. One that cannot be read counts as not drawn. Sets: npm's flag-icons, @tabler/icons, simple-icons.
"""

# ruff: noqa: T201  a benchmark prints

from __future__ import annotations

import argparse
import io
import random
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import numpy as np
import resvg_py
import torch
from jaxtyping import Float
from PIL import Image

from distill3d.runtime.foreign import ForeignFileError
from distill3d.scenes.svg.document import parse_svg
from distill3d.scenes.svg.scene import SvgScene
from distill3d.scenes.svg.xml_text import decode

WITHIN = 0.01


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folders", nargs="+", type=Path)
    parser.add_argument("--count", type=int, default=150, help="drawings of each folder, drawn by --seed")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--size", type=int, default=128)
    arguments = parser.parse_args()
    for folder in arguments.folders:
        paths = sorted(folder.glob("*.svg"))
        random.Random(arguments.seed).shuffle(paths)
        rows = sorted(((error(path, arguments.size), path.name) for path in paths[: arguments.count]), reverse=True)
        within = sum(value <= WITHIN for value, _ in rows)
        worst = ", ".join(f"{name} {value:.4f}" for value, name in rows[:3])
        print(f"{folder}: {within} of {len(rows)} within {WITHIN:.0%}; worst: {worst}")


def error(path: Path, size: int) -> float:
    """The mean difference; infinite for a drawing that is refused."""
    try:
        text = decode(path.read_bytes(), str(path))
        document = parse_svg(text, str(path))
    except ForeignFileError:
        return float("inf")
    across, down = document.size
    width, height = (max(1, round(size * side / max(across, down))) for side in (across, down))
    scene = SvgScene()
    scene.begin(document, ())
    with torch.no_grad():
        own = scene.render(height, width).permute(1, 2, 0).numpy()
    return float(np.abs(own - reference(text, width, height)).mean())


def reference(text: str, width: int, height: int) -> Float[np.ndarray, "H W 3"]:
    """resvg's picture over white."""
    png = bytes(resvg_py.svg_to_bytes(svg_string=text, width=width, height=height, dpi=96))
    pixels = np.asarray(Image.open(io.BytesIO(png)).convert("RGBA").resize((width, height)), np.float32) / 255.0
    return pixels[..., :3] * pixels[..., 3:] + 1.0 - pixels[..., 3:]


if __name__ == "__main__":
    main()

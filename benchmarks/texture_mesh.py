"""A box, a sphere and an OBJ painted by text: python benchmarks/texture_mesh.py [--out FOLDER] [key=value ...].

The OBJ is as a site for 3D models gives it: quads with texture coordinates, y up, in centimetres, off the origin. Each
is painted by configs/texture-mesh.yaml. A run that is there is not made again; docs/pictures/texture-mesh.jpg shows
all.
"""

# ruff: noqa: T201  a benchmark prints

from __future__ import annotations

import argparse
import itertools
import math
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from PIL import Image

PROJECT = Path(__file__).resolve().parent.parent
PICTURE = PROJECT / "docs" / "pictures" / "texture-mesh.jpg"
CASE, AROUND = [(0.0, 0.0), (2.4, 0.0), (2.5, 0.05), (3.3, 3.0)], 48  # radius and height in cm; corners around
ICING = [(3.75, 3.25), (3.9, 3.7), (3.65, 4.2), (3.1, 4.45), (3.2, 4.8), (2.95, 5.3), (2.4, 5.6), (2.3, 5.9)]
TIP = [(1.9, 6.4), (1.2, 6.8), (0.5, 7.1), (0.0, 7.25)]


def cupcake() -> str:
    """An OBJ: a profile turned about y, its case in folds."""
    rings = [*CASE, *ICING, *TIP]
    down = [0.0]
    for before, ring in itertools.pairwise(rings):
        down.append(down[-1] + math.dist(before, ring))
    lines = ["# cupcake", "mtllib cupcake.mtl", "o Cupcake"]
    for i in range(AROUND):
        angle = 2.0 * math.pi * i / AROUND
        for radius, height in rings:
            fold = 1.0 + (0.03 * math.cos(0.5 * AROUND * angle) if 0.0 < height <= 3.0 else 0.0)
            x, z = fold * radius * math.sin(angle), fold * radius * math.cos(angle)
            lines.append(f"v {52.0 + x:.6f} {height - 1.3:.6f} {z - 8.0:.6f}")
    for i in range(AROUND + 1):
        lines += [f"vt {0.02 + 0.96 * i / AROUND:.6f} {0.02 + 0.96 * s / down[-1]:.6f}" for s in down]
    corner = lambda i, k: f"{(i % AROUND) * len(rings) + k + 1}/{i * len(rings) + k + 1}"  # noqa: E731
    lines.append("usemtl Default")
    for i in range(AROUND):
        for k in range(len(rings) - 1):
            lines.append("f " + " ".join([corner(i, k), corner(i + 1, k), corner(i + 1, k + 1), corner(i, k + 1)]))
    return "\n".join(lines) + "\n"


def painted(mesh: str, prompt: str, out: Path, settings: Sequence[str]) -> Path:
    """The trial of a mesh: one that is there, or a new one."""
    tag = prompt.replace(" ", "_")
    found = sorted(out.glob(f"texture-mesh/{tag}@*/save/it*-views.png"))
    if not found:
        command = ["--config", "texture-mesh.yaml", "--train", f"tag={tag}", f"exp_root_dir={out}"]
        command += [f"system.scene.mesh={mesh}", f"system.prompt_processor.prompt={prompt}", *settings]
        subprocess.run([sys.executable, str(PROJECT / "launch.py"), *command], check=True)
        found = sorted(out.glob(f"texture-mesh/{tag}@*/save/it*-views.png"))
    return found[-1].parents[1]


def sheet(trials: Sequence[Path]) -> Image.Image:
    """The colours of each from all sides, one below the other."""
    pictures = [Image.open(sorted(trial.glob("save/it*-views.png"))[-1]).convert("RGB") for trial in trials]
    rows = [picture.crop((0, 0, picture.width, picture.height // 3)) for picture in pictures]
    page = Image.new("RGB", (max(row.width for row in rows), sum(row.height for row in rows)))
    for i, row in enumerate(rows):
        page.paste(row, (0, sum(above.height for above in rows[:i])))
    return page


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--out", type=Path, default=PROJECT / "outputs" / "texture-mesh")
    parser.add_argument("settings", nargs="*", help="key=value, for all runs")
    given = parser.parse_args()
    given.out.mkdir(parents=True, exist_ok=True)
    file = given.out / "cupcake.obj"
    file.write_text(cupcake(), encoding="utf-8")
    wanted = {"box": "a gift box", "sphere": "planet earth", str(file): "a cupcake"}
    trials = [painted(mesh, prompt, given.out, given.settings) for mesh, prompt in wanted.items()]
    sheet(trials).save(PICTURE, quality=80)
    print(f"{PICTURE} shows {', '.join(trial.name for trial in trials)}")


if __name__ == "__main__":
    main()

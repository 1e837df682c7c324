"""Seeded mutations of the files that the program reads, and the readers that must tell what is wrong with each.

    python tests/fuzzing.py 1000          # the same as: pytest -m slow tests/test_fuzz.py

A mutation is a function of its number. It passes where the reader returns, or raises an error that is told to the user
in one line (exit code 2), and takes less than LIMIT_SECONDS.
"""

from __future__ import annotations

import io
import json
import random
import struct
import sys
import tempfile
import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from distill3d.cli import is_for_the_user

LIMIT_SECONDS = 20.0  # of the processor's time for one file
TOKENS = (
    "1e400",
    "-1",
    "0",
    "nan",
    "null",
    "[]",
    "{}",
    '"',
    "<",
    "&",
    "%",
    "\x00",
    "9" * 400,
    "../../x",
    "ÿ",
    "[" * 3000,
)


@dataclass(frozen=True)
class Kind:
    """A whole file of some kind, its name, and what reads it."""

    name: str
    whole: bytes
    read: Callable[[Path], object]


def png() -> bytes:
    from PIL import Image

    out = io.BytesIO()
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (12, 16, 4), np.uint8)).save(out, "PNG")
    return out.getvalue()


def transforms() -> bytes:
    frames = [{"file_path": "a.png", "transform_matrix": np.eye(4).tolist(), "fl_y": 20.0, "w": 16} for _ in range(4)]
    return json.dumps({"fl_x": 20.0, "h": 12, "k1": 0.0, "frames": frames}).encode()


SVG = b"""<?xml version="1.0" encoding="UTF-8"?>
<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 64 64" width="64mm">
<style>.a{fill:rgb(1 2 3 / 50%)} @media screen{g > path{stroke:hsl(9 9% 9%)}}</style>
<defs><linearGradient id="g"><stop offset="0" stop-color="#f00"/><stop offset="1" stop-color="oklch(60% .2 20)"/>
</linearGradient><clipPath id="c"><circle cx="9" cy="9" r="30"/></clipPath></defs>
<g clip-path="url(#c)" opacity=".5"><path class="a" d="M1 1C 9 9 20 3 40 40A 5 5 0 0 1 9 9z"/></g>
<symbol id="s" viewBox="0 0 9 9"><rect rx="2" width="9" height="9" fill="url(#g)"/></symbol>
<use href="#s" x="9" width="20" height="20" transform="rotate(20)"/>
<polygon points="1,2 3,4 9,9" stroke="red"/></svg>"""

YAML = b"""name: fuzz
system:
  prompt_processor: {prompt: "a cat"}
  guidance: {guidance_scale: 7.5}
  loss: {lambda_orient: [0, 1.0e-3, 0.1, 400]}
data: {batch_size: 1, width: 32, camera_distance_range: [1.0, 2.0]}
trainer: {max_steps: 10}
system_type: dreamfusion-system
"""

OBJ = b"v 0 0 0 1 0 0\nv 1 0 0 0 1 0\nv 0 1 0 0 0 1\nv 0 0 1\nvt 0 0\nf 1 2 3\nf 1/1 2/1 4/1\nf -4 -2 -1\n"


def glb() -> bytes:
    import trimesh

    return bytes(trimesh.creation.box().export(file_type="glb"))


def checkpoint() -> bytes:
    out = io.BytesIO()
    content = {"state_dict": {"w": torch.ones(64)}, "global_step": 3, "epoch": 0, "loops": {}, "optimizer_states": []}
    torch.save(content | {"distill3d": {"identity": {"system": "x", "scene": "y"}, "version": "0"}}, out)
    return out.getvalue()


def read_posed(path: Path) -> object:
    from distill3d.data.posed.files import load_frame_sets
    from distill3d.data.posed.transforms_json import read_frame_sets

    (path.parent / "a.png").write_bytes(png())
    views = load_frame_sets(read_frame_sets(path, 2), "alpha", "auto", 0.6, 1)[0]
    assert views.images.isfinite().all() and views.cameras.c2w.isfinite().all()
    return views


def read_picture(path: Path) -> object:
    from distill3d.data.image_folder import read_image

    image = read_image(path)
    assert image.isfinite().all() and float(image.abs().max()) <= 1.0
    return image


def read_svg(path: Path) -> object:
    from distill3d.scenes.svg.document import parse_svg
    from distill3d.scenes.svg.scene import SvgScene
    from distill3d.scenes.svg.xml_text import decode

    scene = SvgScene()
    scene.begin(parse_svg(decode(path.read_bytes(), "data.svg"), "data.svg"))
    with torch.no_grad():
        picture = scene.render(24, 24)
    assert picture.isfinite().all()
    return scene.svg()


def read_mesh(path: Path) -> object:
    from distill3d.data.mesh_file import load_mesh_file

    mesh = load_mesh_file(path, detail=8)
    assert np.isfinite(mesh.vertices).all() and np.isfinite(mesh.colors).all()
    assert 0.49 < np.linalg.norm(mesh.vertices, axis=1).max() < 1e3
    return mesh


def read_config(path: Path) -> object:
    from distill3d.config.experiment import load

    return load(path)


def read_saved(path: Path) -> object:
    from distill3d.runtime.checkpoint import check_resumable, read_checkpoint

    content = read_checkpoint(path)
    check_resumable(content, path)
    assert torch.equal(content["state_dict"]["w"], torch.ones(64)), "damage was accepted"
    return content


def read_model(path: Path) -> object:
    from distill3d.priors.model_folder import open_folder

    folder = open_folder(str(path.parent))
    return folder.load_plain("scheduler")


MODEL = json.dumps(
    {
        "_class_name": "StableDiffusionPipeline",
        "scheduler": ["diffusers", "DDPMScheduler"],
        "unet": ["diffusers", "UNet"],
    }
).encode()


def kinds() -> list[Kind]:
    return [
        Kind("transforms.json", transforms(), read_posed),
        Kind("picture.png", png(), read_picture),
        Kind("drawing.svg", SVG, read_svg),
        Kind("mesh.glb", glb(), read_mesh),
        Kind("mesh.obj", OBJ, read_mesh),
        Kind("config.yaml", YAML, read_config),
        Kind("last.ckpt", checkpoint(), read_saved),
        Kind("model_index.json", MODEL, read_model),
    ]


def mutated(whole: bytes, rng: random.Random) -> bytes:
    """One to three changes: bits, cuts, pieces repeated, swapped or replaced by words that are seldom expected."""
    data = bytearray(whole)
    for _ in range(rng.randint(1, 3)):
        place, size = rng.randrange(len(data) + 1), rng.randint(1, 40)
        kind = rng.randrange(7)
        if kind == 0 and data:
            data[place % len(data)] ^= 1 << rng.randrange(8)
        elif kind == 1:
            del data[place : place + size]
        elif kind == 2:
            data[place:place] = data[place : place + size] * rng.randint(1, 50)
        elif kind == 3:
            del data[place:]
        elif kind == 4:
            data[place : place + rng.randint(0, 8)] = rng.choice(TOKENS).encode()
        elif kind == 5:
            data[place:place] = struct.pack("<I", rng.choice((0, 1, 2**31 - 1, 2**32 - 1)))
        else:  # a number of a text
            digits = [i for i, byte in enumerate(data) if chr(byte).isdigit()]
            if digits:
                data[(at := rng.choice(digits)) : at + 1] = rng.choice(TOKENS[:8]).encode()
    return bytes(data)


def attempt(number: int, all_kinds: list[Kind], folder: Path) -> str | None:
    """What is wrong with how mutation ``number`` was taken; None where nothing is."""
    rng = random.Random(number)
    kind = all_kinds[number % len(all_kinds)]
    own = folder / str(number)
    own.mkdir()
    path = own / kind.name
    path.write_bytes(mutated(kind.whole, rng))
    begun, found = time.process_time(), None
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            kind.read(path)
    except Exception as error:  # noqa: BLE001, as it is what a user would see
        if not is_for_the_user(error):
            found = f"mutation {number} of {kind.name}: {type(error).__name__}: {str(error)[:200]}"
    seconds = time.process_time() - begun
    if seconds > LIMIT_SECONDS:
        found = f"mutation {number} of {kind.name} took {seconds:.0f} s"
    return found


def run(numbers: range) -> list[str]:
    """What went wrong with these mutations."""
    with tempfile.TemporaryDirectory() as folder:
        every = kinds()
        return [found for number in numbers if (found := attempt(number, every, Path(folder)))]


if __name__ == "__main__":
    complaints = run(range(int(sys.argv[1]) if len(sys.argv) > 1 else 1000))
    sys.stdout.write("\n".join([*complaints, f"{len(complaints)} complaints\n"]))
    sys.exit(bool(complaints))

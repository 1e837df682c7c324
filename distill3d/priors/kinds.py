"""The kinds of diffusion model, as their model_index.json names them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

KindName = Literal[
    "embedded",
    "stable-diffusion",
    "mvdream",
    "sdxl",
    "deepfloyd-if",
    "sd3",
    "flux",
    "pixart-sigma",
    "z-image",
    "zero123",
]


@dataclass(frozen=True)
class PriorKind:
    """Which components of a diffusers folder a kind uses. ``towers`` pairs each tokenizer with its text encoder."""

    name: KindName
    title: str
    pipelines: tuple[str, ...]  # values of "_class_name"
    network: str
    towers: tuple[tuple[str, str], ...]
    vae: bool = False
    flow: bool = False  # a rectified flow, z = (1 - s) x + s eps, instead of a diffusion
    beside: tuple[str, ...] = ()  # other components that stay with the network
    optional: tuple[str, ...] = ()  # text encoders that a model may leave out
    image_encoder: str | None = None  # in the place of text towers: the condition is a picture

    @property
    def image_components(self) -> tuple[str, ...]:
        return (self.network, "scheduler", *(("vae",) if self.vae else ()), *self.beside)

    @property
    def text_components(self) -> tuple[str, ...]:
        towers = tuple(component for tower in self.towers for component in tower)
        return towers if self.image_encoder is None else (*towers, self.image_encoder)


_ONE = (("tokenizer", "text_encoder"),)
_TWO = (*_ONE, ("tokenizer_2", "text_encoder_2"))
_THREE = (*_TWO, ("tokenizer_3", "text_encoder_3"))

KINDS: tuple[PriorKind, ...] = (
    PriorKind("embedded", "the embedded pixel prior", ("EmbeddedPixelPipeline",), "unet", _ONE),
    PriorKind(
        "stable-diffusion",
        "Stable Diffusion 1.x and 2.x",
        ("StableDiffusionPipeline", "StableDiffusionImg2ImgPipeline"),
        "unet",
        _ONE,
        vae=True,
    ),
    PriorKind("mvdream", "MVDream", ("MVDreamPipeline",), "unet", _ONE, vae=True),
    PriorKind(
        "sdxl",
        "Stable Diffusion XL",
        ("StableDiffusionXLPipeline", "StableDiffusionXLImg2ImgPipeline"),
        "unet",
        _TWO,
        vae=True,
        optional=("text_encoder",),  # the refiner has the second alone
    ),
    PriorKind("deepfloyd-if", "DeepFloyd IF, stage I", ("IFPipeline", "IFImg2ImgPipeline"), "unet", _ONE),
    PriorKind(
        "sd3",
        "Stable Diffusion 3 and 3.5",
        ("StableDiffusion3Pipeline",),
        "transformer",
        _THREE,
        vae=True,
        flow=True,
        optional=("text_encoder_3",),  # T5, for less memory
    ),
    PriorKind("flux", "FLUX.1", ("FluxPipeline",), "transformer", _TWO, vae=True, flow=True),
    PriorKind("pixart-sigma", "PixArt-Sigma", ("PixArtSigmaPipeline",), "transformer", _ONE, vae=True),
    PriorKind("z-image", "Z-Image", ("ZImagePipeline",), "transformer", _ONE, vae=True, flow=True),
    *(
        PriorKind("zero123", "Zero123", pipelines, "unet", (), vae=True, beside=(layer,), image_encoder="image_encoder")
        for pipelines, layer in (
            (("Zero1to3StableDiffusionPipeline",), "cc_projection"),
            (("Zero123Pipeline",), "clip_camera_projection"),
        )
    ),
)


def kind_of(class_name: str) -> PriorKind | None:
    """The kind whose pipeline a model_index.json names, or None."""
    return next((kind for kind in KINDS if class_name in kind.pipelines), None)

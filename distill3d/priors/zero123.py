"""Zero123 and Stable Zero123: latent diffusion that sees one picture of an object, and is told from where to look."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from distill3d.priors.hub import SETTING, PriorError, check_weights, component_patterns
from distill3d.priors.latent import LatentPrior
from distill3d.priors.model_folder import ModelFolder
from distill3d.priors.prompt import encoder_dtype, text_device
from distill3d.priors.settings import PriorConfig, ReferencePicture
from distill3d.runtime.cutout import cut_out, framed
from distill3d.runtime.foreign import reading, user_path
from distill3d.types import Cameras, PromptEmbedding

CLIP_MEAN = (0.48145466, 0.4578275, 0.40821073)  # of the images that CLIP was trained on, red, green, blue
CLIP_STD = (0.26862954, 0.26130258, 0.27577711)
TRAINED_AT = 256  # pixels along a side of Zero123's images


class Zero123Prior(LatentPrior):
    """arXiv 2303.11328: SD's U-Net over the noised latents beside those of the picture, with one token of context.

    The token is ``W [CLIP embedding of the picture, pose] + b`` (`relative_pose`). Where a text is empty both
    conditions are zero, as the model was trained: classifier-free guidance is of picture and pose together.
    """

    pictures_read = 2

    def load_rest(self) -> None:
        super().load_rest()
        self.reference = reference_of(self.cfg)
        self.projection = load_projection(self.folder, self.dtype, self.device)
        (size,) = self._image_sizes()
        picture = on_white(self.reference, size).to(self.device)
        with torch.no_grad():
            self.picture = self.codec.unscaled(self.codec.encode(picture)).to(self.dtype)

    def takes_cameras(self) -> bool:
        return True

    def network_output(
        self, network: Any, z: Tensor, t: Tensor, text: PromptEmbedding, cameras: Cameras | None
    ) -> Tensor:
        if cameras is None or text.mask is None:
            raise PriorError(
                f"{SETTING}={self.folder.name!r} must be told where the camera stands: use it with scenes that have "
                "cameras, as in zero123.yaml, and system.prior.camera_conditioning=auto"
            )
        pose = relative_pose(self.reference, cameras).to(z)
        told = self.projection(torch.cat([text.tokens[:, 0], pose], dim=-1))[:, None]
        kept = text.mask[:, :1].to(z)  # the token alone: VSD adds the camera as one more, which the pose tells already
        seen = torch.cat([z, self.picture * kept[..., None, None]], dim=1)
        return network(seen, t, encoder_hidden_states=told * kept[..., None]).sample


class PictureEmbedding:
    """Zero123's conditions as a `PromptEncoder`: CLIP's embedding of the picture for any text, nothing for none."""

    def __init__(self, folder: ModelFolder, cfg: PriorConfig, device: torch.device | str) -> None:
        device = text_device(cfg, device)
        dtype = encoder_dtype(cfg, device)
        encoder = folder.load_module("image_encoder", dtype, device)
        pixels = clip_input(on_white(reference_of(cfg), TRAINED_AT), encoder.config.image_size)
        with torch.no_grad():
            self.embedding = encoder(pixel_values=pixels.to(device, dtype)).image_embeds.float().cpu()

    def __call__(self, texts: list[str]) -> PromptEmbedding:
        kept = torch.tensor([bool(text.strip()) for text in texts])[:, None]
        return PromptEmbedding((self.embedding * kept)[:, None], kept)


def relative_pose(reference: ReferencePicture, cameras: Cameras) -> Float[Tensor, "B 4"]:
    """What the network is told of a camera: ``[polar - polar', sin(azimuth - azimuth'), cos(...), fourth]``, radians.

    Primed are those of the picture; polar angles are from straight above. The fourth is how much farther the camera
    is than the picture's (Zero123), or the picture's polar angle (Stable Zero123).
    """
    climb = torch.deg2rad(reference.elevation_deg - cameras.elevation_deg)
    turn = torch.deg2rad(cameras.azimuth_deg - reference.azimuth_deg)
    fourth = cameras.distance - reference.distance
    if reference.pose == "polar":
        fourth = torch.deg2rad(torch.full_like(fourth, 90.0 - reference.elevation_deg))
    return torch.stack([climb, turn.sin(), turn.cos(), fourth], dim=-1)


def clip_input(picture: Float[Tensor, "B 3 H W"], size: int) -> Float[Tensor, "B 3 s s"]:
    """As Zero123 resizes for CLIP: bicubic between the corners' centres, without smoothing."""
    small = F.interpolate(picture, (size, size), mode="bicubic", align_corners=True)
    mean, std = (picture.new_tensor(values)[:, None, None] for values in (CLIP_MEAN, CLIP_STD))
    return (small - mean) / std


def on_white(reference: ReferencePicture, size: int) -> Float[Tensor, "1 3 s s"]:
    """The picture, cut out and before white, in [0, 1]. Raises ValueError."""
    path = user_path(str(reference.image))
    picture = cut_out(path, reference.background_removal, "system.prior.reference.image")
    rgb, alpha = framed(picture, size, reference.fill)
    return (rgb + 1.0 - alpha)[None]


def reference_of(cfg: PriorConfig) -> ReferencePicture:
    """Raises PriorError where it is not set."""
    if cfg.reference is None or not cfg.reference.image:
        raise PriorError(
            "system.prior.reference.image is not set, and Zero123 shows other sides of one picture: set it, as in "
            "zero123.yaml, where it is ${data.image}"
        )
    return cfg.reference


def load_projection(folder: ModelFolder, dtype: torch.dtype, device: torch.device) -> nn.Linear:
    """The layer from CLIP's embedding and the pose to the token, whatever its pipeline calls it."""
    from safetensors.torch import load_file

    (component,) = folder.kind.beside
    check_weights(folder.path, component, folder.variant, folder.name, folder.revision)
    patterns = [p for p in component_patterns(component, folder.variant) if p.endswith(".safetensors")]
    (path, *_) = [path for pattern in patterns for path in sorted(folder.path.glob(pattern))]
    with reading(path, "a linear layer", "fetch it again", SETTING):
        tensors = load_file(path)
    found = {name.rpartition(".")[2]: value for name, value in tensors.items()}
    if set(found) != {"weight", "bias"} or found["weight"].ndim != 2:
        raise PriorError(f"{SETTING}={folder.name!r}: {path} is no linear layer; it has {', '.join(sorted(tensors))}")
    layer = nn.Linear(found["weight"].shape[1], found["weight"].shape[0])
    layer.load_state_dict(found)
    return layer.to(device, dtype).requires_grad_(False)

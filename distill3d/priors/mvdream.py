"""MVDream: a latent diffusion model that sees four views of one object at once, and where their cameras stand."""

from __future__ import annotations

from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from distill3d.priors.hub import SETTING, PriorError, check_weights
from distill3d.priors.latent import LatentPrior
from distill3d.priors.model_folder import ModelFolder
from distill3d.priors.quantised import has_authors_network
from distill3d.priors.settings import Bits
from distill3d.priors.single_file import CAMERA_DIM, MULTIVIEW, UNET, SingleFile, read_tensors, with_class_labels
from distill3d.types import Cameras, PromptEmbedding

N_VIEW = 4  # that the published models were trained on


class MVDreamPrior(LatentPrior):
    """Stable Diffusion's U-Net with self-attention over the views, and their cameras added to the time (2308.16512).

    Rows of a pass are sets of four views. ``camera_conditioning: none`` leaves Stable Diffusion's own network: each
    row alone, no camera, as in the share of its training that had single images.
    """

    def load_network_module(self, device: torch.device) -> Any:
        network = multiview_network(self.folder, self.dtype, device, self.cfg.network_bits)
        if self.cfg.camera_conditioning == "none":
            network.class_embedding = None
        else:
            look_across_views(network, N_VIEW)
        return network

    def takes_cameras(self) -> bool:
        return True

    def n_view(self) -> int:
        return 1 if self.cfg.camera_conditioning == "none" else N_VIEW

    def network_output(
        self, network: Any, z: Tensor, t: Tensor, text: PromptEmbedding, cameras: Cameras | None
    ) -> Tensor:
        if self.cfg.camera_conditioning == "none":
            return super().network_output(network, z, t, text, None)
        if cameras is None or len(z) % N_VIEW:
            raise PriorError(
                f"{SETTING}={self.folder.name!r} sees sets of {N_VIEW} views and their cameras, and was given {len(z)} "
                f"images with{'out' if cameras is None else ''} cameras: set data.n_view={N_VIEW} and data.batch_size "
                "to a multiple of it (dreamfusion-mvdream.yaml does), or system.prior.camera_conditioning=none"
            )
        labels = camera_matrices(cameras.c2w).to(z)
        return network(z, t, encoder_hidden_states=text.tokens, class_labels=labels).sample


def multiview_network(folder: ModelFolder, dtype: torch.dtype, device: torch.device, bits: Bits | None = None) -> Any:
    """The U-Net of an MVDream folder or file as diffusers' own class, which takes the camera as its class label.

    A folder may hold diffusers' class with such a label, or the authors' MultiViewUNetModel, whose tensors and config
    have the names of LDM. Raises PriorError for a network without an embedding of 16 numbers of a camera.
    """
    if not isinstance(folder, SingleFile) and has_authors_network(folder.index):
        return _from_ldm(folder, dtype, device)
    network = folder.load_module("unet", dtype, device, bits)
    found = network.config.class_embed_type, network.config.projection_class_embeddings_input_dim
    if found != ("projection", CAMERA_DIM):
        raise PriorError(
            f"{SETTING}={folder.name!r}: its U-Net has class_embed_type, projection_class_embeddings_input_dim = "
            f"{found[0]}, {found[1]}; MVDream's are projection, {CAMERA_DIM}, the numbers of a camera matrix"
        )
    return network


def _from_ldm(folder: ModelFolder, dtype: torch.dtype, device: torch.device) -> Any:
    from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel

    own = folder.config("unet")
    check_weights(folder.path, "unet", folder.variant, folder.name, folder.revision)
    dotted = f".{folder.variant}" if folder.variant else ""
    file = folder.path / "unet" / f"diffusion_pytorch_model{dotted}.safetensors"
    tensors = with_class_labels({f"{UNET}{name}": value for name, value in read_tensors(file).items()})
    label = {"num_classes": "sequential", "adm_in_channels": own.get("camera_dim")}
    given = {name: value for name, value in own.items() if (name, value) != ("num_heads", -1)}
    params = {**given, **label, "use_linear_in_transformer": True}
    halvings = {"ch_mult": [1] * len(folder.config("vae").get("block_out_channels", ()))}
    original = {"params": {"unet_config": {"params": params}, "first_stage_config": {"params": {"ddconfig": halvings}}}}
    cls: Any = UNet2DConditionModel  # its type knows files alone, its text says that tensors do too
    try:
        network = cls.from_single_file(
            tensors, original_config={"model": original}, torch_dtype=dtype, local_files_only=True
        )
        network.register_to_config(sample_size=own.get("image_size", MULTIVIEW["sample_size"]))
        return network.eval().requires_grad_(False).to(device)
    except Exception as error:
        raise folder.broken("unet", error) from error


def camera_matrices(c2w: Float[Tensor, "B 4 4"]) -> Float[Tensor, "B 16"]:
    """Camera-to-world matrices row by row, with the camera's position moved onto the unit sphere.

    World z up, the object's front towards +x; camera OpenGL (x right, y up, looking along -z): the frames of
    `distill3d.types` are those that the model was trained on, so nothing is turned.
    """
    flat = c2w.clone()
    flat[:, :3, 3] = c2w[:, :3, 3] / (c2w[:, :3, 3].norm(dim=1, keepdim=True) + 1e-8)
    return flat.flatten(1)


def look_across_views(network: Any, n_view: int) -> None:
    """Have each self-attention of a diffusers U-Net see the tokens of ``n_view`` rows as one sequence."""
    processors = network.attn_processors
    across = {name: ViewAttention(one, n_view) for name, one in processors.items() if name.endswith("attn1.processor")}
    network.set_attn_processor({**processors, **across})


class ViewAttention:
    """An attention processor on ``(sets views) tokens channels`` seen as ``sets (views tokens) channels``."""

    def __init__(self, processor: Any, n_view: int) -> None:
        self.processor, self.n_view = processor, n_view

    def __call__(
        self, attn: Any, hidden_states: Float[Tensor, "B N C"], encoder_hidden_states: None = None, **rest: Any
    ) -> Float[Tensor, "B N C"]:
        across = hidden_states.unflatten(0, (-1, self.n_view)).flatten(1, 2)
        answer = self.processor(attn, across, encoder_hidden_states, **rest)
        return answer.unflatten(1, (self.n_view, -1)).flatten(0, 1)

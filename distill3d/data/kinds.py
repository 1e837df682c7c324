"""Which data module a system can work with, told before a run."""

from __future__ import annotations

from typing import Any, TypeVar

from distill3d.config.check import ConfigError
from distill3d.runtime.protocols import CaptionedImages, SeenAround

T = TypeVar("T")


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

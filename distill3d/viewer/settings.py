"""Settings of the live viewer."""

from __future__ import annotations

import importlib.util
from dataclasses import dataclass

from distill3d.config.check import ConfigError


@dataclass
class ViewerSettings:
    """``viewer`` of an experiment, and the settings of --view."""

    enable: bool = False  # a page beside training, on which to see the scene grow
    host: str = "127.0.0.1"  # this machine alone; 0.0.0.0 lets everyone on the network look, pause and export
    port: int = 8080  # the next free one, if it is taken
    share: float = 0.08  # of the time, at most, goes into views while someone looks
    largest: int = 384  # longer side of a view in pixels, where the device is fast enough

    def __post_init__(self) -> None:
        if not 0.0 < self.share <= 1.0:
            raise ValueError(f"share={self.share} must be in (0, 1]: the part of the time that views may take")
        if not 1 <= self.port < 65536:
            raise ValueError(f"port={self.port} must be between 1 and 65535")
        if self.largest < 64:
            raise ValueError(f"largest={self.largest} must be at least 64 pixels")


def require(package: str, what: str, extra: str = "viewer") -> None:
    """Raise ConfigError, with the command that installs it, where an extra's package is missing."""
    if importlib.util.find_spec(package) is None:
        install = f"pip install -r requirements-{extra}.txt (or: pip install 'distill3d[{extra}]')"
        raise ConfigError(f"{what} needs the package {package}, which is not installed: {install}")

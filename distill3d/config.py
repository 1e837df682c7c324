"""Experiments from YAML: load, merge, check, snapshot."""

from __future__ import annotations

from distill3d.config_check import ConfigError, build

__all__ = ["ConfigError", "build"]

"""What random cameras and lights are drawn from, with settings left null filled in from the prior's own cameras."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields, make_dataclass
from pathlib import Path
from typing import Any, get_type_hints

from distill3d.camera import CameraRanges, ranges_of
from distill3d.config.check import ConfigError, build
from distill3d.config.files import EMBEDDED_WEIGHTS
from distill3d.config.ranges import check_least
from distill3d.light import LightStrategy
from distill3d.runtime.foreign import ForeignFileError, read_json, user_path


@dataclass(frozen=True)
class ViewDistribution(CameraRanges):
    """Cameras and lights of the training views; the defaults are DreamFusion's (arXiv 2209.14988, appendix A.2)."""

    light_sample_strategy: LightStrategy = "dreamfusion"
    light_position_perturb: float = 1.0
    light_distance_range: tuple[float, float] = (0.8, 1.5)

    def __post_init__(self) -> None:
        super().__post_init__()
        low, high = self.light_distance_range
        if low > high:
            raise ValueError(f"light_distance_range={[low, high]} must be [low, high]")
        if low <= 0:
            raise ValueError(f"light_distance_range={[low, high]} must be positive distances in world units")
        check_least(self, light_position_perturb=0)

    @property
    def camera_ranges(self) -> CameraRanges:
        """The cameras alone."""
        return CameraRanges(**{f.name: getattr(self, f.name) for f in fields(CameraRanges)})


# each setting of ViewDistribution, or null: the prior's own
NullableViewDistribution = make_dataclass(
    "NullableViewDistribution", [(name, hint | None, None) for name, hint in get_type_hints(ViewDistribution).items()]
)


def view_distribution(given: Mapping[str, Any], like: Path | None, where: str = "data") -> ViewDistribution:
    """Settings that are not None, then those of ``like``, then DreamFusion's.

    ``like`` holds a cameras.json, or posed views, whose cameras give the ranges.

    Raises ConfigError for a cameras.json that is no JSON or holds a wrong value; keys that are no settings of the
    distribution (a note, a source) are passed over.
    """
    names = [f.name for f in fields(ViewDistribution)]
    chosen = {name: given[name] for name in names if given.get(name) is not None}
    learned = learned_cameras(like) if like is not None else {}
    learned = {name: learned[name] for name in names if learned.get(name) is not None}
    build(ViewDistribution, learned, f"{like}/cameras.json")  # so that a mistake there names that file
    return build(ViewDistribution, {**learned, **chosen}, where)


def learned_cameras(folder: Path) -> dict[str, Any]:
    """The mapping in cameras.json, or the ranges of posed views; empty where there is neither. Raises ConfigError."""
    learned = read_cameras_json(folder)
    if learned or not any((folder / name).is_file() for name in ("transforms_train.json", "transforms.json")):
        return learned
    from distill3d.data.posed.files import training_views

    try:
        return vars(ranges_of(training_views(folder, "data.cameras_like").cameras))
    except ValueError as error:
        raise ConfigError(str(error), "data.cameras_like") from error


def read_cameras_json(folder: Path) -> dict[str, Any]:
    """The mapping in a folder's cameras.json; empty where there is none. Raises ConfigError if it cannot be read."""
    path = folder / "cameras.json"
    if not path.is_file():
        return {}
    try:
        mapping = read_json(path)
    except ForeignFileError as error:
        raise ConfigError(f"{path} is no JSON ({error}); repair it, or set data.cameras_like=null") from error
    if not isinstance(mapping, dict):
        raise ConfigError(f"{path} must hold a mapping of camera settings; repair it, or set data.cameras_like=null")
    return mapping


def cameras_folder(like: str | list[str] | None) -> Path | None:
    """The folder that ``data.cameras_like`` names ("embedded", or a path; the first of several), None if it is gone."""
    name = next(iter(like), None) if isinstance(like, list) else like
    if not name:
        return None
    if name == "embedded":
        return EMBEDDED_WEIGHTS
    path = user_path(name)
    return path if path.is_dir() else None

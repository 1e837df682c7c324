"""What a scene is: parameters that become images, whatever prior and guidance look at them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from copy import deepcopy
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, Literal, Protocol

import torch
from jaxtyping import Float
from torch import Tensor, nn

from distill3d.runtime.rng import Stream, rng
from distill3d.scenes.mesh.fixed import FixedMesh
from distill3d.types import Cameras, FieldSample, Light, RenderOutput, ShadingMode


class NoSurfaceError(ValueError):
    """A scene that has no surface to extract; the message says what it exports instead."""


@dataclass(frozen=True)
class Step:
    """One step of training, as a scene sees it."""

    number: int
    seed: int = 0
    rank: int = 0  # of the device and the accumulated batch: each draws numbers of its own
    losses: frozenset[str] = frozenset()  # names of the terms whose weight is not 0

    def rng(self, stream: Stream, offset: int = 0) -> torch.Generator:
        """The generator of a stream for this step."""
        return rng(stream, self.seed, self.number, self.rank + offset)


@dataclass(frozen=True)
class Views:
    """What a scene shows in one step.

    ``terms`` are the scene's own losses by name, unweighted, and computed where their weight is not 0:
    ``system.loss.lambda_<name>`` weighs them, and a term that the loss settings do not know is added as it is.
    ``copies``: rows that each image stands for, each with a time and a noise of its own.
    """

    images: Float[Tensor, "B C H W"]  # colours in [0, 1], or the prior's own x where ``encoded``
    cameras: Cameras | None = None
    shading: tuple[ShadingMode, ...] | None = None  # of each view
    terms: Mapping[str, Callable[[], Tensor]] = field(default_factory=dict)
    opacity: Float[Tensor, "B 1 H W"] | None = None
    encoded: bool = False
    copies: int = 1


class Field(Protocol):
    """Density and colour in space; it fills at most the cube ``[-radius, radius]^3``."""

    @property
    def radius(self) -> float: ...

    def density(self, points: Float[Tensor, "P 3"]) -> Float[Tensor, "P"]: ...

    def sample(self, points: Float[Tensor, "P 3"], need_normal: bool) -> FieldSample: ...


@dataclass(frozen=True)
class Solid:
    """What a mesh is extracted from: a field, the bound within which it is drawn, and how it is looked at.

    ``threshold`` (a density or "auto") and ``resolution`` are settings that the scene keeps for the exporter.
    """

    geometry: Any  # a `Field`
    radius: float
    render: Callable[..., RenderOutput]  # as `Scene.preview`
    bound: Literal["box", "sphere"] = "box"
    threshold: float | str | None = None
    resolution: int | None = None
    renderer: nn.Module | None = None  # what draws the field, where that can be trained on
    mesh: FixedMesh | None = None  # where the surface is known: it is written as it is, in the field's colours
    gaussians: bytes | None = None  # a .splat of what the field is made of, for the viewer


class Scene(nn.Module):
    """Base of all scenes: a subclass has `views`, and of the rest what it needs."""

    @dataclass
    class Config:
        pass

    has_cameras: ClassVar[bool] = False  # whether `preview` shows it from any camera
    # settings of the optimiser by the name of a part or a parameter, which the user's go before
    optimizer_defaults: ClassVar[Mapping[str, Mapping[str, Any]]] = {}
    # settings of a NeRF's parts, written beside the scene's (system.material, ...), that this scene takes, too
    shared_settings: ClassVar[tuple[str, ...]] = ()
    # what to change where the scene is "empty", is "full", or fills its "bounds"; those not named are a NeRF's
    remedies: ClassVar[Mapping[str, str]] = {}

    def __init__(self, cfg: Any = None) -> None:
        super().__init__()
        self.cfg = cfg

    def views(self, batch: Any, step: Step) -> Views:
        """What is distilled in this step; carries a graph to the parameters."""
        raise NotImplementedError

    def check(self) -> None:
        """Read what the scene begins with, so that a mistake in it is found before anything is written."""

    def prepare(self, seed: int) -> None:
        """Take what a training begins with from its files; a checkpoint, where there is one, is loaded afterwards."""

    def fitted(self, cameras: Cameras, step: Step, need_normal: bool = False) -> RenderOutput:
        """Albedo with a graph, to be fitted to pictures."""
        raise NotImplementedError(f"a {type(self).__name__} cannot be fitted to pictures; set system.scene_type=nerf")

    def backdrop(self, cameras: Cameras, step: Step | None = None) -> Float[Tensor, "B 3 H W"]:
        """What is behind each view of `fitted`."""
        raise NotImplementedError(f"a {type(self).__name__} has no background of its own")

    def before_step(self, step: Step) -> None:
        """Before the views of a training step are made: schedules, occupancy."""

    def after_backward(self, optimizer: torch.optim.Optimizer, step: Step) -> None:
        """After the optimiser's step, while the gradients are still there: constraints, growing and pruning."""

    @property
    def radius(self) -> float | None:
        """Of the ball that a scene with cameras may fill, in world units; None where it has no bounds."""
        return None

    def parameter_groups(self) -> dict[str, nn.Module]:
        """Modules by the names that ``optimizer.params`` knows. A dotted name reaches parts and single parameters."""
        return {"scene": self}

    def preview(
        self,
        cameras: Cameras,
        light: Light | None = None,
        shading: ShadingMode = "albedo",
        background: Tensor | None = None,
        need_normal: bool = True,
    ) -> RenderOutput:
        """Views to look at: without gradient, jitter or augmentation. ``background`` replaces the scene's own."""
        raise NotImplementedError

    def surface(self) -> Solid:
        """What the exporter extracts a mesh from. Raises NoSurfaceError."""
        raise NoSurfaceError(f"a {type(self).__name__} has no surface")

    def original(self) -> Any:
        """A frozen copy of the scene as it is: what an edit of it is compared with. None of it is shared."""
        return deepcopy(self).requires_grad_(False)

    def export(self, folder: Path) -> list[Path]:
        """Write the scene in a format of its own, and return the files."""
        return []

    def state_for(self, state: Mapping[str, Tensor]) -> None:
        """Take the sizes of a checkpoint's tensors, whose names are the scene's own, before they are loaded."""

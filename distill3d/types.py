"""The dataclasses on the arrows of the loop: the only vocabulary that the rooms share.

World frame: right-handed, z up; azimuth 0 looks at the front, from +x; azimuth grows towards +y.
Camera frame: OpenGL (x right, y up, looking along -z). Images are ``B C H W``, colours in [0, 1].
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

ShadingMode = Literal["albedo", "lambertian", "textureless", "normal"]
SHADING_MODES: tuple[ShadingMode, ...] = ("albedo", "lambertian", "textureless", "normal")


@dataclass(frozen=True)
class Rays:
    """World-space rays through pixel centres; directions have unit length."""

    origins: Float[Tensor, "B H W 3"]
    directions: Float[Tensor, "B H W 3"]


@dataclass(frozen=True)
class Cameras:
    """A batch of pinhole cameras that share one image size.

    The spherical coordinates are those that were drawn, before any perturbation of the pose.
    """

    c2w: Float[Tensor, "B 4 4"]
    fovy_rad: Float[Tensor, "B"]
    elevation_deg: Float[Tensor, "B"]
    azimuth_deg: Float[Tensor, "B"]  # in [-180, 180)
    distance: Float[Tensor, "B"]
    height: int
    width: int

    def __len__(self) -> int:
        return self.c2w.shape[0]

    @property
    def position(self) -> Float[Tensor, "B 3"]:
        return self.c2w[:, :3, 3]

    def to(self, device: torch.device | str) -> Cameras:
        return self._map(lambda x: x.to(device))

    def __getitem__(self, rows: Any) -> Cameras:
        """Views by a slice, a list or an index tensor (never a bare int, which would drop the batch dimension)."""
        return self._map(lambda x: x[rows])

    @staticmethod
    def cat(parts: Sequence[Cameras]) -> Cameras:
        """The rows of all, in order. Raises ValueError where their image sizes differ."""
        sizes = {(part.height, part.width) for part in parts}
        if len(sizes) > 1:
            raise ValueError(f"cameras of different image sizes cannot share a batch: {sorted(sizes)}")
        first = parts[0]
        joined = {k: torch.cat([getattr(p, k) for p in parts]) for k, v in vars(first).items() if isinstance(v, Tensor)}
        return Cameras(**joined, height=first.height, width=first.width)

    def _map(self, function: Any) -> Cameras:
        return Cameras(**{k: function(v) if isinstance(v, Tensor) else v for k, v in vars(self).items()})


@dataclass(frozen=True)
class Light:
    """One point light for each camera."""

    position: Float[Tensor, "B 3"]

    def to(self, device: torch.device | str) -> Light:
        return Light(self.position.to(device))

    def __getitem__(self, rows: Any) -> Light:
        """Lights by a slice, a list or an index tensor."""
        return Light(self.position[rows])


@dataclass(frozen=True)
class RaySamples:
    """Intervals along flattened rays, packed: sample i lies on ray ``ray_index[i]``; sorted by ray, then distance."""

    ray_index: Int[Tensor, "samples"]
    t_start: Float[Tensor, "samples"]
    t_end: Float[Tensor, "samples"]
    ray_count: int

    def __len__(self) -> int:
        return self.t_start.shape[0]


@dataclass(frozen=True)
class FieldSample:
    """What a field answers at points: density in inverse world units, display-referred albedo, outward unit normal."""

    density: Float[Tensor, "points"]
    albedo: Float[Tensor, "points 3"]
    normal: Float[Tensor, "points 3"] | None


@dataclass(frozen=True)
class RenderOutput:
    """Rendered images, and the packed samples that the regularisers read."""

    rgb: Float[Tensor, "B 3 H W"]  # composited over the background
    opacity: Float[Tensor, "B 1 H W"]
    depth: Float[Tensor, "B 1 H W"]  # expected distance along the ray; 0 where nothing was hit
    normal: Float[Tensor, "B 3 H W"] | None  # opacity-weighted world normal, in [-1, 1]
    shading: ShadingMode
    samples: RaySamples | None = None
    weights: Float[Tensor, "samples"] | None = None
    sample_normals: Float[Tensor, "samples 3"] | None = None
    sample_directions: Float[Tensor, "samples 3"] | None = None  # the ray's, away from the camera
    nearby_normals: Float[Tensor, "samples 3"] | None = None  # at a random point near each sample


@dataclass(frozen=True)
class PromptEmbedding:
    """Text as a diffusion model reads it: one row per prompt."""

    tokens: Float[Tensor, "B N C"]
    mask: Bool[Tensor, "B N"] | None = None
    pooled: Float[Tensor, "B D"] | None = None

    def __len__(self) -> int:
        return self.tokens.shape[0]

    def _map(self, function: Any) -> PromptEmbedding:
        rest = (None if x is None else function(x) for x in (self.mask, self.pooled))
        return PromptEmbedding(function(self.tokens), *rest)

    def to(self, device: torch.device | str | None = None, dtype: torch.dtype | None = None) -> PromptEmbedding:
        """On a device, with tokens and pooled in a precision; the mask stays boolean."""
        return self._map(lambda x: x.to(device=device, dtype=dtype if x.is_floating_point() else None))

    def __getitem__(self, rows: Any) -> PromptEmbedding:
        """Rows by an index tensor, a list or a slice (never a bare int, which would drop the batch dimension)."""
        return self._map(lambda x: x[rows])

    @staticmethod
    def cat(parts: list[PromptEmbedding]) -> PromptEmbedding:
        """The rows of all, in order; pooled text that says less than another's ends in zeros."""

        def joined(name: str) -> Tensor | None:
            tensors = [getattr(part, name) for part in parts]
            if tensors[0] is None:
                return None
            width = max(tensor.shape[-1] for tensor in tensors)
            if any(tensor.shape[-1] < width for tensor in tensors):
                tensors = [F.pad(tensor, (0, width - tensor.shape[-1])) for tensor in tensors]
            return torch.cat(tensors)

        return PromptEmbedding(torch.cat([part.tokens for part in parts]), joined("mask"), joined("pooled"))


@dataclass(frozen=True)
class Prompt:
    """What the user asked for. ``views`` maps front, side, back, overhead to the prompt with that view's words."""

    text: str
    negative: str = ""
    source: str | None = None  # what an edit starts from
    views: Mapping[str, str] = field(default_factory=dict)

    @property
    def tells_views(self) -> bool:
        """Whether the texts of different views differ."""
        return len(set(self.views.values())) > 1


@dataclass(frozen=True)
class TextRequest:
    """One role's text; with ``per_view`` the prompt processor adds the view words of each camera."""

    text: str
    per_view: bool = False


@dataclass(frozen=True)
class Pass:
    """One evaluation of the diffusion network on B rows. A prior that takes no cameras ignores them."""

    z: Float[Tensor, "B C h w"]
    t: Int[Tensor, "B"]
    text: PromptEmbedding
    adapter: nn.Module | None = None
    cameras: Cameras | None = None


@dataclass(frozen=True)
class Prediction:
    """The network's answer in both forms, each computed from its native output, never by dividing by a small alpha."""

    noise: Float[Tensor, "B C h w"]
    x0: Float[Tensor, "B C h w"]


@dataclass(frozen=True)
class GuidanceInput:
    """What a guidance sees: ``x``, the encoded render, may carry a graph; ``source`` is an edit's original, encoded."""

    x: Float[Tensor, "B C h w"]
    texts: Mapping[str, PromptEmbedding]  # role -> B rows
    step: int
    max_steps: int
    generator: torch.Generator
    cameras: Cameras | None = None
    source: Float[Tensor, "B C h w"] | None = None
    seed: int = 0  # of the run: what noise depends on that is fixed for all steps


@dataclass(frozen=True)
class GuidanceOutput:
    """The gradient of the distillation loss with respect to x, before the division by B."""

    grad: Float[Tensor, "B C h w"]
    own_loss: Tensor | None = None  # trains the guidance's own parameters; never reaches x
    diagnostics: Mapping[str, float | Tensor] = field(default_factory=dict)

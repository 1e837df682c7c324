"""A scene in one file: Gaussians that split where they are needed (after arXiv 2308.04079), in plain torch.

They are round and have one colour each; a step at 64x64 with 500 of them takes a tenth of a second on a CPU core.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import torch
from jaxtyping import Float
from torch import Tensor, nn

from distill3d.config.registry import register
from distill3d.runtime.files import write_atomically
from distill3d.scenes.base import Scene, Solid, Step, Views
from distill3d.scenes.nerf.losses import opaque_loss, sparsity_loss
from distill3d.scenes.rows import change_rows, take_sizes
from distill3d.types import Cameras, FieldSample, Light, RenderOutput, ShadingMode

SHRINK = 1.6  # of the two halves of a Gaussian that is split
SH0 = 0.28209479177387814  # the constant spherical harmonic, by which PLY files of Gaussians divide colours


@register("scene", "gaussians")
class GaussianScene(Scene):
    """Isotropic Gaussians of one colour each; those with the largest gradients are split, transparent ones pruned."""

    @dataclass
    class Config:
        count: int = 400
        max_count: int = 1000
        radius: float = 0.5  # of the ball that they begin in, and that bounds the surface; world units
        size: float = 0.06  # standard deviation at the start, world units
        opacity: float = 0.3  # at the start
        background: tuple[float, float, float] = (0.5, 0.5, 0.5)
        densify_every: int = 50
        densify_until: int = 500
        split_share: float = 0.1  # of all Gaussians, each time
        min_opacity: float = 0.02  # fainter ones are pruned

    has_cameras = True
    optimizer_defaults: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        "means": {"lr": 0.003},
        "sizes": {"lr": 0.02},
        "opacities": {"lr": 0.05},
        "colours": {"lr": 0.02},
    }

    def __init__(self, cfg: Config) -> None:
        super().__init__(cfg)
        direction = nn.functional.normalize(torch.randn(cfg.count, 3), dim=1)
        self.means = nn.Parameter(cfg.radius * direction * torch.rand(cfg.count, 1) ** (1 / 3))
        self.sizes = nn.Parameter(torch.full((cfg.count,), math.log(cfg.size)))
        self.opacities = nn.Parameter(torch.full((cfg.count,), math.log(cfg.opacity / (1 - cfg.opacity))))
        self.colours = nn.Parameter(torch.zeros(cfg.count, 3))
        self.register_buffer("pull", torch.zeros(cfg.count))  # sums of gradient norms since the last change of rows
        self.pull: Tensor

    def rows(self) -> dict[str, nn.Parameter]:
        return {"means": self.means, "sizes": self.sizes, "opacities": self.opacities, "colours": self.colours}

    @property
    def radius(self) -> float:
        return self.cfg.radius

    # -- views -----------------------------------------------------------------------------------------------------

    def views(self, batch: Any, step: Step) -> Views:
        seen = [self._draw(batch.cameras[slice(i, i + 1)], self.colours.sigmoid()) for i in range(len(batch.cameras))]
        rgb, opacity = (torch.cat(parts) for parts in zip(*seen, strict=True))
        image = rgb + (1.0 - opacity) * self._behind(None, rgb)
        terms = {"sparsity": lambda: sparsity_loss(opacity), "opaque": lambda: opaque_loss(opacity)}
        return Views(image, batch.cameras, terms=terms, opacity=opacity)

    @torch.no_grad()
    def preview(
        self,
        cameras: Cameras,
        light: Light | None = None,
        shading: ShadingMode = "albedo",
        background: Tensor | None = None,
        need_normal: bool = True,
    ) -> RenderOutput:
        """Unlit; every shading but the albedo is plain grey."""
        colours = self.colours.sigmoid() if shading == "albedo" else torch.full_like(self.colours, 0.8)
        seen = [self._draw(cameras[slice(i, i + 1)], colours) for i in range(len(cameras))]
        rgb, opacity = (torch.cat(parts) for parts in zip(*seen, strict=True))
        image = rgb + (1.0 - opacity) * self._behind(background, rgb)
        return RenderOutput(image, opacity, torch.zeros_like(opacity), None, shading)

    def _behind(self, background: Tensor | None, like: Tensor) -> Float[Tensor, "3 1 1"]:
        colour = like.new_tensor(self.cfg.background) if background is None else background.to(like)
        return colour.view(3, 1, 1)

    def _draw(self, camera: Cameras, colours: Float[Tensor, "N 3"]) -> tuple[Tensor, Tensor]:
        """Premultiplied colour and opacity of one view, nearest Gaussian first."""
        c2w, height, width = camera.c2w[0], camera.height, camera.width
        local = (self.means - c2w[:3, 3]) @ c2w[:3, :3]  # x right, y up, looking along -z
        depth = -local[:, 2]
        order = depth.detach().argsort()
        order = order[depth[order] > 0.05]
        focal = 0.5 * height / torch.tan(0.5 * camera.fovy_rad[0])
        scale = focal / depth[order]
        x, y = 0.5 * width + local[order, 0] * scale, 0.5 * height - local[order, 1] * scale
        deviation = (self.sizes[order].exp() * scale).clamp_min(0.3)  # pixels
        rows, columns = (torch.arange(n, device=x.device) + 0.5 for n in (height, width))
        across = (-0.5 * ((columns - x[:, None]) / deviation[:, None]).square()).exp()  # a round Gaussian is a product
        down = (-0.5 * ((rows - y[:, None]) / deviation[:, None]).square()).exp()
        alpha = (self.opacities[order].sigmoid()[:, None, None] * down[:, :, None] * across[:, None]).clamp_max(0.99)
        passed = torch.cat([torch.ones_like(alpha[:1]), (1.0 - alpha).cumprod(0)])
        rgb = torch.einsum("nhw,nc->chw", passed[:-1] * alpha, colours[order])
        return rgb[None], (1.0 - passed[-1])[None, None]

    # -- growing and pruning -----------------------------------------------------------------------------------------

    @torch.no_grad()
    def after_backward(self, optimizer: torch.optim.Optimizer, step: Step) -> None:
        if self.means.grad is not None:
            self.pull += self.means.grad.norm(dim=1)
        done = step.number + 1
        if done % self.cfg.densify_every == 0 and done <= self.cfg.densify_until:
            self._densify(optimizer, step.rng("scene"))

    def _densify(self, optimizer: torch.optim.Optimizer, generator: torch.Generator) -> None:
        alive = self.opacities.sigmoid() > self.cfg.min_opacity
        room = self.cfg.max_count - int(alive.sum())
        count = max(0, min(math.ceil(self.cfg.split_share * len(self.means)), room))
        chosen = torch.where(alive, self.pull, -1.0).topk(min(count, int(alive.sum()))).indices
        keep = alive.clone()
        keep[chosen] = False
        halves = {name: torch.cat([values[chosen]] * 2) for name, values in self.rows().items()}
        shift = torch.randn(halves["means"].shape, generator=generator).to(self.means)
        halves["means"] = halves["means"] + shift * halves["sizes"].exp()[:, None]
        halves["sizes"] = halves["sizes"] - math.log(SHRINK)
        change_rows(optimizer, self.rows(), keep.nonzero()[:, 0], halves)
        self.pull = self.means.new_zeros(len(self.means))

    def state_for(self, state: Mapping[str, Tensor]) -> None:
        take_sizes(self, state)

    # -- as a solid, and as a file -----------------------------------------------------------------------------------

    def surface(self) -> Solid:
        return Solid(self, self.cfg.radius, self.preview, "sphere")

    def density(self, points: Float[Tensor, "P 3"]) -> Float[Tensor, "P"]:
        return self.sample(points, False).density

    def sample(self, points: Float[Tensor, "P 3"], need_normal: bool) -> FieldSample:
        """Such that a ray through the middle of a Gaussian has its opacity; colours are averages by density."""
        size, parts = self.sizes.exp(), []
        peak = -(1.0 - self.opacities.sigmoid().clamp_max(0.99)).log() / (size * math.sqrt(2.0 * math.pi))
        for chunk in points.split(1 << 13):
            each = peak * (-0.5 * (torch.cdist(chunk, self.means) / size).square()).exp()
            total = each.sum(1, keepdim=True)
            parts.append(torch.cat([total, each @ self.colours.sigmoid() / total.clamp_min(1e-12)], dim=1))
        both = torch.cat(parts) if parts else points.new_zeros(0, 4)
        return FieldSample(both[:, 0], both[:, 1:], None)

    def export(self, folder: Path) -> list[Path]:
        """gaussians.ply, as viewers of Gaussians read it."""
        many = lambda name, count: [f"{name}_{i}" for i in range(count)]  # noqa: E731
        names = [*"xyz", *many("f_dc", 3), "opacity", *many("scale", 3), *many("rot", 4)]
        turn = torch.tensor([1.0, 0.0, 0.0, 0.0]).expand(len(self.means), 4)
        colours, sizes = (self.colours.sigmoid() - 0.5) / SH0, self.sizes[:, None].expand(-1, 3)
        table = torch.cat(
            [p.detach().cpu() for p in (self.means, colours, self.opacities[:, None], sizes, turn)], dim=1
        )
        properties = "".join(f"property float {name}\n" for name in names)
        header = f"ply\nformat binary_little_endian 1.0\nelement vertex {len(table)}\n{properties}end_header\n"
        return [write_atomically(folder / "gaussians.ply", header.encode() + table.numpy().tobytes())]

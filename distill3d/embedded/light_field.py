"""A light field conditioned on text: what each ray of a camera sees of the named object, before any noise is looked at.

A perceptron along each ray, modulated by the text (light field networks, arXiv 2106.02634). It depends on neither the
noisy image nor the time, so a pass for the same camera and text can be reused. Its features enter the U-Net; its
direct answer, colour and mask, is trained against the clean view, which teaches it much faster than the denoising loss.
"""

from __future__ import annotations

import math
from typing import NamedTuple, TypeVar

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

NetworkLayer = TypeVar("NetworkLayer", nn.Linear, nn.Conv2d)
CELLS = 16  # rays along a side of the image
BLOCK = 4  # pixels of the guess along a side of a cell: 64x64 in all
RAY_FEATURES = 54
UNSHUFFLE = 2  # of the network's stem
TRUST_KNOTS = 17
# logit in place of the text's, where two pictures were put together: the network was taught to doubt its own of pairs
COMPOSED_TRUST = 4.0
_LEAST_SIGMA = 0.02
_CANONICAL_FOVY_RAD = math.radians(39.0)
_CANONICAL_DISTANCE, _CANONICAL_ELEVATION = 1.55, math.radians(15.0)


class Seen(NamedTuple):
    """What the light field answers for one batch of cameras."""

    features: Float[Tensor, "B C 16 16"]
    guess: Float[Tensor, "B 4 64 64"]  # colour times mask in [0, 1], and the mask
    known: Float[Tensor, "B"]  # whether the camera was given
    composed: Float[Tensor, "B"] | None = None  # 1 where it was put together from two objects' pictures


def ray_features(
    c2w: Float[Tensor, "B 4 4"], fovy_rad: Float[Tensor, "B"], cells: int = CELLS
) -> Float[Tensor, "B N 54"]:
    """Foot point p = o - (o.d) d and direction d of the ray through each cell's centre, Fourier-coded.

    ``[2 p, d, sin and cos of 2^k pi p (k = 0..4), sin and cos of 1.5 2^k d (k = 0..2)]``, row 0 at the image's top.
    """
    place = (torch.arange(cells, device=c2w.device, dtype=torch.float32) + 0.5) / cells * 2.0 - 1.0
    y, x = torch.meshgrid(-place, place, indexing="ij")
    reach = torch.tan(0.5 * fovy_rad.float())[:, None]
    local = torch.stack([x.flatten() * reach, y.flatten() * reach, -torch.ones_like(reach).expand(-1, x.numel())], -1)
    directions = F.normalize(torch.einsum("bij,bnj->bni", c2w[:, :3, :3].float(), local), dim=-1)
    origins = c2w[:, None, :3, 3].float()
    feet = origins - (origins * directions).sum(-1, keepdim=True) * directions
    angles = [math.pi * 2.0**k * feet for k in range(5)] + [1.5 * 2.0**k * directions for k in range(3)]
    waves = torch.cat(angles, dim=-1)
    return torch.cat([2.0 * feet, directions, waves.sin(), waves.cos()], dim=-1)


def canonical_cameras(count: int, device: torch.device | str = "cpu") -> tuple[Tensor, Tensor]:
    """c2w, ``B 4 4``, and fovy, ``B``, of a camera before the object, a little above it: it stands in where none is
    given."""
    e, d = _CANONICAL_ELEVATION, _CANONICAL_DISTANCE
    rows = [
        [0.0, -math.sin(e), math.cos(e), d * math.cos(e)],
        [1.0, 0.0, 0.0, 0.0],
        [0.0, math.cos(e), math.sin(e), d * math.sin(e)],
        [0.0, 0.0, 0.0, 1.0],
    ]
    c2w = torch.tensor(rows, device=device).expand(count, 4, 4)
    return c2w, torch.full((count,), _CANONICAL_FOVY_RAD, device=device)


def or_canonical(c2w: Tensor, fovy_rad: Tensor, known: Float[Tensor, "B"]) -> tuple[Tensor, Tensor]:
    """The given cameras, and the canonical one where ``known`` is 0."""
    stand_in = canonical_cameras(len(c2w), c2w.device)
    return (
        torch.where(known[:, None, None] > 0, c2w.float(), stand_in[0]),
        torch.where(known > 0, fovy_rad.float(), stand_in[1]),
    )


class LightField(nn.Module):
    """Rays and text to features and a picture before no background.

    Where a camera is dropped, the text's view words choose among views: the rays are then those of a canonical camera,
    and a learned vector says so.
    """

    def __init__(self, text_dim: int, hidden: int = 256, layers: int = 4, experts: int = 8, cells: int = CELLS):
        super().__init__()
        self.cells = cells
        self.enter = nn.Linear(RAY_FEATURES, hidden)
        self.no_camera = nn.Parameter(torch.zeros(hidden))
        self.text = nn.Sequential(nn.Linear(text_dim, text_dim), nn.SiLU())
        self.modulations = nn.Linear(text_dim, 2 * layers * hidden)
        self.layers = nn.ModuleList(MixedLinear(hidden, text_dim, experts) for _ in range(layers))
        self.guess = nn.Linear(hidden, 4 * BLOCK**2)

    def forward(self, c2w: Tensor, fovy_rad: Tensor, known: Float[Tensor, "B"], text: Float[Tensor, "B D"]) -> Seen:
        """``known``: 1 where the camera is given, 0 where it is to be ignored."""
        return self.seen_by(*or_canonical(c2w, fovy_rad, known), known, text)

    def seen_by(self, c2w: Tensor, fovy_rad: Tensor, known: Float[Tensor, "B"], text: Float[Tensor, "B D"]) -> Seen:
        """By these very cameras; ``known`` only tells whether they were given."""
        h = self.along(ray_features(c2w, fovy_rad, self.cells), known, text)
        return Seen(h.transpose(1, 2).unflatten(-1, (self.cells, self.cells)), as_picture(self.guess(h)), known)

    def along(self, rays: Float[Tensor, "B N 54"], known: Float[Tensor, "B"], text: Float[Tensor, "B D"]) -> Tensor:
        """Features of any rays, ``B N C``; all rays of a row share its text."""
        dropped = (1.0 - known)[:, None, None].to(text.dtype)
        h = self.enter(rays.to(text.dtype)) + dropped * self.no_camera  # in the weights' precision
        if torch.is_autocast_enabled(h.device.type):  # which addition to a parameter has just left
            h = h.to(torch.get_autocast_dtype(h.device.type))
        text = self.text(text)
        scales = self.modulations(text).unflatten(-1, (len(self.layers), 2, -1)).unbind(1)
        for layer, scale in zip(self.layers, scales, strict=True):
            h = h + F.silu(layer(h, text, 1.0 + scale[:, 0], scale[:, 1]))
        return h


def as_picture(blocks: Float[Tensor, "B N 64"]) -> Float[Tensor, "B 4 S S"]:
    """Blocks of 4x4 pixels, one a ray, put side by side; S is four times the root of N."""
    side = math.isqrt(blocks.shape[1])
    return F.pixel_shuffle(blocks.transpose(1, 2).unflatten(-1, (side, side)), BLOCK)


def as_blocks(picture: Float[Tensor, "B 4 64 64"]) -> Float[Tensor, "B 256 64"]:
    """The inverse of `as_picture`."""
    return F.pixel_unshuffle(picture, BLOCK).flatten(2).transpose(1, 2)


class MixedLinear(nn.Module):
    """``W (norm(h) scale + shift) + b``, where the text mixes W from several matrices (arXiv 1904.04971).

    What is known of one object need not share its matrix with all others, and a ray costs no more: scale, shift and
    mixture are multiplied into the weights once for all rays. In h's own precision, since on a CPU the passes over all
    rays cost more than the products.
    """

    def __init__(self, width: int, text_dim: int, experts: int):
        super().__init__()
        self.weights = nn.ParameterList(nn.Parameter(torch.empty(width, width)) for _ in range(experts))  # in x out
        for weight in self.weights:
            nn.init.kaiming_uniform_(weight, a=math.sqrt(5))
        self.bias = nn.Parameter(torch.zeros(width))
        self.choice = nn.Linear(text_dim, experts)

    def forward(self, h: Float[Tensor, "B N C"], text: Tensor, scale: Float[Tensor, "B C"], shift: Tensor) -> Tensor:
        share = torch.softmax(self.choice(text).float(), dim=-1)
        with torch.autocast(h.device.type, enabled=False):
            weights = torch.stack(list(self.weights)).float()
            mixed = torch.einsum("be,eio->bio", share, weights)
            bias = (torch.einsum("bi,bio->bo", shift.float(), mixed) + self.bias)[:, None].to(h.dtype)
            mixed = (scale.float()[:, :, None] * mixed).to(h.dtype)
            return torch.bmm(F.layer_norm(h, h.shape[-1:]), mixed) + bias


class Added(NamedTuple):
    """What the light field adds at the trunk's two levels and at the outer one."""

    fine: Tensor
    coarse: Tensor
    outer: Tensor | float


class LightIn(nn.Module):
    """The light field's ways into the network, all of which start at zero, and its own say in the answer.

    Where noise hides the image, what the light field saw is the best guess of it, but for the background, which is the
    network's: ``x0 <- x0 + trust (mask (colour - x0))``. The trust depends on the time, the text and the camera.
    """

    def __init__(self, hidden: int, channels: tuple[int, int, int], text_dim: int, timesteps: int = 1000):
        super().__init__()
        outer, low, deep = channels
        guess = 4 * UNSHUFFLE**2
        self.timesteps = timesteps
        self.norm = nn.LayerNorm(hidden)
        self.to_fine = zero_initialised(nn.Conv2d(hidden, low, 1))
        self.to_coarse = zero_initialised(nn.Conv2d(hidden, deep, 1))
        self.to_outer = zero_initialised(nn.Conv2d(hidden, outer, 1))
        self.guess_fine = zero_initialised(nn.Conv2d(guess, low, 3, padding=1))
        self.guess_outer = zero_initialised(nn.Conv2d(guess, outer, 3, padding=1))
        # logits over time, for either image size, with and without a camera; and for what the text says
        knots = torch.linspace(-5.0, 2.5, TRUST_KNOTS)
        self.trust = nn.Parameter(torch.stack([knots - 2.0, knots]).repeat(2, 1, 1))
        self.trust_text = zero_initialised(nn.Linear(text_dim, 1))

    def forward(self, seen: Seen, large: bool) -> Added:
        h = self.norm(seen.features.movedim(1, -1)).movedim(-1, 1)
        fine = self.to_fine(h) + self.guess_fine(F.pixel_unshuffle(F.avg_pool2d(signed(seen.guess), 2), UNSHUFFLE))
        coarse = self.to_coarse(F.avg_pool2d(h, 2))
        if not large:
            return Added(fine, coarse, 0.0)
        outer = F.interpolate(self.to_outer(h), scale_factor=2.0, mode="bilinear", align_corners=False)
        return Added(fine, coarse, outer + self.guess_outer(F.pixel_unshuffle(signed(seen.guess), UNSHUFFLE)))

    def trusts(self) -> list[nn.Parameter]:
        return [self.trust, *self.trust_text.parameters()]

    def steer(self, v: Tensor, sample: Tensor, timestep: Tensor, seen: Seen, text: Tensor, large: bool) -> Tensor:
        """v of the steered x0, in float."""
        with torch.autocast(v.device.type, enabled=False):
            abar = cosine_alphas_cumprod(timestep, self.timesteps)[:, None, None, None]
            alpha, sigma = abar.sqrt(), (1.0 - abar).sqrt().clamp_min(_LEAST_SIGMA)
            guess = signed(seen.guess.float())
            guess = guess if large else F.avg_pool2d(guess, 2)
            x0 = alpha * sample.float() - sigma * v.float()
            missing = guess[:, :3] - guess[:, 3:] * x0
            return v.float() - self._trust(timestep, seen, text.float(), large) * missing / sigma

    def _trust(self, timestep: Tensor, seen: Seen, text: Tensor, large: bool) -> Float[Tensor, "B 1 1 1"]:
        """The logits between two knots of time."""
        place = timestep.float() / self.timesteps * (TRUST_KNOTS - 1)
        left = place.long().clamp_max(TRUST_KNOTS - 2)
        knots = self.trust[int(large)].float()[(seen.known > 0).long()]
        at = lambda index: knots.gather(1, index[:, None])  # noqa: E731
        logits = torch.lerp(at(left), at(left + 1), (place - left)[:, None])
        said = F.linear(text, self.trust_text.weight.float(), self.trust_text.bias.float())
        if seen.composed is not None:
            said = torch.where(seen.composed[:, None] > 0, COMPOSED_TRUST, said)
        return torch.sigmoid(logits + said)[:, :, None, None]


def signed(guess: Float[Tensor, "B 4 H W"]) -> Float[Tensor, "B 4 H W"]:
    """Colour in [-1, 1] times mask, from colour in [0, 1] times mask; and the mask."""
    return torch.cat([2.0 * guess[:, :3] - guess[:, 3:], guess[:, 3:]], dim=1)


def cosine_alphas_cumprod(timestep: Float[Tensor, "B"], timesteps: int = 1000) -> Float[Tensor, "B"]:
    """abar of the cosine schedule (arXiv 2102.09672) as diffusers has it, whose last beta is .999 at most."""
    bar = lambda u: torch.cos((u + 0.008) / 1.008 * (math.pi / 2)) ** 2  # noqa: E731
    u = (timestep.float() + 1.0) / timesteps
    start, end = bar(torch.zeros(())), 1e-3 * bar(torch.tensor(1.0 - 1.0 / timesteps))
    return (torch.maximum(bar(u), end.to(u)) / start.to(u)).clamp_max(1.0)


def zero_initialised(layer: NetworkLayer) -> NetworkLayer:
    nn.init.zeros_(layer.weight)
    if layer.bias is not None:
        nn.init.zeros_(layer.bias)
    return layer

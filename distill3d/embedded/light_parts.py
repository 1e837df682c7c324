"""Two objects in one view: the light field of each, seen along rays moved to where it stands, and put together.

A light field knows single objects. Seen from the camera's place in an object's own frame, its picture is rotated and
zoomed to where the object stands in the view (a homography, as the place is the same), and what stands before hides
what stands behind. Objects with light fields of their own are composed in COLF (Unsupervised Discovery and Composition
of Object Light Fields, 2022), by a network that learns which is seen; here a plane between the two says so.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from distill3d.camera import look_at
from distill3d.embedded.light_field import LightField, Seen, or_canonical

HALF_WIDTH = 1.55 * math.tan(math.radians(19.5))  # of the views that taught the field, at the object
_FINER = 2  # samples along a side of a pixel of the composed picture


class ObjectPair(NamedTuple):
    """Two objects of each row. Where ``scale`` is 0 the row names one object, and its parts are to be ignored."""

    text: Float[Tensor, "2 B D"]  # pooled, of each alone
    scale: Float[Tensor, "2 B"]
    center: Float[Tensor, "2 B 3"]  # of the object's own frame, in the world
    plane: Float[Tensor, "B 4"]  # between them: normal towards the first, and offset


def whole_and_parts(text: Float[Tensor, "B E"], width: int) -> tuple[Float[Tensor, "B D"], ObjectPair | None]:
    """The pooled text, and its parts where it is wider than ``width``: ``priors.parts.packed`` made it so."""
    if text.shape[-1] == width:
        return text, None
    whole, first, second, places, plane = text.split([width, width, width, 8, 4], dim=-1)
    scale, center = places.unflatten(-1, (2, 4)).float().movedim(1, 0).split([1, 3], dim=-1)
    return whole, ObjectPair(torch.stack([first, second]), scale[..., 0], center, plane.float())


def look_at_parts(
    light: LightField,
    c2w: Float[Tensor, "B 4 4"],
    fovy_rad: Float[Tensor, "B"],
    known: Float[Tensor, "B"],
    whole: Seen,
    parts: ObjectPair,
) -> Seen:
    """``whole``, what the field sees of each row's text as one, with both objects in their places before it."""
    c2w, fovy_rad = or_canonical(c2w, fovy_rad, known)
    given = (parts.scale[0] > 0)[:, None, None, None]
    placed = zip(parts.text, parts.scale, parts.center, strict=True)
    pictures = [_placed(light, c2w, fovy_rad, known, text, scale, center) for text, scale, center in placed]
    side = (c2w[:, :3, 3] * parts.plane[:, :3]).sum(-1) - parts.plane[:, 3]
    front, back = _nearer(side > 0, *pictures), _nearer(side <= 0, *pictures)
    guess = front.guess + (1.0 - front.guess[:, 3:]) * back.guess
    features = _over(front, _over(back, whole.features))
    return Seen(
        torch.where(given, features.to(whole.features.dtype), whole.features),
        torch.where(given, guess.to(whole.guess.dtype), whole.guess),
        known,
        (parts.scale[0] > 0).to(known.dtype),
    )


def _nearer(is_first: Tensor, first: Seen, second: Seen) -> Seen:
    """The first of the two in the rows where it is asked for, else the second."""
    rows = is_first[:, None, None, None]
    features = torch.where(rows, first.features, second.features)
    return Seen(features, torch.where(rows, first.guess, second.guess), first.known)


def _over(seen: Seen, behind: Tensor) -> Tensor:
    """Features of an object before others, by its mask."""
    mask = F.adaptive_avg_pool2d(seen.guess[:, 3:], behind.shape[-1])
    return torch.lerp(behind.float(), seen.features, mask)


def _placed(
    light: LightField, c2w: Tensor, fovy_rad: Tensor, known: Tensor, text: Tensor, scale: Tensor, center: Tensor
) -> Seen:
    """One object of each row as the camera sees it where it stands, in float; its mask is 0 outside its own view."""
    position = (c2w[:, :3, 3] - center) / scale.clamp_min(1e-3)[:, None]
    own = look_at(position, torch.zeros_like(position), position.new_tensor([0.0, 0.0, 1.0]).expand_as(position))
    reach = HALF_WIDTH / position.norm(dim=-1)
    seen = light.seen_by(own, 2.0 * torch.atan(reach), known, text)
    turn = own[:, :3, :3].transpose(1, 2) @ c2w[:, :3, :3]  # from the camera's axes to the object's view
    zoomed = lambda picture, finer: _zoomed(picture.float(), turn, torch.tan(0.5 * fovy_rad), reach, finer)  # noqa: E731
    guess = zoomed(seen.guess.clamp(0.0, 1.0), _FINER)
    return Seen(zoomed(seen.features, 1), guess, known)


def _zoomed(picture: Tensor, turn: Tensor, reach: Tensor, own_reach: Tensor, finer: int) -> Tensor:
    """A square picture as a camera in the same place sees it that is turned and has another field of view."""
    side = picture.shape[-1]
    place = (torch.arange(side * finer, device=picture.device) + 0.5) / (side * finer) * 2.0 - 1.0
    y, x = torch.meshgrid(-place, place, indexing="ij")
    x, y = (axis * reach[:, None, None] for axis in (x, y))
    local = torch.stack([x, y, -torch.ones_like(x)], dim=-1)
    ray = torch.einsum("bij,bhwj->bhwi", turn, local)
    ahead = (-ray[..., 2]).clamp_min(1e-3) * own_reach[:, None, None]
    grid = torch.stack([ray[..., 0] / ahead, -ray[..., 1] / ahead], -1)
    seen = F.grid_sample(picture, grid, mode="bilinear", padding_mode="zeros", align_corners=False)
    return F.avg_pool2d(seen, finer)

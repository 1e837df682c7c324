"""What the light field alone is taught on: some rays of many views of few scenes, before no background, unlit.

A ray costs the light field a hundredth of what an image costs the whole network, and views of one scene share their
text and so their weights: far more views are seen in a second than through the denoising loss.
"""

from __future__ import annotations

import random
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from distill3d.embedded import relight
from distill3d.embedded.captions import VIEW_PHRASES, SceneCaption, training_caption
from distill3d.embedded.light_field import CELLS, as_blocks, canonical_cameras, ray_features
from distill3d.embedded.mesh_views import ViewSampler
from distill3d.runtime.rng import rng

VIEW_WORDS_SHARE = 0.8  # of the scenes whose camera is dropped; only words can then tell the view


@dataclass(frozen=True)
class LightBatch:
    """K scenes with N rays each."""

    rays: Float[Tensor, "K N 54"]
    clean: Float[Tensor, "K N 64"]  # 4x4 pixels of colour times mask, and of the mask
    captions: list[str]
    known: Float[Tensor, "K"]  # 0: the camera was dropped, and the rays are the canonical camera's


def light_batch(
    sampler: ViewSampler, step: int, scenes: int, views: int, rays: int, camera_dropout: float
) -> LightBatch:
    """``scenes`` captions, ``views`` views of each, ``rays`` random cells of each view; a function of seed and step.

    Of a pair there is one view, since another one shows it otherwise arranged.
    """
    draw = random.Random(f"light/{sampler.seed}/{step}")
    rows, chosen, captions, known = [], [], [], []
    for _ in range(scenes):
        row, scene = sampler.draw_scene(draw)
        dropped = scene.second is None and draw.random() < camera_dropout
        view = draw.choice(list(VIEW_PHRASES)) if dropped and draw.random() < VIEW_WORDS_SHARE else None
        pool = _views_of(sampler, row, scene, view)
        rows += [draw.choice(pool) for _ in range(views)]
        chosen += [scene] * views
        captions.append(_caption(scene, view, draw))
        known.append(0.0 if dropped else 1.0)
    clean, features = _blocks(sampler, rows, chosen), _rays(sampler, rows, torch.tensor(known).repeat_interleave(views))
    cells = torch.rand(len(rows), CELLS**2, generator=rng("data", sampler.seed, step)).argsort(dim=1)[:, :rays]
    pick = lambda x: x.gather(1, cells[..., None].expand(-1, -1, x.shape[-1])).reshape(scenes, views * rays, -1)  # noqa: E731
    return LightBatch(pick(features), pick(clean), captions, torch.tensor(known))


def _views_of(sampler: ViewSampler, row: int, scene: SceneCaption, view: str | None) -> list[int]:
    """Views that show the scene; those of a view's words where there are any."""
    if scene.second is not None:
        return [row]
    pool = sampler.cache.singles[scene.first.noun]
    return [one for one in pool if view is None or sampler.cache.words[one] == view] or pool


def _caption(scene: SceneCaption, view: str | None, draw: random.Random) -> str:
    if view is None:
        return training_caption(scene, "front", False, draw, view_probability=0.0)
    return training_caption(scene, view, False, draw, view_probability=1.0)


def _blocks(sampler: ViewSampler, rows: list[int], scenes: list[SceneCaption]) -> Float[Tensor, "R 256 64"]:
    """Colour times mask and mask of each view; what is not recoloured is read without its geometry."""
    albedo, mask = sampler.cache.unlit(rows)
    overrides = [_overrides(scene) for scene in scenes]
    todo = [i for i, names in enumerate(overrides) if any(names)]
    if todo:
        some = [rows[i] for i in todo]
        surface, eye = sampler.cache.surface(some), sampler.cache.eye[some]
        albedo[todo] = relight.overridden(surface, eye, [overrides[i] for i in todo])
    return as_blocks(torch.cat([albedo * mask, mask], dim=1))


def _overrides(scene: SceneCaption) -> tuple[str | None, str | None]:
    name = lambda thing: (thing.color or thing.material) if thing is not None else None  # noqa: E731
    return name(scene.first), name(scene.second)


def _rays(sampler: ViewSampler, rows: list[int], known: Tensor) -> Float[Tensor, "R 256 54"]:
    features = ray_features(sampler.cache.c2w[rows], sampler.cache.fovy_rad[rows])
    return torch.where(known[:, None, None] > 0, features, ray_features(*canonical_cameras(1)))

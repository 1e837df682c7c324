"""Training scenes made of meshes: one object, or two composed so that their caption is true."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from distill3d.data.assets import MeshEntry, load_mesh
from distill3d.embedded.captions import (
    COLORS,
    MATERIALS,
    PLAIN_NOUN,
    RELATIONS,
    SYNONYMS,
    WEARABLE,
    WEARER_CATEGORIES,
    WEARER_NOUNS,
    SceneCaption,
    Thing,
)
from distill3d.scenes.mesh.raster import Mesh

HELD_OUT_FILE = Path(__file__).with_name("held_out.txt")


@dataclass(frozen=True)
class HeldOut:
    """Combinations that are never trained on: (override, noun) and (noun, relation, noun)."""

    overrides: frozenset[tuple[str, str]]
    pairs: frozenset[tuple[str, str, str]]

    def contains(self, scene: SceneCaption) -> bool:
        if any((t.color or t.material or "", t.noun) in self.overrides for t in scene.things):
            return True
        return scene.second is not None and (scene.first.noun, scene.relation, scene.second.noun) in self.pairs

    def scenes(self) -> list[SceneCaption]:
        """The list as scenes, sorted, for evaluation."""
        singles = [SceneCaption(_overridden(noun, word)) for word, noun in sorted(self.overrides)]
        return singles + [SceneCaption(Thing(a), relation, Thing(b)) for a, relation, b in sorted(self.pairs)]


def read_held_out(path: Path = HELD_OUT_FILE) -> HeldOut:
    """Parse the fixed list; raises ValueError for a line that is neither form."""
    overrides, pairs = set(), set()
    for line in path.read_text(encoding="utf-8").splitlines():
        words = line.split("#")[0].strip()
        relation = next((r for r in RELATIONS if f" {r} " in words), None)
        if relation:
            first, second = words.split(f" {relation} ")
            pairs.add((first, relation, second))
        elif words:
            override, _, noun = words.partition(" ")
            if not noun or (override not in COLORS and override not in MATERIALS):
                raise ValueError(f"{path}: {line!r} is neither 'COLOUR NOUN' nor 'NOUN RELATION NOUN'")
            overrides.add((override, noun))
    return HeldOut(frozenset(overrides), frozenset(pairs))


def draw_override(noun: str, random_source: random.Random) -> Thing:
    """A thing with a colour (four of five) or a material that replaces its own."""
    if random_source.random() < 0.8:
        return Thing(noun, color=random_source.choice(list(COLORS)))
    return Thing(noun, material=random_source.choice(MATERIALS))


def draw_pair(assets: list[MeshEntry], random_source: random.Random) -> tuple[MeshEntry, str, MeshEntry]:
    """Two different nouns and a relation that suits them."""
    by_noun = group_by_noun(assets)
    nouns = sorted(by_noun)
    wearers = [n for n in nouns if n in WEARER_NOUNS or by_noun[n][0].category in WEARER_CATEGORIES]
    wearables = [n for n in nouns if n in WEARABLE]
    relation = random_source.choices(RELATIONS, weights=(0.45, 0.4, 0.15 if wearers and wearables else 0.0))[0]
    if relation == "wearing":
        first, second = random_source.choice(wearers), random_source.choice(wearables)
    else:
        first, second = random_source.sample(nouns, 2)
    return random_source.choice(by_noun[first]), relation, random_source.choice(by_noun[second])


def group_by_noun(assets: list[MeshEntry]) -> dict[str, list[MeshEntry]]:
    groups: dict[str, list[MeshEntry]] = {}
    for asset in assets:
        groups.setdefault(asset.noun, []).append(asset)
    return groups


def compose(first: Mesh, relation: str, second: Mesh, random_source: random.Random) -> Mesh:
    """Place two normalised meshes (world frame, z up) by their relation; raises ValueError for an unknown one."""
    if relation == "on top of":
        placed = _on_top(first, second, random_source)
    elif relation == "next to":
        placed = _next_to(first, second, random_source)
    elif relation == "wearing":
        placed = _wearing(first, second)
    else:
        raise ValueError(f"relation {relation!r} is unknown; known: {', '.join(RELATIONS)}")
    return placed.normalized()


def _on_top(first: Mesh, second: Mesh, random_source: random.Random) -> Mesh:
    center = 0.5 * (second.vertices.min(0) + second.vertices.max(0))
    scale = random_source.uniform(0.65, 0.95)
    bottom = first.vertices[:, 2].min() * scale
    return Mesh.merged([first.transformed(scale, (center[0], center[1], seat_of(second) - bottom - 0.01)), second])


def seat_of(mesh: Mesh) -> float:
    """The height at which another object stands on it: its highest vertex near its axis."""
    low, high = mesh.vertices.min(0), mesh.vertices.max(0)
    reach = 0.3 * max(high[0] - low[0], high[1] - low[1])
    near_axis = np.linalg.norm(mesh.vertices[:, :2] - 0.5 * (low + high)[:2], axis=1) < reach
    return float(mesh.vertices[near_axis, 2].max() if near_axis.any() else high[2])


def extents_of(assets: list[MeshEntry], nouns: Sequence[str]) -> dict[str, Any]:
    """What `priors.parts` reads of each noun's first mesh: its box, its seat, and what else it is called."""
    extents, by_noun = {}, group_by_noun(assets)
    for noun in nouns:
        mesh = load_mesh(by_noun[noun][0])
        box = {"low": mesh.vertices.min(0), "high": mesh.vertices.max(0)}
        names = dict.fromkeys([*SYNONYMS.get(noun, ()), *filter(None, [PLAIN_NOUN.get(noun)])])
        extents[noun] = {key: [round(float(x), 3) for x in corner] for key, corner in box.items()}
        extents[noun] |= {"seat": round(seat_of(mesh), 3)} | ({"names": list(names)} if names else {})
    return extents


def _next_to(first: Mesh, second: Mesh, random_source: random.Random) -> Mesh:
    side = random_source.choice((-1.0, 1.0))
    scale = random_source.uniform(0.75, 1.1)
    first = first.transformed(scale)
    gap = 0.04 + max(0.0, first.vertices[:, 1].max() - first.vertices[:, 1].min()) / 2
    gap += (second.vertices[:, 1].max() - second.vertices[:, 1].min()) / 2
    floor = float(second.vertices[:, 2].min() - first.vertices[:, 2].min())
    return Mesh.merged([first.transformed(1.0, (0.0, side * gap, floor)), second])


def _wearing(wearer: Mesh, hat: Mesh) -> Mesh:
    """The hat sits on the highest part of the wearer, a little wider than it."""
    height = np.ptp(wearer.vertices[:, 2])
    top = wearer.vertices[:, 2].max()
    head = wearer.vertices[wearer.vertices[:, 2] > top - 0.15 * height]
    width = max(float(np.ptp(head[:, 1])), 0.35 * float(np.ptp(wearer.vertices[:, 1])), 0.12)
    scale = 0.75 * width / max(float(np.ptp(hat.vertices[:, 1])), 1e-6)
    center = 0.5 * (head.min(0) + head.max(0))
    bottom = hat.vertices[:, 2].min() * scale
    sunk = top - bottom - 0.12 * scale * float(np.ptp(hat.vertices[:, 2]))
    return Mesh.merged([wearer, hat.transformed(scale, (center[0], center[1], sunk))])


def _overridden(noun: str, word: str) -> Thing:
    return Thing(noun, color=word) if word in COLORS else Thing(noun, material=word)

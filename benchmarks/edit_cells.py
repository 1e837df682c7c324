"""What `edit.py` runs: cells, each one edit by one method."""

from __future__ import annotations

import hashlib
import itertools
from collections.abc import Iterator
from dataclasses import dataclass


@dataclass(frozen=True)
class Edit:
    """What a scene shows, and what it should show. ``kind``: recolour, exchange, add or reshape."""

    kind: str
    source: str
    target: str

    @property
    def name(self) -> str:
        return f"{self.source} -> {self.target}"


@dataclass(frozen=True)
class Method:
    """A rule of distillation, or an editor of pictures. ``config`` None: one SDEdit, nothing is trained."""

    name: str
    config: str | None
    settings: tuple[str, ...] = ()


@dataclass(frozen=True)
class EditCell:
    """One edit by one method; ``size`` is that of the pictures in which it works, in pixels."""

    suite: str
    edit: Edit
    method: Method
    size: int
    steps: int
    seed: int = 0

    @property
    def scene(self) -> str:
        """What is edited: a ``nerf``, an ``image`` or an ``svg``."""
        return "image" if self.suite == "psi" else self.suite

    @property
    def overrides(self) -> tuple[str, ...]:
        return (
            f"system.prompt_processor.prompt={self.edit.target}",
            f"system.prompt_processor.source_prompt={self.edit.source}",
            f"trainer.max_steps={self.steps}",
            f"seed={self.seed}",
            *self.method.settings,
        )

    def key(self, conditions: str) -> str:
        """A name that no other cell, and none under another prior or from other sources, shares."""
        text = "/".join((self.suite, self.method.name, str(self.method.config), str(self.size), conditions))
        return hashlib.blake2b("/".join((text, *self.overrides)).encode(), digest_size=8).hexdigest()


NERF_EDITS = (
    Edit("recolour", "a hamburger", "a blue hamburger"),
    Edit("exchange", "a fox", "a wolf"),
    Edit("add", "a snowman", "a snowman wearing a crown"),
    Edit("reshape", "an apple", "a pineapple"),
)
IMAGE_EDITS = (
    *NERF_EDITS,
    Edit("recolour", "a red car", "a blue car"),
    Edit("exchange", "a cat", "a tiger"),
    Edit("add", "a pig", "a pig wearing a crown"),
    Edit("reshape", "a pumpkin", "a cupcake"),
)
SVG_EDITS = (
    Edit("recolour", "an apple", "a green apple"),
    Edit("exchange", "an apple", "a pumpkin"),
    Edit("reshape", "an apple", "a strawberry"),
)
NERF_STEPS, REFINEMENT_STEPS, IMAGE_STEPS, SVG_STEPS = 150, 75, 120, 150
SVG_SIZE = 64  # at 32x32 a stroke of the shipped drawing is thinner than half a pixel
PSI_SCALES = (3.0, 10.0, 30.0, 60.0)


def by_guidance(config: str, pds_scale: float = 25.0) -> list[Method]:
    """The four rules. PDS, which holds back, needs more guidance where parameters are shared than in single pixels."""
    scales = {"pds": pds_scale, "dds": 6.5, "sds": 15.0, "lmc-sds": 5.0}
    return [Method(name, config, rule(name, scale)) for name, scale in scales.items()]


def rule(name: str, scale: float) -> tuple[str, ...]:
    return f"system.guidance_type={name}", f"system.guidance.guidance_scale={scale:g}"


def nerf(size: int) -> Iterator[EditCell]:
    """All methods of one edit, then the next; refinement goes on where PDS has ended."""
    rules = by_guidance("nerf-edit.yaml")
    start = f"system.refinement.start_step={NERF_STEPS}"
    refined = Method("pds, refined", "nerf-edit.yaml", (*rules[0].settings, start))
    for edit in NERF_EDITS:
        for method in (*rules, Method("idu", "nerf-edit-idu.yaml")):
            yield EditCell("nerf", edit, method, size, NERF_STEPS)
        yield EditCell("nerf", edit, refined, size, NERF_STEPS + REFINEMENT_STEPS)


def image(size: int) -> Iterator[EditCell]:
    for edit, method in itertools.product(IMAGE_EDITS, (*by_guidance("image-edit.yaml", 15.0), Method("sdedit", None))):
        yield EditCell("image", edit, method, size, IMAGE_STEPS)


def svg(size: int) -> Iterator[EditCell]:
    for edit, method in itertools.product(SVG_EDITS, by_guidance("svg-edit.yaml")):
        yield EditCell("svg", edit, method, max(size, SVG_SIZE), SVG_STEPS)


def psi(size: int) -> Iterator[EditCell]:
    """PDS on pictures: the released psi and chi, and constants, of which the first is DDS with another weight."""
    kinds = {
        "released": ("system.guidance.coefficients=released",),
        "psi = 0": explicit(0.0),
        "psi = 0.03": explicit(0.03),
        "psi = 0.3": explicit(0.3),
    }
    for edit, (kind, settings), scale in itertools.product(IMAGE_EDITS[:3], kinds.items(), PSI_SCALES):
        method = Method(f"{kind}, w = {scale:g}", "image-edit.yaml", (*rule("pds", scale), *settings))
        yield EditCell("psi", edit, method, size, IMAGE_STEPS)


def explicit(weight: float, chi: float = 0.1) -> tuple[str, ...]:
    return (
        "system.guidance.coefficients=explicit",
        f"system.guidance.psi={weight:g}",
        f"system.guidance.chi={chi:g}",
    )


SUITES = {"nerf": nerf, "image": image, "svg": svg, "psi": psi}

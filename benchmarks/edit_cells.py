"""What `edit.py` runs: cells, each one edit by one method."""

from __future__ import annotations

import hashlib
import itertools
from collections.abc import Iterator, Sequence
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
    """A rule of distillation, or an editor of pictures. ``config`` None: one SDEdit, nothing is trained.

    ``at``: the place on the method's grid of settings: its guidance scale, or the strength of one SDEdit.
    """

    name: str
    config: str | None
    settings: tuple[str, ...] = ()
    at: str = ""

    @property
    def full_name(self) -> str:
        return f"{self.name}, {self.at}" if self.at else self.name


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

    @property
    def corrected(self) -> bool:
        """Whether b_psi takes part."""
        return "system.guidance_type=lmc-sds" in self.method.settings

    def key(self, conditions: str) -> str:
        """A name that no other cell, and none under other weights or from other sources, shares."""
        text = "/".join((self.suite, self.method.full_name, str(self.method.config), str(self.size), conditions))
        return hashlib.blake2b("/".join((text, *self.overrides)).encode(), digest_size=8).hexdigest()


# Nouns that the embedded prior knows: of the issue's own examples a wolf, a tiger and a crown are not among them. It
# knows few pairs of objects; what is added is therefore a face, ornaments, or a second thing on top.
NERF_EDITS = (
    Edit("recolour", "a hamburger", "a blue hamburger"),
    Edit("exchange", "a fox", "a dog"),
    Edit("add", "a pumpkin", "a jack-o-lantern"),
    Edit("reshape", "an apple", "a pineapple"),
)
IMAGE_EDITS = (
    *NERF_EDITS,
    Edit("recolour", "a red car", "a blue car"),
    Edit("exchange", "a tomato", "a pumpkin"),
    Edit("add", "a pine tree", "a christmas tree"),
    Edit("reshape", "a pumpkin", "a cupcake"),
)
SVG_EDITS = (
    Edit("recolour", "an apple", "a green apple"),
    Edit("exchange", "an apple", "a pumpkin"),
    Edit("reshape", "an apple", "a strawberry"),
)
PSI_EDITS = (IMAGE_EDITS[0], IMAGE_EDITS[2], IMAGE_EDITS[3])
NERF_STEPS, REFINEMENT_STEPS, IMAGE_STEPS, SVG_STEPS = 150, 75, 120, 100
LONGER = 3  # times as many steps show whether a method has come to rest
RESTING = ("pds", "dds", "sds")  # those that are asked
SVG_SIZE = 64  # at 32x32 a stroke of the shipped drawing is thinner than half a pixel
# Grids alike for all methods: about a third of a usual value, the value, and about three times it. The report takes
# each method at its best one, chosen alike.
SCALES = {"pds": (5.0, 15.0, 45.0), "dds": (2.0, 6.5, 20.0), "sds": (5.0, 15.0, 45.0), "lmc-sds": (2.0, 5.0, 15.0)}
EDITOR_SCALES = (1.0, 3.0, 9.0)  # of the SDEdit that updates pictures
# each view is redrawn about twice: at the config's rate most views would still be the source's at the end
UPDATES = ("system.interval=2", "system.editor.strength_range=[0.5,0.9]", "system.editor.steps=12")
STRENGTHS = (0.4, 0.6, 0.8)  # of one SDEdit alone
PSI_SCALES = (2.0, 5.0, 15.0, 45.0)
# of all rules: under the cosine schedule of the embedded prior psi is 30 at t = 5 and .8 at t = 100, and rare steps of
# such a pull are all that Adam remembers
TIMES = ("system.guidance.min_step_percent=0.1", "system.guidance.max_step_percent=0.98")


def rules(config: str, names: Sequence[str] = tuple(SCALES)) -> list[Method]:
    """The rules of distillation, each at three guidance scales."""
    return [Method(name, config, rule(name, scale), at_scale(scale)) for name in names for scale in SCALES[name]]


def rule(name: str, scale: float) -> tuple[str, ...]:
    return f"system.guidance_type={name}", f"system.guidance.guidance_scale={scale:g}", *TIMES


def at_scale(scale: float) -> str:
    return f"w = {scale:g}"


def middle(name: str) -> float:
    """The guidance scale in the middle of a rule's grid."""
    return SCALES[name][len(SCALES[name]) // 2]


def nerf(size: int) -> Iterator[EditCell]:
    """All methods of one edit, then the next; refinement goes on where PDS at the middle of its grid has ended."""
    updates = [
        Method("idu", "nerf-edit-idu.yaml", (f"system.editor.guidance_scale={scale:g}", *UPDATES), at_scale(scale))
        for scale in EDITOR_SCALES
    ]
    start = f"system.refinement.start_step={NERF_STEPS}"
    refined = Method("pds, refined", "nerf-edit.yaml", (*rule("pds", middle("pds")), start), at_scale(middle("pds")))
    for edit in NERF_EDITS:
        for method in (*rules("nerf-edit.yaml"), *updates):
            yield EditCell("nerf", edit, method, size, NERF_STEPS)
        yield EditCell("nerf", edit, refined, size, NERF_STEPS + REFINEMENT_STEPS)


def image(size: int) -> Iterator[EditCell]:
    """Each method as long as the others; then some of them for longer, at the middle of their grids."""
    redrawn = [Method("sdedit", None, (), f"strength {strength:g}") for strength in STRENGTHS]
    for edit, method in itertools.product(IMAGE_EDITS, (*rules("image-edit.yaml"), *redrawn)):
        yield EditCell("image", edit, method, size, IMAGE_STEPS)
    for edit, name in itertools.product(NERF_EDITS, RESTING):
        longer = Method(f"{name}, longer", "image-edit.yaml", rule(name, middle(name)), at_scale(middle(name)))
        yield EditCell("image", edit, longer, size, LONGER * IMAGE_STEPS)


def svg(size: int) -> Iterator[EditCell]:
    for edit, method in itertools.product(SVG_EDITS, rules("svg-edit.yaml")):
        yield EditCell("svg", edit, method, max(size, SVG_SIZE), SVG_STEPS)


def psi(size: int) -> Iterator[EditCell]:
    """PDS on pictures: the released psi and chi, and constants, of which the first is DDS with another weight."""
    kinds = {
        "released": ("system.guidance.coefficients=released",),
        "psi = 0": explicit(0.0),
        "psi = 0.03": explicit(0.03),
        "psi = 0.3": explicit(0.3),
    }
    for edit, (kind, settings), scale in itertools.product(PSI_EDITS, kinds.items(), PSI_SCALES):
        method = Method(kind, "image-edit.yaml", (*rule("pds", scale), *settings), at_scale(scale))
        yield EditCell("psi", edit, method, size, IMAGE_STEPS)


def explicit(weight: float, chi: float = 0.1) -> tuple[str, ...]:
    return (
        "system.guidance.coefficients=explicit",
        f"system.guidance.psi={weight:g}",
        f"system.guidance.chi={chi:g}",
    )


SUITES = {"nerf": nerf, "image": image, "svg": svg, "psi": psi}

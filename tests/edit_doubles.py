"""A small trained scene in a trial of its own, views of it, and edits of it under closed-form priors."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
from closed_form import GaussianPrior
from picture_doubles import Texts
from system_doubles import TINY_SYSTEM, make_trainer, merged
from system_doubles import fit as fit_text_to_3d

from distill3d.camera import CameraRanges, random_cameras
from distill3d.config.check import build
from distill3d.config.registry import find, register
from distill3d.config.yaml_text import dump_yaml
from distill3d.data.posed.images import PosedImages
from distill3d.data.posed.module import EditViewsDataModule
from distill3d.priors.model import PriorModel
from distill3d.types import PromptEmbedding

SIDE = 16
SAME = {"prompt": "a cat", "source_prompt": "a cat"}
OTHER = {"prompt": "a fox", "source_prompt": "a cat"}
EDIT: dict[str, Any] = {
    "prior_type": "colours-for-edit-tests",
    "prompt_processor_type": "colour-prompts-for-edit-tests",
    "prompt_processor": OTHER,
    "optimizer": {"args": {"lr": 0.02, "eps": 1e-8}},
    "contact_views": 3,
}


class ColourPrior(GaussianPrior):
    """A cat is grey and a fox is orange, give or take; no other text is about anything."""

    names = ("a cat", "a fox")

    def __init__(self) -> None:
        flat = torch.tensor([[-0.2, -0.2, -0.2], [0.8, 0.2, -0.6]])[:, :, None, None].expand(2, 3, SIDE, SIDE)
        super().__init__((3, SIDE, SIDE), torch.full((SIDE, SIDE), 0.04), flat)

    def _token(self, text: str) -> torch.Tensor:
        return torch.tensor([float(name == text) for name in self.names])


@register("prior", "colours-for-edit-tests")
class ColourModel(PriorModel):
    """The closed-form prior of two flat colours."""

    @dataclass
    class Config:
        pass

    def load(self, device: Any) -> ColourPrior:
        return ColourPrior()


@register("prompt_processor", "colour-prompts-for-edit-tests")
class ColourPrompts(Texts):
    """Every text as that prior embeds it."""

    def embed(self, texts: list[str]) -> PromptEmbedding:
        return ColourPrior().embed(texts)


@dataclass(frozen=True)
class Source:
    """A trial of text to 3D whose scene is edited, and views of it."""

    root: Path
    renderer: Any

    @property
    def checkpoint(self) -> str:
        return str(self.root / "ckpts/last.ckpt")


def make_source(root: Path, seed: int = 3) -> Source:
    """A scene of colours that vary in space, as a trial of one step."""
    system, _ = fit_text_to_3d(root, 1, seed=seed)
    (root / "configs").mkdir(exist_ok=True)
    system_settings = {**TINY_SYSTEM, "prompt_processor_type": "closed-form-prompts-for-tests"}
    (root / "configs/parsed.yaml").write_text(
        dump_yaml({"system_type": "dreamfusion-system", "system": system_settings})
    )
    file = root / "ckpts/last.ckpt"
    saved = torch.load(file, weights_only=True)
    table = saved["state_dict"]["scene.renderer.geometry.encoding.table"]
    table += torch.randn(table.shape, generator=torch.Generator().manual_seed(seed))
    torch.save(saved, file)
    system.load_state_dict(saved["state_dict"])
    return Source(root, system.renderer)


class RenderedViews(EditViewsDataModule):
    """Views of a scene in memory, over the scene's own background; ``shift`` is added to their colours."""

    def __init__(self, scene: Source, batch_size: int = 2, count: int = 6, shift: float = 0.0, **settings: Any) -> None:
        super().__init__(
            self.Config(batch_size=batch_size, n_test_views=3, eval_height=SIDE, eval_width=SIDE, **settings)
        )
        ranges = CameraRanges((0.0, 40.0), camera_distance_range=(1.5, 1.7), camera_perturb=0.0, center_perturb=0.0)
        cameras = random_cameras(ranges, count, SIDE, SIDE, torch.Generator().manual_seed(1), stratified_azimuth=True)
        images = (scene.renderer.render(cameras, need_normal=False).rgb + shift).clamp(0, 1)
        names = tuple(map(str, range(count)))
        views = PosedImages.of(cameras, images, names)
        self.__dict__["_views"] = (views, views)


def make_edit(name: str, source: Source, seed: int = 0, **changes: Any) -> Any:
    cls = find("system", name)
    settings = merged({**EDIT, "source_checkpoint": source.checkpoint}, changes)
    return cls(build(cls.Config, settings, "system"), seed=seed)  # type: ignore[attr-defined]


def edit(
    name: str, source: Source, root: Path, steps: int, data: Any = None, resume: Path | None = None, **changes: Any
) -> Any:
    """Train an edit for some steps in the trial folder ``root``."""
    system = make_edit(name, source, **changes)
    system.attach(SimpleNamespace(root=root))
    system.source_views = RenderedViews(source) if data is None else data
    make_trainer(root, steps).fit(system, system.source_views, ckpt_path=resume)
    return system


def psnr_between(system: Any, cameras: Any = None) -> float:
    """Of the scene as it is and as it was, from the views of the data."""
    cameras = system.source_views.train_views.cameras if cameras is None else cameras
    now, before = (r.render(cameras, need_normal=False).rgb for r in (system.renderer, system.original.renderer))
    return float(-10 * torch.log10((now - before).square().mean()))

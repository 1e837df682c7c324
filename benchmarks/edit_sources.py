"""What `edit.py` edits, made once for all methods: views of a mesh or of text to 3D, a NeRF fitted to them, a picture.

The shipped drawing needs none of this.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from conditions import weights_of

from distill3d.data.assets import load_mesh, read_index
from distill3d.data.posed.write import RenderedViews, write_posed_images
from distill3d.embedded.captions import with_article
from distill3d.evaluation.render_views import RenderViewsSettings, mesh_views, trial_renderer, view_cameras
from distill3d.run import prepare
from distill3d.runtime.pictures import to_uint8, write_png
from distill3d.types import Cameras
from distill3d.verbs import Request

QUIET = (
    "trainer.enable_progress_bar=false",
    "trainer.val_check_interval=null",
    "system.loggers.csv.enable=false",
    "system.loggers.tensorboard.enable=false",
    "use_timestamp=false",
)
TRAIN_VIEWS, TEST_VIEWS = 32, 4
RECONSTRUCTION_STEPS = 300
PICTURE_ANGLES = (15.0, 30.0)  # elevation and azimuth of the picture of an object, in degrees
GREY = 0.5  # behind it

Renderer = Callable[[Cameras], RenderedViews]


@dataclass(frozen=True)
class Source:
    """A scene to edit: posed images, and the checkpoint of the NeRF that was fitted to them."""

    views: Path
    checkpoint: Path


class Sources:
    """Below a folder. With ``assets``, a folder of meshes with index.csv, scenes are meshes; else text to 3D.

    ``settings`` hold for text to 3D; of them only the trainer's for reconstructions. Scenes that a prior made are made
    anew under other weights.
    """

    def __init__(self, folder: Path, assets: Path | None, size: int, settings: Sequence[str] = ()) -> None:
        self.assets, self.size, self.settings = assets, size, tuple(settings)
        made_by = "meshes" if assets else f"text/{weights_of(self.settings, corrected=False)}"
        about = f"{size}/{made_by}/{'/'.join(settings)}"
        self.folder = folder / hashlib.blake2b(about.encode(), digest_size=4).hexdigest()

    def scene(self, prompt: str) -> Source:
        """The NeRF of what a source prompt says; fitted where it is not there yet."""
        place = self.place(prompt)
        source = Source(place / "views", place / "fitted" / "ckpts" / "last.ckpt")
        if not (place / "fitted.done").is_file():  # an interrupted run leaves a checkpoint too
            self._render(prompt, source.views)
            trained = tuple(setting for setting in self.settings if setting.startswith("trainer."))
            overrides = (f"data.root={source.views}", f"trainer.max_steps={RECONSTRUCTION_STEPS}", *trained)
            fit("nerf-reconstruction.yaml", (*overrides, *trial(place / "fitted")))
            (place / "fitted.done").touch()
        return source

    def picture(self, prompt: str) -> Path:
        """One view before grey, as a PNG."""
        path = self.place(prompt) / "picture.png"
        if not path.is_file():
            path.parent.mkdir(parents=True, exist_ok=True)
            elevation, azimuth = PICTURE_ANGLES
            angles = {"elevation_range": (elevation, elevation), "azimuth_range": (azimuth, azimuth)}
            seen = self._renderer(prompt)(view_cameras(RenderViewsSettings(size=self.size, **angles), 1, 0))
            write_png(path, to_uint8(seen.rgb + (1.0 - seen.alpha) * GREY)[0])
        return path

    def place(self, prompt: str) -> Path:
        return self.folder / prompt.replace(" ", "-")

    def _render(self, prompt: str, out: Path) -> None:
        settings = RenderViewsSettings(TRAIN_VIEWS, TEST_VIEWS, self.size)
        render = self._renderer(prompt)
        splits = {"train": TRAIN_VIEWS, "test": TEST_VIEWS}
        views = {name: render(view_cameras(settings, count, i)) for i, (name, count) in enumerate(splits.items())}
        write_posed_images(out, views, prompt, overwrite=True)

    def _renderer(self, prompt: str) -> Renderer:
        """Cameras to views of the first mesh of a noun, or of a trial of text to 3D."""
        if self.assets is None:
            return trial_renderer(self._text_to_3d(prompt), "albedo")
        assets = (asset for asset in read_index(self.assets) if with_article(asset.noun) == prompt)
        asset = next(assets, None)
        if asset is None:
            raise ValueError(f"--assets {self.assets}: its index.csv has no mesh of {prompt!r}")
        mesh = load_mesh(asset)
        return lambda cameras: mesh_views(mesh, cameras, "albedo")

    def _text_to_3d(self, prompt: str) -> Path:
        place = self.place(prompt)
        if not (place / "made.done").is_file():
            place.mkdir(parents=True, exist_ok=True)
            words = (f"system.prompt_processor.prompt={prompt}",)
            fit("dreamfusion-quick.yaml", (*words, *self.settings, *trial(place / "made")))
            (place / "made.done").touch()
        return place / "made"


def fit(config: str, overrides: Sequence[str]) -> None:
    """Train, as `launch.py --train` does, without what would come after."""
    run = prepare(Request("train", config, (*QUIET, *overrides)))
    run.trainer.fit(run.system, datamodule=run.data)


def trial(folder: Path) -> tuple[str, ...]:
    """Settings that place a trial in this folder."""
    return f"exp_root_dir={folder.parent.parent}", f"name={folder.parent.name}", f"tag={folder.name}"

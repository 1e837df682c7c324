"""Image translation: a network learns an edit by score distillation, and then makes it in one pass."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from distill3d.config.ranges import check_least
from distill3d.config.registry import register
from distill3d.data.image_batch import ImageBatch
from distill3d.data.image_folder import image_paths, read_image
from distill3d.priors.embedding_cache import embedding_cache
from distill3d.priors.text_table import TextTable
from distill3d.runtime.pictures import contact_sheet, to_uint8, write_png
from distill3d.runtime.protocols import SampledFromPrior, check_captioned_images
from distill3d.scenes.base import Step, Views
from distill3d.scenes.translator import Translator
from distill3d.systems.pictures import PictureSettings, PictureSystem
from distill3d.systems.prior_samples import fill_with_samples

PROBES = 8  # images that the pictures of the progress show


@register("system", "translation-system")
class Translation(PictureSystem):
    """Trains an image-to-image translation network, by sds, lmc-sds, dds or pds (as in arXiv 2401.05293).

    It is trained on image-folder-datamodule, mesh-view-datamodule or prior-samples-datamodule, and kept as
    save/translator.safetensors. apply_to: an image, or a folder of them, to translate with the trained network into
    save/translated/; with --export and a checkpoint that is all that happens.
    """

    @dataclass
    class Config(PictureSettings):
        scene_type: str | None = "translator"
        width: int = 32  # channels of the network
        apply_to: str | None = None

        def __post_init__(self) -> None:
            super().__post_init__()
            check_least(self, width=1)

    def configure(self) -> None:
        super().configure()
        self.probes: Tensor | None = None
        self.sample_texts: TextTable | None = None

    def check_data(self, data: Any, training: bool) -> None:
        check_captioned_images(data)

    @property
    def network(self) -> Translator:
        return self.scene.network

    def setup(self, stage: str) -> None:
        """Also embed what the data's samples are asked for, before the prior is in memory."""
        data: Any = self.trainer.datamodule  # type: ignore[attr-defined]
        if stage == "fit" and isinstance(data, SampledFromPrior):
            model, device = self.make("prior"), self.trainer.strategy.root_device
            self.sample_texts = TextTable(["", *data.captions()], model, device, embedding_cache(model, device))
        super().setup(stage)

    def begin(self) -> None:
        """Have the data sampled, if it is the prior's own, and take the first images for the pictures."""
        data: Any = self.trainer.datamodule  # type: ignore[attr-defined]
        if self.sample_texts is not None:
            fill_with_samples(data, self.prior, self.sample_texts, self.seed)
            self.sample_texts = None
        first = next(iter(data.train_dataloader()))
        self.probes = self.colours(replace(first, images=first.images[:PROBES].to(self.prior.device)))

    def training_step(self, batch: ImageBatch, batch_idx: int) -> Tensor | None:
        """The loop's, on colours: what the scene translates, and what its translations are compared with."""
        return super().training_step(self.colours(batch), batch_idx)

    def views_of_original(self, batch: Tensor, step: Step) -> Views | None:
        return Views(batch)

    @torch.no_grad()
    def colours(self, batch: ImageBatch) -> Float[Tensor, "B 3 H W"]:
        """The images of a batch in [0, 1]."""
        return self.prior.decode(batch.images) if batch.encoded else 0.5 * batch.images + 0.5

    @torch.no_grad()
    def translate(self, images: Float[Tensor, "B 3 H W"]) -> Float[Tensor, "B 3 H W"]:
        """Images in [0, 1] of any size, translated in one pass."""
        return self.network(images.to(self.device)).clamp(0.0, 1.0)

    # -- pictures ------------------------------------------------------------------------------------------------

    def frame(self) -> UInt8[Tensor, "3 H W"]:
        """Originals over translations."""
        assert self.probes is not None  # `begin` takes them
        return contact_sheet([self.probes, self.translate(self.probes)])

    def results(self) -> dict[str, UInt8[Tensor, "3 H W"]]:
        return {} if self.probes is None else {"translations": self.frame()}

    def export(self, strict: bool = True) -> list[Path]:
        """Also the network, and the translations of ``apply_to``."""
        files = super().export(strict)
        assert self.save_dir is not None  # else there was an error
        own = self.scene.export(self.save_dir)
        if self.cfg.apply_to is not None:
            own += self._translate_files(Path(self.cfg.apply_to), self.save_dir / "translated")
        self.record.add_files(*own)
        self.write_metrics()
        return [*files, *own]

    def _translate_files(self, root: Path, folder: Path) -> list[Path]:
        """Each image by itself, in its own size, under its own name."""
        paths = image_paths(root, "system.apply_to")
        base = root if root.is_dir() else root.parent
        written = []
        for path in paths:
            target = (folder / path.relative_to(base)).with_suffix(".png")
            target.parent.mkdir(parents=True, exist_ok=True)
            image = 0.5 * read_image(path) + 0.5
            write_png(target, to_uint8(self.translate(image[None]))[0])
            written.append(target)
        return written

"""Training b_psi, the corrective of LMC-SDS, for any prior on any images."""

from __future__ import annotations

import copy
import logging
from dataclasses import dataclass, field
from typing import Any, Literal

import torch
from jaxtyping import Float
from torch import Tensor, nn

from distill3d.config.check import ConfigError
from distill3d.config.ranges import check_least
from distill3d.config.registry import make, register
from distill3d.config.schedule import Scheduled
from distill3d.guidance.corrective import CorrectiveNetwork, fit_spectral, save_corrective
from distill3d.guidance.corrective.picture import draw_report, loss_lines, spectra
from distill3d.guidance.corrective.training import (
    Memory,
    corrective_losses,
    denoise,
    identity,
    joined,
    losses_by_time,
    perturbed,
    validation_floor,
)
from distill3d.priors.base import DiffusionPrior
from distill3d.priors.embedding_cache import embedding_cache
from distill3d.priors.model import PriorModel
from distill3d.priors.text_table import TextTable
from distill3d.runtime.files import write_json
from distill3d.runtime.protocols import Captioned, SampledFromPrior, check_captioned_images
from distill3d.runtime.rng import rng
from distill3d.systems.model_training import ModelTraining, check_learning_rate, muon_groups
from distill3d.systems.prior_samples import fill_with_samples
from distill3d.types import Cameras, PromptEmbedding

log = logging.getLogger(__name__)
VALIDATION_IMAGES = 64
FIT_IMAGES = 128  # of the spectral b_psi that the network starts from
MEMORY_BATCHES = 64
MOST_TEXT_PARAMETERS = 1_000_000_000  # of text encoders that may stay beside the network


@register("system", "corrective-system")
class CorrectiveSystem(ModelTraining):
    """Trains the corrective network b_psi of LMC-SDS for a prior (arXiv 2401.05293).

    It writes save/corrective-{size}.safetensors. The network starts from the spectral b_psi, fitted to the first
    images, and learns what a filter cannot do.

    use_captions: x_hat is denoised with each image's caption, instead of the empty prompt. The captions of an image
        folder or of samples are embedded before the network is loaded, and the text encoders freed. Mesh views make
        captions without end: there the encoders stay beside the network, and may have at most 1 billion parameters
        (CLIP has fewer, T5-XXL has 4.8).
    width, patch: of the network; 32 and 2 give 300 k parameters. patch: 1 sees single pixels, at four times the cost.
    perturbation: deviation, at most, of white noise that is added to three images in four. Clean images lack high
        frequencies; b_psi then removes a checkerboard more strongly than the prior does, and LMC-SDS lets it grow.
    replay: earlier images with their x_hat that each batch learns again, for each new one: most of a step's time is the
        prior's. They come from the last 64 batches (fewer where these exceed 256 MB) and are in checkpoints.
    """

    @dataclass
    class Config:
        prior_type: str = "pretrained-diffusion-model"
        prior: dict[str, Any] = field(default_factory=dict)
        width: int = 32
        patch: int = 2
        use_captions: bool = False
        replay: int = 2
        perturbation: float = 0.2
        optimizer: Literal["AdamW", "Muon"] = "Muon"
        learning_rate: Scheduled = 2e-3
        weight_decay: float = 0.0
        ema_decay: float = 0.99
        save_every: int = 500
        loggers: dict[str, Any] = field(default_factory=dict)

        def __post_init__(self) -> None:
            check_learning_rate(self.learning_rate)
            check_least(self, width=1, patch=1, replay=0, perturbation=0)

    def check(self) -> None:
        """Raises PriorError, before anything is loaded or written, for a prior that is not there."""
        self._prior_model().check()

    def check_data(self, data: Any, training: bool) -> None:
        check_captioned_images(data)

    def build(self, data: Any) -> None:
        """Load the prior, have it sampled where the data asks for it, and make the networks."""
        self._load_prior(data)
        fill_with_samples(data, self.prior, self.embed, self.seed)
        first = next(iter(data.train_dataloader()))
        x = self.images(first)
        sigma_data = round(float((x - x.mean((2, 3), keepdim=True)).square().mean().sqrt()), 4)
        self.network = self._make_network(x, sigma_data)
        self._memory = Memory(MEMORY_BATCHES if self.cfg.replay else 0)
        self.ema_network = copy.deepcopy(self.network).requires_grad_(False).eval()
        cameras = self.cameras(first)
        seen_from = None if cameras is None else cameras[:VALIDATION_IMAGES]
        self._validation = (x[:VALIDATION_IMAGES], first.captions[:VALIDATION_IMAGES], seen_from)
        self.image_size = self._native_size(first, data)
        count = sum(p.numel() for p in self.network.parameters())
        log.info("b_psi: %d parameters, sigma_data %.3f, images of %d pixels", count, sigma_data, self.image_size)

    def _make_network(self, x: Float[Tensor, "B C h w"], sigma_data: float) -> CorrectiveNetwork:
        """The spectral fit to the first images with a network that adds nothing yet."""
        generator = rng("noise", self.seed, step=-2)
        x = perturbed(x, self.cfg.perturbation, generator)
        spectral = fit_spectral(self.prior, x, self.embed([""]), generator, repeats=max(1, FIT_IMAGES // len(x)))
        shape = (spectral.gains.shape[0], spectral.gains.shape[2])
        steps = self.prior.num_train_timesteps
        network = CorrectiveNetwork(x.shape[1], steps, sigma_data, self.cfg.width, self.cfg.patch, shape)
        network.filter.load_state_dict(spectral.state_dict())
        return network

    # -- the prior -----------------------------------------------------------------------------------------------

    def _load_prior(self, data: Any) -> None:
        """Embed the texts and free the text encoders, then load the prior."""
        device, model = self.trainer.strategy.root_device, self._prior_model()
        self.embed = self._text_table(data, model, device)
        # a dictionary hides it from Lightning: no parameter, no state
        self._frozen: dict[str, DiffusionPrior] = {"prior": model.load(device)}

    def _prior_model(self) -> PriorModel:
        """The prior's settings, and how it is loaded."""
        return make("prior", self.cfg.prior_type, self.cfg.prior, "system.prior")

    def _text_table(self, data: Any, model: PriorModel, device: torch.device) -> TextTable:
        """Every text of the run; for captions without end it keeps the text encoders, if they are small."""
        sampled, listed = isinstance(data, SampledFromPrior), isinstance(data, Captioned)
        endless = self.cfg.use_captions and not listed
        if endless:
            check_small_encoders(model)
        texts = ["", *data.captions()] if listed and (sampled or self.cfg.use_captions) else [""]
        cache = None if endless else embedding_cache(model, device)  # or it would gather thousands of files
        return TextTable(texts, model, device, cache, keep_encoder=endless)

    @property
    def prior(self) -> DiffusionPrior:
        return self._frozen["prior"]

    def text(self, captions: list[str]) -> PromptEmbedding:
        """The text that conditions the prior for these images: their captions, or the empty text."""
        return self.embed(captions if self.cfg.use_captions else [""] * len(captions))

    def cameras(self, batch: Any) -> Cameras | None:
        """The cameras of the images, where they are known; the prior gets them together with captions or not at all."""
        return batch.cameras.to(self.prior.device) if self.cfg.use_captions and batch.cameras is not None else None

    def images(self, batch: Any) -> Float[Tensor, "B C h w"]:
        """A batch in the prior's space."""
        images = batch.images.to(self.prior.device)
        with torch.no_grad():
            return images if batch.encoded else self.prior.encode(0.5 * images + 0.5)

    def _native_size(self, batch: Any, data: Any) -> int:
        """The prior's native size, in pixels, that the images have."""
        asked = data.cfg.image_size if batch.encoded else batch.images.shape[-1]
        sizes = self.prior.spec.image_sizes
        return sizes[-1] if asked is None else min(sizes, key=lambda size: abs(size - asked))

    # -- training ------------------------------------------------------------------------------------------------

    def training_step(self, batch: Any, _: int) -> Tensor:
        x, text = self.images(batch), self.text(batch.captions)
        generator = rng("noise", self.seed, self.global_step)
        x = perturbed(x, self.cfg.perturbation, generator)
        t = torch.randint(0, self.prior.num_train_timesteps, (len(x),), generator=generator).to(x.device)
        eps = torch.randn(x.shape, generator=generator).to(x.device)
        images = denoise(self.prior, x, text, t, eps, self.cameras(batch))
        earlier = self._memory.draw(self.cfg.replay * len(x), generator)
        self._memory.keep(images)
        loss = corrective_losses(self.network, self.prior, joined([images, *earlier])).mean()
        self.log("loss", loss, prog_bar=True)
        return loss

    def parameter_groups(self) -> list[dict[str, Any]]:
        return muon_groups(self.network, ("net.time", "net.stem", "net.head"))

    def trained(self) -> list[tuple[nn.Module, nn.Module]]:
        return [(self.ema_network, self.network)]

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        super().on_save_checkpoint(checkpoint)
        checkpoint["replay"] = self._memory.state()

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        super().on_load_checkpoint(checkpoint)
        if self.built:
            self._memory.restore(checkpoint.get("replay", []), self.prior.device)  # earlier versions kept none

    def save(self) -> None:
        """The averaged network."""
        path = self.out_dir / f"corrective-{self.image_size}.safetensors"
        save_corrective(self.ema_network, path, self.prior.identity, self.image_size)
        log.info("step %d: b_psi is in %s", self.global_step, path)

    def on_train_end(self) -> None:
        super().on_train_end()
        self.draw_validation()

    @torch.no_grad()
    def draw_validation(self) -> None:
        """save/corrective.png and save/validation.json: spectra, and the loss by t beside that of other correctives."""
        x, captions, cameras = self._validation
        text = self.text(captions)
        generator = rng("noise", self.seed, step=-1)
        spectral = fit_spectral(self.prior, x, text[:1], generator).to(x.device)
        rivals = {"b_psi": self.ema_network, "spectral": spectral, "none (SDS)": identity}
        losses = losses_by_time(rivals, self.prior, x, text, generator, cameras=cameras)  # type: ignore[arg-type]
        losses["floor"] = validation_floor(self.prior, x, text, generator, cameras=cameras)
        self.out_dir.mkdir(parents=True, exist_ok=True)
        lines = spectra(self.ema_network, self.prior, x, text, generator, cameras=cameras)
        draw_report(self.out_dir / "corrective.png", lines, loss_lines(losses))
        write_json(self.out_dir / "validation.json", {"loss_by_time": losses})
        means = ", ".join(f"{name} {sum(values) / len(values):.4f}" for name, values in losses.items())
        log.info("mean loss: %s; pictures in %s", means, self.out_dir)


def check_small_encoders(model: PriorModel) -> None:
    """Raise ConfigError if the text encoders are too large to stay in memory beside the network."""
    count = model.text_parameters()
    if count > MOST_TEXT_PARAMETERS:
        raise ConfigError(
            f"system.use_captions=true needs the text encoders all the time, since these data make captions without "
            f"end, and those of {model.name} have {count / 1e9:.1f} billion parameters; at "
            f"most {MOST_TEXT_PARAMETERS / 1e9:.0f} billion may stay beside the network. Set "
            "system.use_captions=false, or give images with their captions in text files beside them: "
            "data_type=image-folder-datamodule data.root=PATH",
            "system.use_captions",
        )

"""Score distillation: one loop for every scene, every frozen prior and every guidance."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from typing import Any, ClassVar, NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from distill3d.config.check import ConfigError
from distill3d.config.registry import find, make
from distill3d.data.random_cameras import draw_rank
from distill3d.guidance.base import distillation_loss, distillation_loss_value
from distill3d.optim import OptimizerSettings
from distill3d.priors.base import DiffusionPrior
from distill3d.runtime.protocols import Sized
from distill3d.runtime.rng import rng
from distill3d.scenes.base import Scene, Step, Views
from distill3d.systems.base import TrainedSystem, TrainingSettings
from distill3d.systems.guidance_pictures import ask_looking, guidance_sheet
from distill3d.types import Cameras, GuidanceInput, GuidanceOutput, ShadingMode, TextRequest

log = logging.getLogger(__name__)


@dataclass
class DistillationSettings(TrainingSettings):
    """Settings of every system: the scene, the prior, the guidance and the optimiser."""

    scene_type: str | None = None
    scene: dict[str, Any] = field(default_factory=dict)
    prompt_processor_type: str = "prompt-processor"
    prompt_processor: dict[str, Any] = field(default_factory=dict)
    guidance_type: str = "sds"
    guidance: dict[str, Any] = field(default_factory=dict)
    prior_type: str = "pretrained-diffusion-model"
    prior: dict[str, Any] = field(default_factory=dict)
    # steps between pictures of what the guidance sees: save/it{N}-guidance.png; 0: none
    guidance_pictures_every: int = 0

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.guidance_pictures_every < 0:
            raise ValueError(f"guidance_pictures_every={self.guidance_pictures_every} must be 0 (none) or positive")


class Encoded(NamedTuple):
    """What the guidance sees in a step, in the prior's space; ``source`` is the original of an edit."""

    x: Float[Tensor, "B C h w"]
    source: Float[Tensor, "B C h w"] | None


class DistillationSystem(TrainedSystem):
    """A scene, a guidance and, while it trains, a frozen prior; an edit keeps the ``original`` of its scene.

    What a subclass adds: what its scene starts from (`begin`), and the pictures that are kept.
    """

    Config: ClassVar[type] = DistillationSettings
    has_original: ClassVar[bool] = True  # whether the guidance is given what an edit starts from

    def configure(self) -> None:
        # dictionaries hide the prior and the original from Lightning: no parameter, no state, no move between devices
        self._frozen: dict[str, DiffusionPrior] = {}
        self._originals: dict[str, Any] = {}
        self.prompt_processor = self.make("prompt_processor")
        self.guidance = self.make("guidance")
        self.scene: Any = self.make_scene()

    @property
    def prompt_text(self) -> str:
        return self.prompt_processor.prompt.text

    def make_scene(self) -> Scene:
        """The scene that ``scene_type`` names, with the settings of ``scene``."""
        name = self.cfg.scene_type
        if name is None:
            return Scene()
        return make("scene", name, {**self.scene_settings(), **self.cfg.scene}, "system.scene")

    def scene_settings(self) -> dict[str, Any]:
        """Those of the system's usual scene, which stand among its own: system.geometry, system.count, ..."""
        own = {f.name: f for f in fields(self.cfg)}
        cls: Any = find("scene", self.cfg.scene_type, "system.scene_type")
        if self.cfg.scene_type != own["scene_type"].default:
            return {name: getattr(self.cfg, name) for name in cls.shared_settings if name in own}
        return {f.name: getattr(self.cfg, f.name) for f in fields(cls.Config) if f.name in own}

    @property
    def original(self) -> Any:
        """The scene of an edit as it was, frozen; None where nothing is edited. It is in no checkpoint."""
        return self._originals.get("scene")

    def keep_original(self) -> None:
        """Keep the scene as it is now."""
        self._originals["scene"] = self.scene.original()

    def trained_parts(self) -> dict[str, Any]:
        parts: dict[str, Any] = {}
        for name, child in self.named_children():
            parts |= self.scene.parameter_groups() if name == "scene" else {name: child}
        return parts

    # -- the prior -----------------------------------------------------------------------------------------------

    @property
    def prior(self) -> DiffusionPrior:
        if "prior" not in self._frozen:
            raise RuntimeError("the prior is loaded for training only; call setup('fit') first")
        return self._frozen["prior"]

    def setup(self, stage: str) -> None:
        """For training: embed the prompts (and free the text encoder), then load the prior."""
        self.record.describe(self.trainer)
        if stage != "fit":
            return
        device = self.trainer.strategy.root_device
        model = self.make("prior")
        self.prompt_processor.prepare(self.text_requests(), model, device)
        self._frozen["prior"] = model.load(device)
        self._warn_of_untold_views()
        self.scene.prepare(self.seed)
        self.guidance.prepare(self.prior, self.prompt_processor.texts(None, 1))
        self.begin()

    def _warn_of_untold_views(self) -> None:
        """Say so where nothing tells the prior from which side it looks: every side then becomes the front."""
        told = self.prompt_processor.prompt.tells_views or "camera" in self.prior.spec.conditions
        if self.scene.has_cameras and not told:
            log.warning(
                "nothing tells the model from which side it looks: it takes no cameras (or is told none), and "
                "system.prompt_processor.view_dependent_prompting=false; set that to true, or take a model that takes "
                "cameras"
            )

    def begin(self) -> None:
        """Prepare training; the prior is loaded and the trainer has its data."""

    def check(self) -> None:
        """What training needs and the configuration alone does not tell, before anything is loaded or written.

        Raises ConfigError, or the ValueError of the part that is at fault.
        """
        self.check_optimizer()
        rule = self.cfg.guidance_type
        if self.guidance.edits and not self.has_original:
            raise ConfigError(
                f"system.guidance_type={rule} edits an original, and a {type(self).__name__} has none; choose another "
                "rule, such as sds or lmc-sds, or an edit: image-edit.yaml, nerf-edit.yaml, svg-edit.yaml",
                "system.guidance_type",
            )
        self.text_requests()
        self.scene.check()
        self.guidance.check()
        model = self.make("prior")
        model.check()
        kind = model.kind()
        if kind is not None:
            self.guidance.check_kind(kind)

    def check_data(self, data: Any, training: bool) -> None:
        """In training, every size that the data's views will have. Raises ConfigError."""
        if not training or not isinstance(data, Sized):
            return
        model = self.make("prior")
        model.kind()  # a model that is not there is no fault of the sizes, and says so itself
        for size in data.view_sizes():
            try:
                model.check_size(size.height, size.width)
            except ValueError as error:
                raise ConfigError(f"{size.settings}; {error}", size.settings.partition("=")[0]) from error

    def text_requests(self) -> dict[str, TextRequest]:
        """The texts to embed, by role: those of the guidance, and what a system adds for itself."""
        return self.guidance.texts(self.prompt_processor.prompt)

    def on_fit_end(self) -> None:
        self._frozen.clear()

    # -- one step ------------------------------------------------------------------------------------------------

    def step_now(self) -> Step:
        """The present step, as a scene sees it."""
        weights = self.cfg.loss.weights(self.global_step, self.current_epoch)
        return Step(self.global_step, self.seed, draw_rank(self.trainer), frozenset(weights))

    def on_train_batch_start(self, batch: Any, batch_idx: int) -> None:
        super().on_train_batch_start(batch, batch_idx)
        with self.record.watch("render"), self.full_precision():
            self.scene.before_step(self.step_now())

    def training_step(self, batch: Any, batch_idx: int) -> Tensor | None:
        step, target = self.step_now(), self.pictures_to_fit(batch)
        with self.record.watch("render"), self.full_precision():
            views = self.scene.views(batch, step)
            with torch.no_grad():
                source_views = self.views_of_original(batch, step) if target is None else None
        self.observe(views)
        if target is not None:
            return self.weighted({"photometric": (views.images - target).square().mean()}, views)
        with self.record.watch("prior"), self.full_precision():
            x, source = self.encode(views, source_views)
            guided = self.distil(x, views.cameras, views.shading, source)
        terms = {"sds": distillation_loss(x, guided.grad)}
        if source is not None and "source" in step.losses:
            terms["source"] = 0.5 * (x - source).square().sum() / len(x)
        return self.weighted(terms, views, guided)

    def views_of_original(self, batch: Any, step: Step) -> Views | None:
        """What the batch's views show of the original of an edit; None where nothing is edited."""
        return None if self.original is None else self.original.views(batch, step)

    def pictures_to_fit(self, batch: Any) -> Float[Tensor, "B 3 H W"] | None:
        """Pictures that the views are fitted to in this step, by ``lambda_photometric``; None: they are distilled."""
        return None

    def encode(self, views: Views, source_views: Views | None) -> Encoded:
        """Views, and what they show of the original, in the prior's space; the graph is that of the views alone."""
        x = self._encode(views)
        if source_views is None:
            return Encoded(x, None)
        with torch.no_grad():
            return Encoded(x, self._encode(source_views))

    def _encode(self, views: Views) -> Float[Tensor, "B C h w"]:
        x = views.images if views.encoded else self.prior.encode(views.images)
        return x if views.copies == 1 else x.repeat_interleave(views.copies, 0)

    def observe(self, views: Views) -> None:
        """Look at the views of a training step."""
        self.views_per_shading.update(views.shading or ())

    def distil(
        self,
        x: Tensor,
        cameras: Cameras | None,
        shading: Sequence[ShadingMode] | None = None,
        source: Tensor | None = None,
    ) -> GuidanceOutput:
        """Ask the guidance for the gradient of x, in fp32; cameras and shading modes choose each row's words."""
        inputs = GuidanceInput(
            x=x.float(),
            texts=self.prompt_processor.texts(cameras, len(x), shading),
            step=self.global_step,
            max_steps=self.trainer.max_steps,
            generator=rng("noise", self.seed, self.global_step, draw_rank(self.trainer)),
            cameras=cameras,
            source=source,
            seed=self.seed,
        )
        every = self.cfg.guidance_pictures_every
        looking = bool(every) and self.global_step % every == 0
        with self.full_precision():
            guided = ask_looking(self.guidance, self.prior, inputs) if looking else self.guidance(self.prior, inputs)
            sheet = guidance_sheet(self.prior, inputs.x, guided) if looking else None
        if sheet is not None:
            self.save_png(sheet, f"it{self.global_step}-guidance.png")
        self.log_numbers({**guided.diagnostics, "loss_sds": distillation_loss_value(guided.grad)})
        return guided

    def weighted(self, terms: Mapping[str, Tensor], views: Views, guided: GuidanceOutput | None = None) -> Tensor:
        """The loss of a step, with the scene's own terms; the guidance's own loss trains its own parameters."""
        weights = self.cfg.loss.all_weights(self.global_step, self.current_epoch)
        own = {name: term() for name, term in views.terms.items() if weights.get(name, 1.0) != 0.0}
        terms = {**terms, **own}
        self.log_numbers({f"loss_{name}": term.detach() for name, term in terms.items() if name != "sds"})
        used = {name: term for name, term in terms.items() if weights.get(name, 1.0) != 0.0}
        total = sum((weights.get(name, 1.0) * term for name, term in used.items()), torch.zeros(()).to(self.device))
        if guided is None or guided.own_loss is None:
            return total
        self.log_numbers({"loss_guidance": guided.own_loss.detach()})
        return total + guided.own_loss

    def optimizer_step(self, *args: Any, **kwargs: Any) -> None:
        super().optimizer_step(*args, **kwargs)
        optimizer: Any = self.optimizers(use_pl_optimizer=False)
        self.scene.after_backward(optimizer, self.step_now())  # here, so that every checkpoint holds its result

    def optimizer_settings(self) -> OptimizerSettings:
        """The user's; scene and guidance train at their own published rates where the user does not name them."""
        settings = self.cfg.optimizer
        rule = None if self.guidance is None else self.guidance.optimizer_defaults  # a reconstruction has no guidance
        published = {f"scene.{name}": dict(rates) for name, rates in self.scene.optimizer_defaults.items()}
        if rule is not None and not any(name.split(".")[0] == "guidance" for name in settings.params):
            published["guidance"] = dict(rule)
        return replace(settings, params={**published, **settings.params})

    # -- checkpoints ---------------------------------------------------------------------------------------------

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """The scene takes the sizes of the checkpoint. Raises CheckpointError where it is not of this experiment."""
        state = checkpoint["state_dict"]
        own = {name.removeprefix("scene."): value for name, value in state.items() if name.startswith("scene.")}
        self.scene.state_for(own)
        if "prior" not in self._frozen:  # parameters that the guidance makes from the prior are for training only
            present = self.state_dict()
            for name in [n for n in state if n.startswith("guidance.") and n not in present]:
                del state[name]
        super().on_load_checkpoint(checkpoint)

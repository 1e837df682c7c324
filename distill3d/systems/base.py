"""What every score-distillation system shares: a prior that is never saved, a guidance, one optimiser, and records.

A subclass builds what is optimised in `configure`, and says in `training_step` how it becomes images.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, ClassVar

import pytorch_lightning as pl
import torch
from jaxtyping import UInt8
from torch import Tensor, nn

from distill3d import __version__
from distill3d.config.check import ConfigError, build
from distill3d.config.registry import Kind, find
from distill3d.config.schedule import Scheduled, scheduled
from distill3d.data.random_cameras import draw_rank
from distill3d.optim import OptimizerSettings, SchedulerSettings, make_optimizer, make_scheduler
from distill3d.optim.groups import check_modules
from distill3d.priors.base import DiffusionPrior
from distill3d.priors.loader import PriorConfig, prior_kind
from distill3d.runtime.checkpoint import check_same_experiment
from distill3d.runtime.pictures import write_png
from distill3d.runtime.rng import rng
from distill3d.systems.guidance_pictures import ask_looking, guidance_sheet
from distill3d.systems.health import GradientHealth, gradient_norm
from distill3d.systems.losses import distillation_loss_value
from distill3d.systems.record import RunRecord
from distill3d.types import Cameras, GuidanceInput, GuidanceOutput, ShadingMode, TextRequest

log = logging.getLogger(__name__)


@dataclass
class SystemSettings:
    """Settings of every system: the prior, the guidance and the optimiser."""

    prompt_processor_type: str = "prompt-processor"
    prompt_processor: dict[str, Any] = field(default_factory=dict)
    guidance_type: str = "sds"
    guidance: dict[str, Any] = field(default_factory=dict)
    prior_type: str = "pretrained-diffusion-model"
    prior: dict[str, Any] = field(default_factory=dict)
    optimizer: OptimizerSettings = field(default_factory=OptimizerSettings)
    scheduler: SchedulerSettings | None = None
    loggers: dict[str, Any] = field(default_factory=dict)
    gradient_norm_limit: Scheduled | None = None  # gradients of larger norm are scaled down to it
    max_nonfinite_steps: int = 25  # in a row, before training stops
    # steps between pictures of what the guidance sees: save/it{N}-guidance.png; 0: none
    guidance_pictures_every: int = 0

    def __post_init__(self) -> None:
        if self.guidance_pictures_every < 0:
            raise ValueError(f"guidance_pictures_every={self.guidance_pictures_every} must be 0 (none) or positive")
        if self.max_nonfinite_steps < 1:
            raise ValueError(f"max_nonfinite_steps={self.max_nonfinite_steps} must be at least 1")


class ScoreDistillationSystem(pl.LightningModule):
    """A LightningModule with a guidance and, while it trains, a frozen prior."""

    Config: ClassVar[type] = SystemSettings
    has_original: ClassVar[bool] = True  # whether the guidance is given what an edit starts from
    cfg: Any

    def __init__(self, cfg: Any, seed: int = 0) -> None:
        super().__init__()
        self.cfg = cfg
        self.seed = seed
        self.loaded_step = 0
        self.views_per_shading: Counter[str] = Counter()
        self.gradients = GradientHealth(cfg.max_nonfinite_steps)
        # a dictionary hides the prior from Lightning: no parameter, no state, no move between devices
        self._frozen: dict[str, DiffusionPrior] = {}
        self.prompt_processor = self.make("prompt_processor")
        # the initial weights are a function of the seed, whatever was drawn before
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(rng("data", seed, step=-1).initial_seed() % 2**63)
            self.guidance = self.make("guidance")
            self.configure()
        self.record = RunRecord(self.prompt_processor.prompt.text, seed)

    def configure(self) -> None:
        """Build what is optimised."""
        raise NotImplementedError

    def make(self, kind: Kind, *parts: Any) -> Any:
        """The part that ``<kind>_type`` names, made with the settings of ``<kind>``."""
        name = getattr(self.cfg, f"{kind}_type")
        cls = find(kind, name, f"system.{kind}_type")
        return cls(build(cls.Config, getattr(self.cfg, kind), f"system.{kind}"), *parts)  # type: ignore[attr-defined]

    def trained_parts(self) -> dict[str, nn.Module]:
        """Modules by the names that ``optimizer.params`` knows."""
        return dict(self.named_children())

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
        self.prompt_processor.prepare(self.text_requests(), model.cfg, device)
        self._frozen["prior"] = model.load(device)
        if hasattr(self.guidance, "prepare"):
            self.guidance.prepare(self.prior, self.prompt_processor.texts(None, 1))

    def check(self) -> None:
        """What training needs and the configuration alone does not tell, before anything is loaded or written.

        Raises ConfigError, or the ValueError of the part that is at fault.
        """
        self.check_optimizer()
        rule = self.cfg.guidance_type
        if getattr(self.guidance, "edits", False) and not self.has_original:
            raise ConfigError(
                f"system.guidance_type={rule} edits an original, and a {type(self).__name__} has none; choose another "
                "rule, such as sds or lmc-sds, or an edit: image-edit.yaml, nerf-edit.yaml, svg-edit.yaml",
                "system.guidance_type",
            )
        self.text_requests()
        if hasattr(self.guidance, "check"):
            self.guidance.check()
        prior = self.make("prior").cfg
        if isinstance(prior, PriorConfig):
            kind = prior_kind(prior)
            if hasattr(self.guidance, "check_kind"):
                self.guidance.check_kind(kind)

    def check_optimizer(self) -> None:
        """Raise ConfigError where the optimiser's settings name a module that there is not."""
        check_modules(nn.ModuleDict(self.trained_parts()), self.cfg.optimizer.params, complete=False)

    def text_requests(self) -> dict[str, TextRequest]:
        """The texts to embed, by role: those of the guidance, and what a system adds for itself."""
        return self.guidance.texts(self.prompt_processor.prompt)

    def on_fit_end(self) -> None:
        self._frozen.clear()

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

    def full_precision(self) -> torch.autocast:
        """A context without autocast: rays, compositing and gradients are fp32; the prior has its own precision."""
        return torch.autocast(self.device.type, enabled=False)

    # -- one step ------------------------------------------------------------------------------------------------

    def weighted(self, terms: Mapping[str, Tensor], weights: Mapping[str, float], guided: GuidanceOutput) -> Tensor:
        """The loss of a step; the guidance's own loss trains its own parameters with weight 1."""
        self.log_numbers({f"loss_{name}": term.detach() for name, term in terms.items() if name != "sds"})
        total = sum(
            (weights[name] * term for name, term in terms.items() if name in weights), torch.zeros(()).to(self.device)
        )
        if guided.own_loss is None:
            return total
        self.log_numbers({"loss_guidance": guided.own_loss.detach()})
        return total + guided.own_loss

    def on_train_batch_start(self, batch: Any, batch_idx: int) -> None:
        self.record.watch.start("total")

    def on_before_backward(self, loss: Tensor) -> None:
        self.record.watch.start("backward")

    def on_after_backward(self) -> None:
        self.record.watch.stop("backward")

    def on_before_optimizer_step(self, optimizer: torch.optim.Optimizer) -> None:
        """Leave out a step whose gradients are not finite, and limit their norm."""
        parameters = [p for group in optimizer.param_groups for p in group["params"]]
        norm = gradient_norm(parameters)
        self.record.gradient_norm = float(norm)
        if not self.gradients.observe(self.record.gradient_norm):
            for parameter in parameters:  # an optimiser passes over parameters without a gradient
                parameter.grad = None
            self._explain_divergence()
            return
        self.log_numbers({"gradient_norm": norm})
        limit = self.cfg.gradient_norm_limit
        if limit is not None:
            torch.nn.utils.clip_grads_with_norm_(parameters, scheduled(limit, self.global_step), norm)

    def optimizer_step(self, *args: Any, **kwargs: Any) -> None:
        super().optimizer_step(*args, **kwargs)
        self.record.watch.stop("optimizer")

    def configure_gradient_clipping(self, *args: Any, **kwargs: Any) -> None:
        super().configure_gradient_clipping(*args, **kwargs)
        self.record.watch.start("optimizer")  # the last hook before the optimiser's own work

    def on_train_batch_end(self, outputs: Any, batch: Any, batch_idx: int) -> None:
        self.record.watch.stop("total")
        self.record.metrics.steps = self.global_step
        self.record.metrics.finished = False

    def _explain_divergence(self) -> None:
        if self.gradients.diverged:
            self.warn_user(self.gradients.explanation(self.global_step))
            self.trainer.should_stop = True

    def configure_optimizers(self) -> Any:
        optimizer = make_optimizer(nn.ModuleDict(self.trained_parts()), self.optimizer_settings())
        if self.cfg.scheduler is None:
            return optimizer
        schedule = make_scheduler(optimizer, self.cfg.scheduler)
        return {
            "optimizer": optimizer,
            "lr_scheduler": {"scheduler": schedule, "interval": self.cfg.scheduler.interval},
        }

    def optimizer_settings(self) -> OptimizerSettings:
        """The user's; a guidance with parameters trains at its published rate where they do not name it."""
        settings, published = self.cfg.optimizer, getattr(self.guidance, "optimizer_defaults", None)
        named = any(name.split(".")[0] == "guidance" for name in settings.params)
        if published is None or named:
            return settings
        return replace(settings, params={**settings.params, "guidance": dict(published)})

    # -- records -------------------------------------------------------------------------------------------------

    @property
    def steps_done(self) -> int:
        """Steps of training behind the present weights, also where a checkpoint brought them."""
        done = self.trainer.global_step if self._trainer is not None else 0
        return max(done, self.loaded_step)

    def attach(self, trial: Any) -> None:
        """Write what the run leaves behind into a trial's folder."""
        self.record.attach(Path(trial.root))

    def log_numbers(self, values: Mapping[str, float | Tensor]) -> None:
        """To the loggers, under train/, in the steps that they record; pictures among the values are passed over."""
        every = getattr(self.trainer, "log_every_n_steps")  # noqa: B009, unknown to its type
        if (self.global_step + 1) % max(every, 1):
            return  # Lightning would drop them too, after milliseconds of bookkeeping
        scalars = {f"train/{name}": v for name, v in values.items() if not isinstance(v, Tensor) or v.ndim == 0}
        self.log_dict(scalars, batch_size=1)

    def warn_user(self, text: str) -> None:
        """One warning, which also stands in metrics.json."""
        log.warning("%s", text)
        self.record.metrics.warnings.append(text)

    @property
    def save_dir(self) -> Path | None:
        """Where pictures go; None without a trial, and on all devices but the first."""
        return self.record.save_dir if self.global_rank == 0 else None

    def save_png(self, image: UInt8[Tensor, "3 H W"], name: str) -> None:
        """A picture of the trial's save/; nothing without a trial."""
        folder = self.save_dir
        if folder is not None:
            path = folder / name
            write_png(path, image)
            self.record.add_files(path)

    def write_metrics(self) -> None:
        """Bring metrics.json up to date; nothing without a trial, and on all devices but the first."""
        if self.global_rank != 0:
            return
        self.record.metrics.diverged = self.gradients.diverged
        self.record.metrics.skipped_steps = self.gradients.skipped
        self.record.metrics.views_per_shading = dict(sorted(self.views_per_shading.items()))
        self.record.write(self.steps_done)

    # -- checkpoints ---------------------------------------------------------------------------------------------

    def identity(self) -> dict[str, str]:
        """What a checkpoint must agree in to be one of this experiment."""
        kinds = ("geometry", "background", "material", "renderer", "guidance")
        names = {kind: getattr(self.cfg, f"{kind}_type") for kind in kinds if hasattr(self.cfg, f"{kind}_type")}
        return {"system": type(self).__name__, **names}

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        checkpoint["distill3d"] = {
            "version": __version__,
            "identity": self.identity(),
            "seed": self.seed,
            "views_per_shading": dict(self.views_per_shading),
            "skipped_steps": self.gradients.skipped,
            "nonfinite_in_a_row": self.gradients.in_a_row,
        }

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Raises CheckpointError for a checkpoint of another experiment."""
        state, own = checkpoint["state_dict"], self.state_dict()
        if "prior" not in self._frozen:  # parameters that the guidance makes from the prior are for training only
            for name in [n for n in state if n.startswith("guidance.") and n not in own]:
                del state[name]
        check_same_experiment(checkpoint, self.identity(), own)
        saved = checkpoint["distill3d"]
        self.loaded_step = int(checkpoint["global_step"])
        self.views_per_shading = Counter(saved["views_per_shading"])
        self.gradients.skipped, self.gradients.in_a_row = saved["skipped_steps"], saved["nonfinite_in_a_row"]
        self.record.carry_on(self.loaded_step)

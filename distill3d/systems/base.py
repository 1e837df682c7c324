"""What every trained system shares: gradients that are looked at, one optimiser, records, checkpoints."""

from __future__ import annotations

import logging
import re
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, ClassVar

import pytorch_lightning as pl
import torch
from jaxtyping import UInt8
from pytorch_lightning.loggers import TensorBoardLogger
from torch import Tensor, nn

from distill3d import __version__
from distill3d.config.ranges import check_least
from distill3d.config.registry import Kind, make
from distill3d.config.schedule import Scheduled, scheduled, smallest
from distill3d.optim import OptimizerSettings, SchedulerSettings, make_optimizer, make_scheduler
from distill3d.optim.groups import check_modules
from distill3d.optim.rehearsal import rehearse
from distill3d.runtime.checkpoint import check_same_experiment, count
from distill3d.runtime.pictures import write_png
from distill3d.runtime.rng import rng
from distill3d.systems.health import GradientHealth, gradient_norm
from distill3d.systems.optimizer_states import check_states, unheeded
from distill3d.systems.record import RunRecord

log = logging.getLogger(__name__)


@dataclass
class LossWeights:
    """Settings named ``lambda_<loss>``: the weight of each loss, a number or a schedule, at least 0."""

    def __post_init__(self) -> None:
        for name in self._names():
            value = getattr(self, name)
            if smallest(value) < 0:
                raise ValueError(f"{name}={value} would raise its loss instead of lowering it; give 0 or more")

    def _names(self) -> list[str]:
        return [f.name for f in fields(self) if f.name.startswith("lambda_")]

    def weights(self, step: int, epoch: int = 0) -> dict[str, float]:
        """The weights that are not 0 at this step, by the name of the loss."""
        return {name: value for name, value in self.all_weights(step, epoch).items() if value != 0.0}

    def all_weights(self, step: int, epoch: int = 0) -> dict[str, float]:
        """All weights at this step, by the name of the loss."""
        return {name.removeprefix("lambda_"): scheduled(getattr(self, name), step, epoch) for name in self._names()}


@dataclass
class TrainingSettings:
    """Settings of whatever is trained."""

    optimizer: OptimizerSettings = field(default_factory=OptimizerSettings)
    scheduler: SchedulerSettings | None = None
    loggers: dict[str, Any] = field(default_factory=dict)
    gradient_norm_limit: Scheduled | None = None  # gradients of larger norm are scaled down to it
    max_nonfinite_steps: int = 25  # in a row, before training stops
    profile: bool = False  # on a GPU: wait for it around each stage, so that metrics.json has seconds of each

    def __post_init__(self) -> None:
        check_least(self, max_nonfinite_steps=1)
        limit = self.gradient_norm_limit
        if limit is not None and smallest(limit) <= 0:
            raise ValueError(f"gradient_norm_limit={limit} must be positive; null sets no limit")


class TrainedSystem(pl.LightningModule):
    """A LightningModule that records what it does. A subclass builds what is optimised in `configure`."""

    Config: ClassVar[type] = TrainingSettings
    logged: ClassVar[tuple[str, ...]] = ("train/",)  # what checkpoint.monitor may name
    cfg: Any

    def __init__(self, cfg: Any, seed: int = 0) -> None:
        super().__init__()
        self.cfg, self.seed = cfg, seed
        self.loaded_step = 0
        self.views_per_shading: Counter[str] = Counter()
        self._seconds: dict[str, float] = {}  # of each stage in a step so far, for the loggers
        self._opacities: list[Tensor] = []  # of the views since the last step of the optimiser, not read yet
        self.gradients = GradientHealth(cfg.max_nonfinite_steps)
        # the initial weights are a function of the seed, whatever was drawn before
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(rng("data", seed, step=-1).initial_seed() % 2**63)
            self.configure()
        self.record = RunRecord(self.prompt_text, seed, cfg.profile)

    def configure(self) -> None:
        """Build what is optimised."""
        raise NotImplementedError

    @property
    def prompt_text(self) -> str:
        """What metrics.json calls the prompt; empty where there is none."""
        return ""

    def make(self, kind: Kind, *parts: Any) -> Any:
        """The part that ``<kind>_type`` names, made with the settings of ``<kind>``."""
        return make(kind, getattr(self.cfg, f"{kind}_type"), getattr(self.cfg, kind), f"system.{kind}", *parts)

    def trained_parts(self) -> dict[str, nn.Module]:
        """Modules by the names that ``optimizer.params`` knows."""
        return dict(self.named_children())

    def full_precision(self) -> torch.autocast:
        """A context without autocast: rays, compositing and gradients are fp32; the prior has its own precision."""
        return torch.autocast(self.device.type, enabled=False)

    # -- one step ------------------------------------------------------------------------------------------------

    def on_train_batch_start(self, batch: Any, batch_idx: int) -> None:
        means = self.record.watch.per_step(self.global_step)  # here, where all stages have the same number of steps
        self._seconds = {f"seconds_{stage}": seconds for stage, seconds in means.items()}
        self.record.watch.start("total")

    def on_before_backward(self, loss: Tensor) -> None:
        self.record.watch.start("backward")

    def on_after_backward(self) -> None:
        self.record.watch.stop("backward")

    def on_before_optimizer_step(self, optimizer: torch.optim.Optimizer) -> None:
        """Leave out a step whose gradients are not finite, and limit their norm."""
        parameters = [p for group in optimizer.param_groups for p in group["params"]]
        norm = gradient_norm(parameters)
        # together and once: the host waits for the device whenever it reads
        self.record.gradient_norm, *opacities = torch.stack([norm, *(o.to(norm) for o in self._opacities)]).tolist()
        self._opacities.clear()
        self.on_opacities(opacities)
        if not self.gradients.observe(self.record.gradient_norm):
            for parameter in parameters:  # an optimiser passes over parameters without a gradient
                parameter.grad = None
            self._explain_divergence()
            return
        rates = {f"learning_rate_{group.get('name', i)}": group["lr"] for i, group in enumerate(optimizer.param_groups)}
        self.log_numbers({"gradient_norm": norm, **rates, **self._seconds})
        limit = self.cfg.gradient_norm_limit
        if limit is not None:
            torch.nn.utils.clip_grads_with_norm_(parameters, scheduled(limit, self.global_step), norm)

    def on_opacities(self, opacities: list[float]) -> None:
        """Look at the mean opacity of each batch of views since the last step of the optimiser."""

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

    # -- the optimiser -------------------------------------------------------------------------------------------

    def check_optimizer(self) -> None:
        """Raise ConfigError where the optimiser's settings name a module that there is not."""
        rehearse(self.cfg.optimizer, self.cfg.scheduler)
        check_modules(nn.ModuleDict(self.trained_parts()), self.cfg.optimizer.params, complete=False)

    def configure_optimizers(self) -> Any:
        optimizer = make_optimizer(nn.ModuleDict(self.trained_parts()), self.optimizer_settings())
        if self.cfg.scheduler is None:
            return optimizer
        schedule = make_scheduler(optimizer, self.cfg.scheduler)
        return {
            "optimizer": optimizer,
            "lr_scheduler": {"scheduler": schedule, "interval": self.cfg.scheduler.interval},
        }

    def check_going_on(self, checkpoint: dict[str, Any], where: str) -> None:
        """Raise CheckpointError, beginning with ``where``, if the optimiser cannot go on; warn of unheeded settings."""
        settings = self.optimizer_settings()
        root = nn.ModuleDict(self.trained_parts())
        check_states(root, settings, checkpoint["optimizer_states"], "guidance", where)
        told = unheeded(settings, self.cfg.scheduler, checkpoint)
        if told:
            log.warning("system.optimizer: %s; to train its scene anew set system.weights", "; ".join(told))

    def optimizer_settings(self) -> OptimizerSettings:
        """The user's, with published rates of parts that they do not name."""
        return self.cfg.optimizer

    # -- records -------------------------------------------------------------------------------------------------

    @property
    def steps_done(self) -> int:
        """Steps of training behind the present weights, also where a checkpoint brought them."""
        done = self.trainer.global_step if self._trainer is not None else 0
        return max(done, self.loaded_step)

    @property
    def trained_nothing(self) -> bool:
        """Whether every step so far was left out."""
        return 0 < self.steps_done <= self.gradients.skipped

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
            self._show(name, image)

    def _show(self, name: str, image: UInt8[Tensor, "3 H W"]) -> None:
        """The picture in TensorBoard, at its step."""
        tag = re.sub(r"^it\d+-", "", Path(name).stem)
        for logger in self.loggers if self._trainer is not None else ():
            if isinstance(logger, TensorBoardLogger):
                logger.experiment.add_image(f"pictures/{tag}", image, self.steps_done)

    def write_metrics(self) -> None:
        """Bring metrics.json up to date; nothing without a trial, and on all devices but the first."""
        if self.global_rank != 0:
            return
        self.record.metrics.diverged = self.gradients.diverged or self.trained_nothing
        self.record.metrics.skipped_steps = self.gradients.skipped
        self.record.metrics.views_per_shading = dict(sorted(self.views_per_shading.items()))
        self.record.write(self.steps_done)

    # -- checkpoints ---------------------------------------------------------------------------------------------

    def identity(self) -> dict[str, str]:
        """What a checkpoint must agree in to be one of this experiment."""
        kinds = ("scene", "geometry", "background", "material", "renderer", "guidance")
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
        """Raises CheckpointError for a checkpoint that belongs to another experiment."""
        check_same_experiment(checkpoint, self.identity(), self.state_dict())
        saved = checkpoint["distill3d"]
        self.loaded_step = count(checkpoint, "global_step")
        views = saved["views_per_shading"]
        self.views_per_shading = Counter({shading: count(views, shading) for shading in views})
        self.gradients.skipped = count(saved, "skipped_steps")
        self.gradients.in_a_row = count(saved, "nonfinite_in_a_row")
        self.record.carry_on(self.loaded_step)

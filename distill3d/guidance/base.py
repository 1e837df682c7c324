"""What every guidance shares: the protocol, the settings, the draw of t and noise, and the distillation loss.

A new rule is one file: a subclass of `ScoreDistillation` that names its texts (``roles``), its published settings
(``Config.published``) and its ``gradient``, which asks `predict` for the passes that it needs.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any, ClassVar, Literal, NamedTuple

import torch
from jaxtyping import Float, Int, Shaped
from torch import Tensor, nn

from distill3d.camera import set_count
from distill3d.config.schedule import Scheduled, check_schedule, scheduled
from distill3d.guidance.perp_neg import Decay, ViewDecays, perp_neg, view_requests, view_texts
from distill3d.guidance.timesteps import (
    TimestepSampling,
    WeightingStrategy,
    check_step_percents,
    draw_timesteps,
    time_weight,
    timestep_bounds,
)
from distill3d.priors.base import DiffusionPrior
from distill3d.priors.kinds import PriorKind
from distill3d.runtime.rng import rng
from distill3d.types import (
    Cameras,
    GuidanceInput,
    GuidanceOutput,
    Pass,
    Prediction,
    Prompt,
    PromptEmbedding,
    TextRequest,
)

Diagnostics = dict[str, float | Tensor]
SCHEDULED = ("guidance_scale", "min_step_percent", "max_step_percent", "grad_clip")


class Guidance:
    """A rule for the gradient. It asks the prior for the passes that it needs; nothing else is computed.

    Base of every registered guidance: `texts` and `__call__` are the rule, the other hooks do nothing by default.
    """

    edits: ClassVar[bool] = False  # whether ``GuidanceInput.source`` must be there
    # settings of the optimiser for the guidance's own parameters, where system.optimizer.params names none
    optimizer_defaults: ClassVar[Mapping[str, float] | None] = None

    def texts(self, prompt: Prompt) -> dict[str, TextRequest]:
        """Roles to texts: ``conditional`` (per view), ``unconditional`` (""), ``negative`` (the user's), its own."""
        raise NotImplementedError

    def __call__(self, prior: DiffusionPrior, inputs: GuidanceInput) -> GuidanceOutput:
        raise NotImplementedError

    def check(self) -> None:
        """Raises ValueError for settings that cannot work, before anything is loaded or written."""

    def check_kind(self, kind: PriorKind) -> None:
        """Raises ValueError for a kind of model that the rule cannot use, before it is loaded."""

    def prepare(self, prior: DiffusionPrior, prompt_embeddings: Mapping[str, PromptEmbedding]) -> None:
        """Load or build what the rule needs, once the prior is there and before the optimiser is made."""


def distillation_loss(x: Float[Tensor, "B C h w"], grad: Float[Tensor, "B C h w"]) -> Tensor:
    """A scalar whose gradient with respect to x is exactly ``grad / B``: ``(stop(g) * x).sum() / B`` in fp32.

    The form ``0.5 ||x - stop(x - g)||^2`` rounds g away in half precision; its value is logged instead, by the system.
    """
    with torch.autocast(x.device.type, enabled=False):
        return (grad.detach().float() * x.float()).sum() / x.shape[0]


def distillation_loss_value(grad: Float[Tensor, "B C h w"]) -> Float[Tensor, ""]:
    """``0.5 ||g||^2 / B``: what is logged, because the loss that carries the gradient has no meaningful value."""
    return 0.5 * grad.detach().float().square().sum() / grad.shape[0]


def classifier_free(conditional: Tensor, unconditional: Tensor, guidance_scale: float) -> Tensor:
    """``eps^w = (1 + w) eps_y - w eps_0``, the papers' convention (diffusers' s is w + 1)."""
    return conditional + guidance_scale * (conditional - unconditional)


@dataclass
class DistillationConfig:
    """Settings that every rule shares. Null takes the rule's own published value, then the general one.

    guidance_scale is the papers' w (diffusers' s is w + 1). Times are fractions of the prior's diffusion time.
    noise: ``fresh`` draws eps in each step, ``fixed`` keeps one eps for each row for the whole run (diverse results).
    grad_clip: score debiasing (arXiv 2303.15413), clamps the gradient to +-grad_clip; .5 -> 2 suits pixels.
    """

    guidance_scale: Scheduled | None = None
    min_step_percent: Scheduled | None = None
    max_step_percent: Scheduled | None = None
    timestep_sampling: TimestepSampling | None = None
    weighting_strategy: WeightingStrategy | None = None
    noise: Literal["fresh", "fixed"] | None = None
    grad_clip: Scheduled | None = None
    use_perp_neg: bool = False
    perp_neg_f_sb: Decay = ViewDecays().side_back
    perp_neg_f_fsb: Decay = ViewDecays().front_side_back
    perp_neg_f_fs: Decay = ViewDecays().front_side
    perp_neg_f_sf: Decay = ViewDecays().side_front
    perp_neg_overhead_threshold: float = 60.0

    general: ClassVar[Mapping[str, Any]] = {
        "guidance_scale": 100.0,
        "min_step_percent": 0.02,
        "max_step_percent": 0.98,
        "timestep_sampling": "uniform",
        "weighting_strategy": "sds",
        "noise": "fresh",
    }
    published: ClassVar[Mapping[str, Any]] = {}
    # settings whose published value changes over a run of any length: schedules with knots in thousandths of the run
    published_over_run: ClassVar[Mapping[str, Scheduled]] = {}

    def __post_init__(self) -> None:
        for name, value in {**self.general, **self.published}.items():
            if getattr(self, name) is None and name not in self.published_over_run:
                setattr(self, name, value)
        for name in SCHEDULED:
            if getattr(self, name) is not None:
                check_schedule(getattr(self, name), name)
        check_step_percents(self.min_step_percent, self.max_step_percent)

    @property
    def perp_neg_decays(self) -> ViewDecays:
        return ViewDecays(self.perp_neg_f_sb, self.perp_neg_f_fsb, self.perp_neg_f_fs, self.perp_neg_f_sf)


class Query(NamedTuple):
    """One evaluation of the prior that a rule asks for: the text of a role at (z, t)."""

    role: str
    z: Float[Tensor, "B C h w"]
    t: Int[Tensor, "B"]
    adapter: nn.Module | None = None


def guided_pair(z: Float[Tensor, "B C h w"], t: Int[Tensor, "B"], guidance_scale: float) -> dict[str, Query]:
    """The queries ``conditional`` and ``negative``. At w = 0 both are the conditional one, which is evaluated once.

    Whatever multiplies their difference by w stays as it is, and half of the step's work is saved.
    """
    return {
        "conditional": Query("conditional", z, t),
        "negative": Query("negative" if guidance_scale != 0.0 else "conditional", z, t),
    }


@dataclass(frozen=True)
class Draw:
    """x without its graph, the noise and the time of one step, and what follows from them; B rows, fp32."""

    x: Float[Tensor, "B C h w"]
    t: Int[Tensor, "B"]
    eps: Float[Tensor, "B C h w"]
    alpha: Float[Tensor, "B 1 1 1"]
    sigma: Float[Tensor, "B 1 1 1"]
    weight: Float[Tensor, "B 1 1 1"]  # c(t)

    @cached_property
    def z(self) -> Float[Tensor, "B C h w"]:
        return self.alpha * self.x + self.sigma * self.eps

    def query(self, role: str) -> Query:
        return Query(role, self.z, self.t)

    def pair(self, guidance_scale: float) -> dict[str, Query]:
        """What classifier-free guidance asks for at z, see `guided_pair`."""
        return guided_pair(self.z, self.t, guidance_scale)


def make_draw(prior: DiffusionPrior, x: Tensor, t: Tensor, eps: Tensor, weighting: WeightingStrategy = "sds") -> Draw:
    """The draw for a given time and noise."""
    alpha, sigma = prior.alpha_sigma(t)
    return Draw(x.detach().float(), t, eps, alpha, sigma, time_weight(weighting, alpha, sigma))


class ScoreDistillation(Guidance):
    """Base of the rules: ``gradient`` is the rule, and this class is all that the rules have in common.

    Random numbers come from ``inputs.generator`` alone: first t, then the noise, then what the rule itself draws.
    ``look``: set it to have pictures (``x_hat``, ...) among the diagnostics, in the prior's image space.
    """

    Config: ClassVar[type[DistillationConfig]] = DistillationConfig
    roles: ClassVar[tuple[str, ...]] = ("conditional", "negative")

    def __init__(self, cfg: Any) -> None:
        self.cfg = cfg
        self.look = False

    def gradient(self, prior: DiffusionPrior, inputs: GuidanceInput, draw: Draw) -> tuple[Tensor, Diagnostics]:
        """g, of x's shape, and what is worth logging."""
        raise NotImplementedError

    def texts(self, prompt: Prompt) -> dict[str, TextRequest]:
        """The texts of ``roles``. Raises ValueError where the prompt lacks one."""
        texts = {role: request_text(role, prompt) for role in self.roles}
        return {**texts, **view_requests(prompt)} if self.cfg.use_perp_neg else texts

    def __call__(self, prior: DiffusionPrior, inputs: GuidanceInput) -> GuidanceOutput:
        draw = self.draw(prior, inputs)
        grad, diagnostics = self.gradient(prior, inputs, draw)
        return GuidanceOutput(self.clip(grad, inputs), None, {"t": draw.t.float().mean(), **diagnostics})

    def draw(self, prior: DiffusionPrior, inputs: GuidanceInput) -> Draw:
        """The time and the noise of this step."""
        t = self.draw_t(prior, inputs)
        return make_draw(prior, inputs.x, t, self.draw_noise(inputs), self.cfg.weighting_strategy)

    def draw_t(self, prior: DiffusionPrior, inputs: GuidanceInput) -> Int[Tensor, "B"]:
        total = prior.num_train_timesteps
        low, high = (self.at(name, inputs) for name in ("min_step_percent", "max_step_percent"))
        bounds = timestep_bounds(low, high, total)
        rest = bounds, progress(inputs), total, inputs.generator
        return per_set(prior, inputs.x, lambda sets: draw_timesteps(self.cfg.timestep_sampling, sets, *rest))

    def draw_noise(self, inputs: GuidanceInput, fixed: bool | None = None) -> Float[Tensor, "B C h w"]:
        """Noise from this step's generator, or, where it is fixed, the one that depends on the seed alone."""
        generator = inputs.generator
        if self.cfg.noise == "fixed" if fixed is None else fixed:
            generator = rng("noise", inputs.seed, step=-1, device=generator.device)  # no step of the run has this one
        return torch.randn(inputs.x.shape, generator=generator, device=generator.device).to(inputs.x.device)

    def at(self, name: str, inputs: GuidanceInput) -> float:
        """The value of a scheduled setting in this step."""
        spec = getattr(self.cfg, name)
        if spec is None:
            return scheduled(self.cfg.published_over_run[name], round(1000 * progress(inputs)))
        return scheduled(spec, inputs.step)

    def predict(
        self, prior: DiffusionPrior, inputs: GuidanceInput, queries: Mapping[str, Query], grad: bool = False
    ) -> dict[str, Prediction]:
        """All queries in one call of the prior; with ``use_perp_neg`` the conditional ones go through Perp-Neg."""
        if self.cfg.use_perp_neg:
            return self._predict_perp_neg(prior, inputs, queries, grad)
        passes = [as_pass(query, inputs.texts[query.role], inputs.cameras) for query in queries.values()]
        return dict(zip(queries, prior.predict(passes, grad), strict=True))

    def _predict_perp_neg(
        self, prior: DiffusionPrior, inputs: GuidanceInput, queries: Mapping[str, Query], grad: bool
    ) -> dict[str, Prediction]:
        if inputs.cameras is None:
            raise ValueError("use_perp_neg=true needs cameras, and this system has none; set it to false")
        overhead_deg = self.cfg.perp_neg_overhead_threshold
        views = view_texts(inputs.texts, inputs.cameras, self.cfg.perp_neg_decays, overhead_deg)
        reference = inputs.texts["negative" if "negative" in inputs.texts else "unconditional"]
        passes: list[Pass] = []
        for query in queries.values():
            conditional = query.role == "conditional" and query.adapter is None
            rows = (views.positive, reference, *views.negatives) if conditional else (inputs.texts[query.role],)
            passes += [as_pass(query, text, inputs.cameras) for text in rows]
        answers = iter(prior.predict(passes, grad))
        predictions = {}
        for name, query in queries.items():
            if query.role == "conditional" and query.adapter is None:
                positive, base, *negatives = (next(answers) for _ in range(4))
                predictions[name] = perp_neg(positive, base, negatives, views.weights)
            else:
                predictions[name] = next(answers)
        return predictions

    def clip(self, grad: Float[Tensor, "B C h w"], inputs: GuidanceInput) -> Float[Tensor, "B C h w"]:
        """Score debiasing (arXiv 2303.15413): g clamped to +-grad_clip."""
        if self.cfg.grad_clip is None:
            return grad
        limit = self.at("grad_clip", inputs)
        return grad.clamp(-limit, limit)


def as_pass(query: Query, text: PromptEmbedding, cameras: Cameras | None) -> Pass:
    """The pass of a query; every text comes with the camera, since classifier-free guidance is of the text alone."""
    return Pass(query.z, query.t, text, query.adapter, cameras)


def per_set(prior: DiffusionPrior, rows: Tensor, draw: Callable[[int], Shaped[Tensor, "sets"]]) -> Shaped[Tensor, "B"]:
    """What ``draw(sets)`` draws, for each row: the views that a multi-view prior sees together share it."""
    n_view = prior.spec.n_view
    return draw(set_count(len(rows), n_view)).repeat_interleave(n_view).to(rows.device)


def progress(inputs: GuidanceInput) -> float:
    """The share of the run that is over, in [0, 1]."""
    return min(max(inputs.step / max(inputs.max_steps, 1), 0.0), 1.0)


def request_text(role: str, prompt: Prompt) -> TextRequest:
    """The text that a prompt has for one of the common roles."""
    if role == "source" and prompt.source is None:
        raise ValueError(
            "system.prompt_processor.source_prompt is not set; describe the original that is edited: "
            'system.prompt_processor.source_prompt="a cat"'
        )
    texts = {"conditional": prompt.text, "unconditional": "", "negative": prompt.negative, "source": prompt.source}
    return TextRequest(texts[role] or "", per_view=role in ("conditional", "source"))


def mean_norm(tensor: Float[Tensor, "B C h w"]) -> Float[Tensor, ""]:
    """Euclidean norm of a row, averaged over the batch."""
    return tensor.detach().flatten(1).norm(dim=1).mean()


def mean_cosine(a: Float[Tensor, "B C h w"], b: Float[Tensor, "B C h w"]) -> Float[Tensor, ""]:
    """Cosine between rows, averaged over the batch."""
    return torch.nn.functional.cosine_similarity(a.detach().flatten(1), b.detach().flatten(1), dim=1).mean()

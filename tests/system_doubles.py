"""Small stand-ins for a whole run: a closed-form prior, its prompts, and a scene that trains in no time."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytorch_lightning as pl
import torch
from closed_form import GaussianPrior

from distill3d.config.check import build
from distill3d.config.registry import find, register
from distill3d.data.random_cameras import RandomCameraConfig, RandomCameraDataModule
from distill3d.priors.model import PriorModel
from distill3d.systems.callbacks import trainer_callbacks, trainer_loggers
from distill3d.types import Prompt, PromptEmbedding

logging.getLogger("pytorch_lightning").setLevel(logging.ERROR)
LOADED: list[str] = []  # every prior that was loaded, by the name of its test


@register("prior", "closed-form-for-tests")
class ClosedFormModel(PriorModel):
    """A Gaussian around one flat colour for every text."""

    @dataclass
    class Config:
        size: int = 8
        red: float = 0.8
        schedule: str = "sd"  # or flow
        poison_from: int = -1  # calls of predict from this one on return values that are not finite

    def load(self, device: Any) -> GaussianPrior:
        LOADED.append("prior")
        mean = torch.full((1, 3, self.cfg.size, self.cfg.size), -0.4)
        mean[:, 0] = 2 * self.cfg.red - 1
        prior = GaussianPrior((3, self.cfg.size, self.cfg.size), directions=mean, schedule=self.cfg.schedule)
        if self.cfg.poison_from >= 0:
            prior.predict = _poisoned(prior, self.cfg.poison_from)  # type: ignore[method-assign]
        return prior


def _poisoned(prior: GaussianPrior, start: int) -> Any:
    healthy = prior.predict

    def predict(passes: list, grad: bool = False) -> list:
        answers = healthy(passes, grad)
        if len(prior.calls) > start:
            for answer in answers:
                answer.noise.fill_(float("nan"))
        return answers

    return predict


@register("prompt_processor", "closed-form-prompts-for-tests")
class ClosedFormPrompts:
    """One token per text: 1 for words, 0 for none."""

    @dataclass
    class Config:
        prompt: str = "a red ball"

    def __init__(self, cfg: Config) -> None:
        self.prompt = Prompt(cfg.prompt)
        self.requests: dict[str, Any] = {}

    def prepare(self, requests: Any, prior: Any, device: Any) -> None:
        LOADED.append("texts")
        self.requests = dict(requests)

    def texts(self, cameras: Any, batch: int, shading: Any = None) -> dict[str, PromptEmbedding]:
        rows = {role: float(bool(request.text)) for role, request in self.requests.items()}
        return {role: PromptEmbedding(torch.full((batch, 1, 1), value)) for role, value in rows.items()}


TINY_SYSTEM: dict[str, Any] = {
    "prompt_processor_type": "closed-form-prompts-for-tests",
    "prior_type": "closed-form-for-tests",
    "guidance": {"guidance_scale": 1.0},
    "geometry": {
        "radius": 0.6,
        "density_blob_std": 0.3,
        "pos_encoding_config": {"otype": "DenseGrid", "n_levels": 1, "n_features_per_level": 4, "base_resolution": 8},
        "mlp_network_config": {"n_neurons": 8},
    },
    "material": {"ambient_only_steps": 2},
    "renderer": {"num_samples_per_ray": 16, "occupancy_resolution": 8, "occupancy_update_interval": 2},
    "loss": {"lambda_orient": [0, 1e-4, 1e-2, 4], "lambda_sparsity": 1e-2},
    "exporter": {},
}
TINY_DATA: dict[str, Any] = {
    "width": 8,
    "height": 8,
    "camera_distance_range": [1.4, 1.8],
    "eval_width": 16,
    "eval_height": 16,
    "n_test_views": 3,
    "eval_batch_size": 2,
}


def merged(base: dict[str, Any], changes: dict[str, Any]) -> dict[str, Any]:
    """Nested mappings, changed where ``changes`` says so."""
    out = dict(base)
    for key, value in changes.items():
        inner = isinstance(value, dict) and isinstance(out.get(key), dict)
        out[key] = merged(out[key], value) if inner else value
    return out


def tiny_system(seed: int = 0, **changes: Any) -> Any:
    cls = find("system", "dreamfusion-system")
    return cls(build(cls.Config, merged(TINY_SYSTEM, changes), "system"), seed=seed)  # type: ignore[attr-defined]


def tiny_data(seed: int = 0, **changes: Any) -> RandomCameraDataModule:
    return RandomCameraDataModule(build(RandomCameraConfig, merged(TINY_DATA, changes), "data"), seed=seed)


def make_trainer(root: Path, max_steps: int, **settings: Any) -> pl.Trainer:
    cfg = SimpleNamespace(
        checkpoint=settings.pop("checkpoint", {"save_last": True, "save_top_k": 0}),
        trainer={"enable_progress_bar": settings.pop("enable_progress_bar", False)},
        system={"loggers": settings.pop("loggers", {"tensorboard": {"enable": False}})},
    )
    trial = SimpleNamespace(root=root)
    defaults = {"log_every_n_steps": 1, "num_sanity_val_steps": 0, "val_check_interval": 10_000, "accelerator": "cpu"}
    return pl.Trainer(
        max_steps=max_steps,
        callbacks=trainer_callbacks(trial, cfg),
        logger=trainer_loggers(trial, cfg),
        enable_progress_bar=cfg.trainer["enable_progress_bar"],
        enable_model_summary=False,
        **(defaults | settings),
    )


def fit(root: Path, steps: int, resume: Path | None = None, seed: int = 0, **changes: Any) -> tuple[Any, pl.Trainer]:
    """Train the tiny system for some steps in the trial folder ``root``."""
    trainer_settings = changes.pop("trainer", {})
    data = tiny_data(seed, **changes.pop("data", {}))
    system = tiny_system(seed, **changes)
    system.attach(SimpleNamespace(root=root))
    trainer = make_trainer(root, steps, **trainer_settings)
    trainer.fit(system, data, ckpt_path=resume)
    return system, trainer


def check_resumed_run(root: Path, steps: int, stop: int, **changes: Any) -> Any:
    """A run that stops and resumes ends with the bits of a whole one, its optimiser's too. Returns its system."""
    whole, _ = fit(root / "whole", steps, **changes)
    fit(root / "parts", stop, **changes)
    resumed, _ = fit(root / "parts", steps, root / "parts/ckpts/last.ckpt", **changes)
    for name, value in whole.state_dict().items():
        assert torch.equal(value, resumed.state_dict()[name]), name
    memories = [
        torch.load(root / name / "ckpts/last.ckpt", weights_only=True)["optimizer_states"][0]["state"]
        for name in ("whole", "parts")
    ]
    for own, other in zip(*(memory.values() for memory in memories), strict=True):
        assert all(torch.equal(own[key], other[key]) for key in own)
    return resumed

"""What is told before anything is loaded or written: parts that Lightning and torch would refuse in training."""

from __future__ import annotations

import pytest
import torch
from system_doubles import TINY_DATA, TINY_SYSTEM, merged

from distill3d import cli
from distill3d.config.check import ConfigError
from distill3d.config.yaml_text import dump_yaml
from distill3d.optim import OptimizerSettings, SchedulerSettings
from distill3d.optim.rehearsal import rehearse

CONFIG = {
    "name": "tiny",
    "data": TINY_DATA,
    "system": merged(TINY_SYSTEM, {"prompt_processor": {"prompt": "a ball"}}),
    "trainer": {"max_steps": 2, "enable_progress_bar": False, "accelerator": "cpu"},
}
MISTAKES = {
    "checkpoint.save_top_k=3": "checkpoint: ",
    "checkpoint.mode=foo": "checkpoint: ",
    'checkpoint.filename="{"': "checkpoint: ",
    "checkpoint.filename=../x": "leads out of the trial",
    "trainer.precision=64": "trainer.precision=64",
    "trainer.accumulate_grad_batches=0": "trainer.accumulate_grad_batches=0",
    "trainer.limit_train_batches=0": "trainer.limit_train_batches=0",
    "system.optimizer.args.betas=[]": "system.optimizer",
    "system.optimizer.name=SparseAdam": "SparseAdam cannot work",
    "system.scheduler={name: CosineAnnealingLR, args: {T_max: 0}}": "CosineAnnealingLR cannot work",
    "system.gradient_norm_limit=-1": "gradient_norm_limit=-1",
    "system.gradient_norm_limit=[0, 1.0, 0.0, 100]": "gradient_norm_limit=[0, 1.0, 0.0, 100]",
    "system.guidance.guidance_scale=.inf": "system.guidance.guidance_scale=inf",
    "system.guidance_type=[sds]": "system.guidance_type=['sds']",
    "system.geometry.radius=1e-30": "system.geometry.radius=1e-30",
    "system.background={color: [2, 0, 0]}": "system.background.color",
    "data.eval_fovy_deg=0": "data.eval_fovy_deg=0",
    "data.eval_fovy_deg=-1": "data.eval_fovy_deg=-1",
    "data.eval_camera_distance=0": "data.eval_camera_distance=0",
}


def test_each_mistake_is_one_line_and_leaves_nothing_behind(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("DISTILL3D_TRIAL", raising=False)
    (tmp_path / "tiny.yaml").write_text(dump_yaml(CONFIG))
    for argument, message in MISTAKES.items():
        solid = ["system.background_type=solid-color-background"] if "background" in argument else []
        assert cli.main(["--config", "tiny", *solid, argument]) == 2, argument
        told = capsys.readouterr().err.splitlines()
        assert message in told[-1] and "Traceback" not in "".join(told), argument
        assert [path.name for path in tmp_path.iterdir()] == ["tiny.yaml"], argument


def test_what_works_is_not_refused_and_draws_no_random_numbers():
    state = torch.get_rng_state()
    rehearse(OptimizerSettings(), None)
    rehearse(OptimizerSettings(params={"geometry": {"lr": 0}, "background": {"lr": 1e-3}}), SchedulerSettings())
    for name, args in (("Adan", {"lr": 0.01}), ("Shampoo", {"lr": 0.01}), ("LBFGS", {"lr": 0.1}), ("SGD", {"lr": 1.0})):
        rehearse(OptimizerSettings(name, args), SchedulerSettings("LinearLR", {"total_iters": 5}, warmup_steps=3))
    assert torch.equal(state, torch.get_rng_state())


def test_the_part_at_fault_is_named():
    with pytest.raises(ConfigError, match=r"system\.optimizer: SparseAdam .*dense gradients"):
        rehearse(OptimizerSettings("SparseAdam", {"lr": 0.01}), None)
    with pytest.raises(ConfigError, match=r"system\.scheduler: CosineAnnealingLR"):
        rehearse(OptimizerSettings(), SchedulerSettings("CosineAnnealingLR", {"T_max": 0}))
    with pytest.raises(ConfigError, match=r"system\.optimizer"):
        rehearse(OptimizerSettings(params={"geometry": {"betas": []}}), None)

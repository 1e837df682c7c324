"""A checkpoint that a training cannot go on from is told before anything is written, whatever is wrong inside."""

from __future__ import annotations

import copy
import inspect
from pathlib import Path

import pytest
import torch
from system_doubles import TINY_DATA, TINY_SYSTEM, fit, merged, tiny_system

from distill3d import cli
from distill3d.config.yaml_text import dump_yaml
from distill3d.optim import OptimizerSettings, make_optimizer
from distill3d.runtime.checkpoint import CheckpointError
from distill3d.systems.optimizer_states import check_states, unheeded

pytestmark = pytest.mark.usefixtures("restore_logging")
CONFIG = {
    "name": "tiny",
    "data": TINY_DATA,
    "system": merged(TINY_SYSTEM, {"prompt_processor": {"prompt": "a ball"}}),
    "trainer": {"max_steps": 2, "enable_progress_bar": False, "accelerator": "cpu"},
}


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    root = tmp_path_factory.mktemp("saved")
    fit(root, 1)
    return torch.load(root / "ckpts" / "last.ckpt", weights_only=True)


def _first(content):
    return content["optimizer_states"][0]


DAMAGE = {
    "the first moment is NaN": (
        lambda c: _first(c)["state"][0]["exp_avg"].fill_(float("nan")),
        "its exp_avg holds NaN or infinity",
    ),
    "the first moment has another size": (
        lambda c: _first(c)["state"][0].update(exp_avg=torch.ones(7, 3)),
        "has exp_avg of (7, 3) for ",
    ),
    "the first moment is gone": (lambda c: _first(c)["state"][0].pop("exp_avg"), "has no exp_avg"),
    "a rate is NaN": (lambda c: _first(c)["param_groups"][0].update(lr=float("nan")), "a rate that is no finite"),
    "a rate is text": (lambda c: _first(c)["param_groups"][0].update(lr="x"), "a rate that is no finite"),
    "a group has one parameter more": (
        lambda c: _first(c)["param_groups"][0]["params"].append(99),
        "has other groups of parameters",
    ),
    "another optimiser beside": (lambda c: c["optimizer_states"].append(_first(c)), "the states of 2 optimisers"),
    "progress is text": (
        lambda c: c["loops"]["fit_loop"].update({"epoch_loop.batch_progress": "x"}),
        "cannot be read as a checkpoint of this experiment",
    ),
    "a callback's record is empty": (
        lambda c: next(iter(c["callbacks"].values())).update(best_k_models=None),
        "cannot be read as a checkpoint of this experiment",
    ),
    "Lightning's version is none": (lambda c: c.update({"pytorch-lightning_version": "x"}), "Invalid version"),
    "a count is text": (lambda c: c["distill3d"].update(skipped_steps="x"), "its skipped_steps is 'x'"),
    "weights are whole numbers": (
        lambda c: c["state_dict"].update({k: v.int() for k, v in c["state_dict"].items()}),
        "is torch.int32 there and torch.float32 here",
    ),
}


def test_each_damage_is_one_line_and_leaves_nothing_behind(saved, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("DISTILL3D_TRIAL", raising=False)
    (tmp_path / "tiny.yaml").write_text(dump_yaml(CONFIG))
    for name, (damage, message) in DAMAGE.items():
        content = copy.deepcopy(saved)
        damage(content)
        torch.save(content, "bad.ckpt")
        assert cli.main(["--config", "tiny", "resume=bad.ckpt"]) == 2, name
        told = capsys.readouterr().err.splitlines()
        assert message in told[-1] and "resume" in told[-1] and "Traceback" not in "".join(told), (name, told[-1])
        assert sorted(path.name for path in Path().iterdir()) == ["bad.ckpt", "tiny.yaml"], name


@pytest.mark.parametrize(
    ("name", "args"), [("SGD", {"lr": 0.1, "momentum": 0.9}), ("Adan", {"lr": 0.1}), ("Shampoo", {"lr": 0.1})]
)
def test_the_state_of_another_optimiser_is_refused_and_its_own_is_taken(name, args, saved, tmp_path):
    own = {"optimizer": {"name": name, "args": args}}
    system, _ = fit(tmp_path, 1, **own)
    mine = torch.load(tmp_path / "ckpts" / "last.ckpt", weights_only=True)
    system.check_going_on(mine, "resume")
    with pytest.raises(CheckpointError, match=r"it is of another optimiser; use the configs/parsed\.yaml"):
        system.check_going_on(saved, "resume")
    with pytest.raises(CheckpointError, match="it is of another optimiser"):
        tiny_system().check_going_on(mine, "resume")


OPTIMIZERS = {name for name, one in vars(torch.optim).items() if inspect.isclass(one) and hasattr(one, "zero_grad")}
NAMES = sorted(OPTIMIZERS - {"Optimizer", "SparseAdam"} | {"Adan", "Shampoo"})  # SparseAdam takes no dense gradients
ARGS = {
    "SGD": {"momentum": 0.9},
    "RMSprop": {"momentum": 0.9, "centered": True},
    "Shampoo": {"momentum": 0.9, "grafting": "adam"},
    "Adam": {"amsgrad": True},
}


@pytest.mark.parametrize("name", NAMES)
def test_whatever_has_the_shape_of_a_parameter_must_have_it_in_a_checkpoint(name):
    settings = OptimizerSettings(name, {"lr": 0.1, **ARGS.get(name, {})})
    parameters = {"a": torch.nn.Parameter(torch.ones(4, 6)), "c": torch.nn.Parameter(torch.ones(2, 9))}
    if name != "Muon":
        parameters["b"] = torch.nn.Parameter(torch.ones(7))
    root = torch.nn.ModuleDict({"scene": torch.nn.ParameterDict(parameters)})
    optimizer = make_optimizer(root, settings)

    def loss():
        optimizer.zero_grad()
        value = sum(parameter.square().sum() for parameter in root.parameters())
        value.backward()
        return value

    for _ in range(2):
        optimizer.step(loss)
    saved = optimizer.state_dict()
    check_states(root, settings, [saved], "guidance", "resume")
    sizes = [tuple(parameter.shape) for parameter in optimizer.param_groups[0]["params"]]
    checked = [
        (index, key, value)
        for index, state in saved["state"].items()
        for key, value in state.items()
        if isinstance(value, torch.Tensor) and tuple(value.shape) == sizes[index]
    ]
    assert bool(checked) == (name != "LBFGS")
    for index, key, value in checked:
        damaged = copy.deepcopy(saved)
        damaged["state"][index][key] = value[:-1].clone()
        with pytest.raises(CheckpointError, match=f"has {key} of"):
            check_states(root, settings, [damaged], "guidance", "resume")


def test_an_optimiser_without_a_memory_takes_none():
    root = torch.nn.ModuleDict({"scene": torch.nn.Linear(2, 2)})
    adam = make_optimizer(root, OptimizerSettings())
    sum(parameter.sum() for parameter in root.parameters()).backward()
    adam.step()
    with pytest.raises(CheckpointError, match="has exp_avg, exp_avg_sq, step: it is of another optimiser"):
        check_states(root, OptimizerSettings("SGD", {"lr": 0.1}), [adam.state_dict()], "guidance", "resume")


def test_parameters_of_a_guidance_are_made_later_and_not_compared(saved):
    root = torch.nn.ModuleDict({"scene": torch.nn.Linear(2, 2)})
    adam = torch.optim.Adam(
        [{"params": [*root.parameters()], "name": "scene"}, {"params": [torch.ones(3)], "name": "guidance.lora"}]
    )
    check_states(root, OptimizerSettings(), [adam.state_dict()], "guidance", "resume")
    with pytest.raises(CheckpointError, match=r"other groups of parameters: guidance.lora \(1\), scene \(2\) there"):
        check_states(root, OptimizerSettings(), [adam.state_dict()], "nothing", "resume")


def test_settings_that_a_checkpoint_overrides_are_told(saved):
    settings = OptimizerSettings("Adam", {"lr": 0.5, "betas": [0.9, 0.99]}, {"background": {"lr": 0.01}})
    told = unheeded(settings, None, saved)
    assert told == ["geometry keeps the checkpoint's lr of 0.01, not 0.5"]
    assert unheeded(OptimizerSettings("Adam", {"lr": 0.01}), None, saved | {"lr_schedulers": [{}]}) == [
        "the rates stay as they are"
    ]

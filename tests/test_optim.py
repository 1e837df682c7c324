"""Adan, Shampoo and Muon against their formulas, parameter groups, schedules."""

from __future__ import annotations

import logging
import math

import pytest
import torch
from torch import nn

from distill3d.config.check import ConfigError
from distill3d.optim import Adan, Muon, OptimizerSettings, SchedulerSettings, Shampoo, make_optimizer, make_scheduler
from distill3d.optim.groups import check_modules, parameter_groups
from distill3d.optim.muon import orthogonalized
from distill3d.optim.shampoo import from_blocks, matrix_power, to_blocks


def gradients(count: int, *shape: int, seed: int = 0) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return [torch.randn(*shape, generator=generator, dtype=torch.float64) for _ in range(count)]


def run(optimizer_class, start: torch.Tensor, steps: list[torch.Tensor], **settings) -> torch.Tensor:
    parameter = nn.Parameter(start.clone())
    optimizer = optimizer_class([parameter], **settings)
    for gradient in steps:
        parameter.grad = gradient.clone()
        optimizer.step()
    return parameter.detach()


# -- Adan ----------------------------------------------------------------------------------------------------------


def adan_by_hand(x, steps, lr, betas, eps, decay):
    """The paper's algorithm 1 with its own betas (1 - ours), bias-corrected, one line an equation."""
    b1, b2, b3 = (1 - b for b in betas)
    m, v, n = (torch.zeros_like(x) for _ in range(3))
    last = steps[0]
    for k, g in enumerate(steps, 1):
        m = (1 - b1) * m + b1 * g
        v = (1 - b2) * v + b2 * (g - last)
        n = (1 - b3) * n + b3 * (g + (1 - b2) * (g - last)) ** 2
        m_hat, v_hat, n_hat = (y / (1 - (1 - b) ** k) for y, b in ((m, b1), (v, b2), (n, b3)))
        x = (x - lr / (n_hat.sqrt() + eps) * (m_hat + (1 - b2) * v_hat)) / (1 + decay * lr)
        last = g
    return x


@pytest.mark.parametrize("decay", [0.0, 0.3])
def test_adan_is_the_papers_algorithm(decay):
    start, *steps = gradients(9, 3, 4)
    settings = {"lr": 0.05, "betas": (0.9, 0.8, 0.7), "eps": 1e-6, "weight_decay": decay}
    expected = adan_by_hand(start, steps, 0.05, (0.9, 0.8, 0.7), 1e-6, decay)
    torch.testing.assert_close(run(Adan, start, steps, **settings), expected)


def test_adan_under_constant_gradients_steps_by_the_learning_rate():
    start = torch.zeros(2, dtype=torch.float64)
    moved = run(Adan, start, [torch.tensor([3.0, -1e-4], dtype=torch.float64)] * 5, lr=0.1, eps=1e-15)
    torch.testing.assert_close(moved, torch.tensor([-0.5, 0.5], dtype=torch.float64))


@pytest.mark.parametrize("optimizer_class", [Adan, Shampoo])
def test_a_parameter_without_a_gradient_stands_still(optimizer_class):
    parameter = nn.Parameter(torch.ones(3))
    optimizer = optimizer_class([parameter], lr=0.1)
    optimizer.step()
    assert parameter.tolist() == [1.0, 1.0, 1.0]


@pytest.mark.parametrize(
    ("optimizer_class", "settings"),
    [(Adan, {}), (Shampoo, {"momentum": 0.9, "grafting": "adam", "precondition_frequency": 3})],
)
def test_a_restored_state_goes_on_bit_for_bit(optimizer_class, settings):
    start, *steps = gradients(9, 5, 4)
    whole = run(optimizer_class, start, steps, lr=0.05, **settings)
    parameter = nn.Parameter(start.clone())
    optimizer = optimizer_class([parameter], lr=0.05, **settings)
    for i, gradient in enumerate(steps):
        if i == 4:
            state = optimizer.state_dict()
            optimizer = optimizer_class([parameter], lr=0.05, **settings)
            optimizer.load_state_dict(state)
        parameter.grad = gradient.clone()
        optimizer.step()
    assert torch.equal(parameter.detach(), whole)


@pytest.mark.parametrize(
    ("optimizer_class", "settings"),
    [
        (Adan, {"lr": -1.0}), (Adan, {"betas": (0.9, 0.9, 1.0)}), (Adan, {"betas": (0.9, 0.9)}),
        (Shampoo, {"eps": 0.0}), (Shampoo, {"block_size": 0}), (Shampoo, {"momentum": 1.0}),
        (Shampoo, {"grafting": "sgd"}), (Shampoo, {"beta2": 0.0}),
    ],
)  # fmt: skip
def test_settings_out_of_range_are_named(optimizer_class, settings):
    with pytest.raises(ValueError, match=next(iter(settings))):
        optimizer_class([nn.Parameter(torch.zeros(2))], **settings)


# -- Shampoo -------------------------------------------------------------------------------------------------------


def shampoo_by_hand(w, steps, lr, eps):
    """Algorithm 1 of arXiv 1802.09568, dense."""
    left, right = eps * torch.eye(w.shape[0]).double(), eps * torch.eye(w.shape[1]).double()

    def root(matrix):
        values, vectors = torch.linalg.eigh(matrix)
        return vectors @ torch.diag(values**-0.25) @ vectors.T

    for g in steps:
        left, right = left + g @ g.T, right + g.T @ g
        w = w - lr * root(left) @ g @ root(right)
    return w


def test_shampoo_with_one_block_is_the_dense_formula():
    start, *steps = gradients(7, 6, 4)
    expected = shampoo_by_hand(start, steps, 0.1, 1e-3)
    torch.testing.assert_close(run(Shampoo, start, steps, lr=0.1, eps=1e-3), expected)


def test_shampoo_in_blocks_is_the_dense_formula_on_each_block():
    start, *steps = gradients(7, 6, 4)
    moved = run(Shampoo, start, steps, lr=0.1, eps=1e-3, block_size=3)
    for rows in (slice(0, 3), slice(3, 6)):
        for columns in (slice(0, 3), slice(3, 4)):
            block = shampoo_by_hand(start[rows, columns], [g[rows, columns] for g in steps], 0.1, 1e-3)
            torch.testing.assert_close(moved[rows, columns], block)


def test_shampoo_in_blocks_of_one_is_adagrad():
    start, *steps = gradients(7, 5)
    moved = run(Shampoo, start, steps, lr=0.1, eps=1e-12, block_size=1)
    torch.testing.assert_close(moved, run(torch.optim.Adagrad, start, steps, lr=0.1), rtol=1e-5, atol=1e-7)


def test_grafting_takes_the_norm_of_adams_step():
    start, gradient = gradients(2, 6, 4)
    moved = run(Shampoo, start, [gradient], lr=0.1, grafting="adam") - start
    adam = run(torch.optim.Adam, start, [gradient], lr=0.1, betas=(0.9, 0.99), eps=1e-15) - start
    torch.testing.assert_close(moved.norm(), adam.norm())
    assert not torch.allclose(moved, adam, atol=1e-3)


def test_shampoo_beats_sgd_and_adam_on_an_ill_conditioned_quadratic():
    """0.5 tr((W - W*)^T A (W - W*) B), A and B rotated with condition 1e3: each method with its best of nine rates."""
    generator = torch.Generator().manual_seed(3)

    def spread(n):
        basis = torch.linalg.qr(torch.randn(n, n, generator=generator, dtype=torch.float64)).Q
        return basis @ torch.diag(torch.logspace(0, -3, n, dtype=torch.float64)) @ basis.T

    a, b, target = spread(8), spread(6), torch.randn(8, 6, generator=generator, dtype=torch.float64)

    def final_loss(make, lr):
        w = nn.Parameter(torch.zeros(8, 6, dtype=torch.float64))
        optimizer = make([w], lr=lr)
        for _ in range(100):
            optimizer.zero_grad()
            error = w - target
            loss = 0.5 * (error * (a @ error @ b)).sum()
            loss.backward()
            optimizer.step()
        return float(loss.detach().nan_to_num(math.inf))

    def best(make):
        return min(final_loss(make, 10 ** (k / 2)) for k in range(-6, 3))

    losses = {make.__name__: best(make) for make in (torch.optim.SGD, torch.optim.Adam, Shampoo)}
    assert losses["Shampoo"] < 0.5 * min(losses["SGD"], losses["Adam"]), losses


@pytest.mark.parametrize("shape", [(), (1,), (7,), (5, 3), (4, 3, 2), (9, 9)])
@pytest.mark.parametrize("block_size", [1, 2, 4, 100])
def test_blocks_round_trip(shape, block_size):
    tensor = torch.randn(shape, generator=torch.Generator().manual_seed(0))
    blocks = to_blocks(tensor, block_size)
    assert max(blocks.shape[1:]) <= block_size
    assert torch.equal(from_blocks(blocks, tensor), tensor)
    torch.testing.assert_close(blocks.square().sum(), tensor.square().sum())  # padded with zeros


def test_roots_invert():
    factor = gradients(3, 4, 4)
    matrices = torch.stack([f @ f.T + 0.1 * torch.eye(4) for f in factor])
    root = matrix_power(matrices, -0.25)
    torch.testing.assert_close(root @ root @ root @ root @ matrices, torch.eye(4).double().expand(3, 4, 4))


# -- groups --------------------------------------------------------------------------------------------------------


class Scene(nn.Module):
    def __init__(self):
        super().__init__()
        self.geometry = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2))
        self.background = nn.Linear(2, 3)
        self.material = nn.Identity()


def test_modules_that_no_setting_names_are_trained_and_said_to_be(caplog):
    scene = Scene()
    with caplog.at_level(logging.INFO):
        optimizer = make_optimizer(scene, OptimizerSettings("Adam", {"lr": 0.01}, {"geometry": {"lr": 0.5}}))
    assert {g["name"]: g["lr"] for g in optimizer.param_groups} == {"geometry": 0.5, "background": 0.01}
    assert "background is not in system.optimizer.params: it trains with" in caplog.text


def test_every_parameter_is_in_exactly_one_group_and_the_longest_name_takes_it():
    scene = Scene()
    groups = parameter_groups(scene, {"geometry": {"lr": 1.0}, "geometry.1": {"lr": 2.0}})
    by_name = {g["name"]: g["params"] for g in groups}
    assert [id(p) for p in by_name["geometry.1"]] == [id(p) for p in scene.geometry[1].parameters()]
    members = [id(p) for g in groups for p in g["params"]]
    assert sorted(members) == sorted(id(p) for p in scene.parameters())


def test_frozen_parameters_are_left_out():
    scene = Scene()
    scene.background.requires_grad_(False)
    assert [g["name"] for g in parameter_groups(scene, {})] == ["geometry"]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (OptimizerSettings("Adma"), "system.optimizer.name='Adma'.*did you mean"),
        (OptimizerSettings("Adam", {"lr": 0.1}, {"geomtry": {"lr": 1.0}}), "params.geomtry.*did you mean 'geometry'"),
        (OptimizerSettings("Adam", {"learning_rate": 0.1}), "system.optimizer.args.learning_rate"),
        (OptimizerSettings("Adam", {"lr": 0.1}, {"geometry": {"rl": 1.0}}), "params.geometry.rl.*did you mean 'lr'"),
        (OptimizerSettings("Adam", {"eps": -0.1}), "Adam rejects its settings"),
        (OptimizerSettings("Adam", {"lr": -0.1}), "^system.optimizer.args.lr=-0.1 must be positive"),
        (OptimizerSettings("Adam", {"lr": 0}), "^system.optimizer.args.lr=0 must be positive"),
        (OptimizerSettings("Adam", {"lr": float("nan")}), "^system.optimizer.args.lr=nan must be positive"),
        (OptimizerSettings("Adam", {}, {"geometry": {"lr": -1}}), "params.geometry.lr=-1 must be .* 0 to freeze"),
    ],
)
def test_wrong_settings_are_named(settings, message):
    with pytest.raises(ConfigError, match=message):
        make_optimizer(Scene(), settings)


def test_modules_are_looked_for_before_the_system_is_whole():
    scene = Scene()
    names = ["geometry.1", "material.adapter"]  # the material has no parts yet
    check_modules(scene, names, complete=False)
    with pytest.raises(ConfigError, match=r"system.optimizer.params.material.adapter is not a module"):
        check_modules(scene, names)
    for wrong in ("geometry.7", "geomtry", "geomtry.1", ""):
        with pytest.raises(ConfigError, match=rf"^system.optimizer.params.{wrong} is not a module of the system"):
            check_modules(scene, [wrong], complete=False)


@pytest.mark.parametrize("name", ["Adam", "AdamW", "SGD", "Adan", "Shampoo", "RMSprop"])
def test_optimisers_by_name_lower_a_loss(name):
    scene = Scene()
    optimizer = make_optimizer(scene, OptimizerSettings(name, {"lr": 0.01}))
    losses = []
    for _ in range(10):
        optimizer.zero_grad()
        loss = scene.background(scene.geometry(torch.ones(1, 2))).square().sum()
        loss.backward()
        optimizer.step()
        losses.append(float(loss.detach()))
    assert losses[-1] < losses[0]


# -- schedules -----------------------------------------------------------------------------------------------------


def rates(settings: SchedulerSettings, steps: int, lr: float = 1.0) -> list[float]:
    optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=lr)
    schedule = make_scheduler(optimizer, settings)
    seen = []
    for _ in range(steps):
        seen.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        schedule.step()
    return seen


def test_a_warm_up_rises_to_the_rate_and_hands_over():
    seen = rates(SchedulerSettings("ExponentialLR", {"gamma": 0.5}, warmup_steps=4, warmup_factor=0.2), 7)
    assert seen == pytest.approx([0.2, 0.4, 0.6, 0.8, 1.0, 0.5, 0.25])


def test_a_sequence_of_schedules():
    parts = [{"name": "ConstantLR", "args": {"factor": 0.5, "total_iters": 100}}, {"name": "ConstantLR"}]
    assert rates(SchedulerSettings("SequentialLR", schedulers=parts, milestones=[2]), 4) == [0.5, 0.5, 1.0, 1.0]


def test_dreamfusions_own_schedule_can_be_written():
    """lr 1e-9 -> 1e-4 in 3000 steps, then a cosine to 1e-6 (here in hundredths of the steps)."""
    cosine = SchedulerSettings(
        "CosineAnnealingLR", {"T_max": 120, "eta_min": 1e-6}, warmup_steps=30, warmup_factor=1e-5
    )
    seen = rates(cosine, 151, lr=1e-4)
    assert seen[0] == pytest.approx(1e-9)
    assert seen[30] == pytest.approx(1e-4)
    assert seen[150] == pytest.approx(1e-6)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (SchedulerSettings("CosineLR"), "system.scheduler.name='CosineLR'.*did you mean"),
        (SchedulerSettings("LambdaLR"), "not a learning-rate schedule"),
        (SchedulerSettings("StepLR", {"stepsize": 1}), "args.stepsize.*did you mean 'step_size'"),
        (SchedulerSettings("StepLR", {}), "StepLR rejects its settings"),
        (SchedulerSettings("SequentialLR"), "schedulers is empty"),
        (SchedulerSettings("SequentialLR", schedulers=[{}, {}]), "milestones.*one entry fewer"),
        (SchedulerSettings("SequentialLR", schedulers=[{"nmae": "x"}], milestones=[]), r"schedulers\[0\].nmae"),
    ],
)
def test_wrong_schedules_are_named(settings, message):
    with pytest.raises(ConfigError, match=message):
        rates(settings, 1)


def test_a_rate_that_is_no_number_is_told_where_schedules_go():
    for settings in (
        OptimizerSettings(args={"lr": [0, 0.01, 0.001, 9]}),
        OptimizerSettings(params={"0": {"lr": [1, 2]}}),
    ):
        with pytest.raises(ConfigError, match=r"lr=.* must be a number.*system\.scheduler"):
            make_optimizer(nn.Sequential(nn.Linear(2, 2)), settings)


# -- Muon ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("shape", [(8, 40), (40, 8), (16, 16)])
def test_newton_schulz_keeps_the_directions_and_levels_the_singular_values(shape):
    (matrix,) = gradients(1, *shape)
    u, s, vt = torch.linalg.svd(matrix, full_matrices=False)
    steep = u @ torch.diag(torch.linspace(0.05, 1.0, len(s), dtype=s.dtype)) @ vt
    levelled = torch.diag(u.T @ orthogonalized(steep) @ vt.T)
    assert levelled.min() > 0.6 and levelled.max() < 1.3
    off = u.T @ orthogonalized(steep) @ vt.T - torch.diag(levelled)
    assert off.abs().max() < 0.05  # of bfloat16


def test_muon_steps_like_adam_in_size_whatever_the_gradients_scale():
    start = torch.zeros(24, 4, 3, 3)
    kernel = gradients(1, 24, 4, 3, 3)[0].float()
    group = [{"params": [nn.Parameter(start.clone())], "orthogonal": True}]
    for scale in (1e-6, 1.0, 1e6):
        group[0]["params"][0].data.zero_()
        group[0]["params"][0].grad = scale * kernel
        Muon(group, lr=0.1).step()
        rms = group[0]["params"][0].detach().square().mean().sqrt()
        assert 0.012 < rms < 0.025  # .2 lr, as Newton-Schulz ends at singular values of about .7 to 1.2


def test_muon_treats_vectors_as_adam_does():
    start, *steps = gradients(6, 5)
    expected = run(torch.optim.Adam, start, steps, lr=0.1, betas=(0.9, 0.99))
    torch.testing.assert_close(run(Muon, start, steps, lr=0.1), expected)
    with pytest.raises(ValueError, match="not vectors"):
        Muon([{"params": [nn.Parameter(start)], "orthogonal": True}])

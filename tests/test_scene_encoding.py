"""Grid encodings: the CPU kernel against its torch twin, progression, and settings."""

import sys
from collections.abc import Iterator
from types import SimpleNamespace
from unittest.mock import Mock

import pytest
import torch
from grids import table_and_points

from distill3d.config.check import ConfigError, build
from distill3d.scenes.nerf import encoding
from distill3d.scenes.nerf.encoding import DenseGrid, HashGrid, has_triton, interpolate
from distill3d.scenes.nerf.grid import interpolate_reference

TRITON = "distill3d.scenes.nerf.kernels.grid_triton"
NAMES = ("mostly hashed", "dense alone", "one feature")


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_kernel_and_twin_agree_in_values_and_gradients(name, dtype):
    table, points, levels = table_and_points(name, dtype, 200)
    answers = interpolate(table, points, levels, need_jacobian=True)
    expected = interpolate_reference(table, points, levels)
    grads = [torch.randn_like(x) for x in expected]
    for got, want in zip(answers, expected, strict=True):
        torch.testing.assert_close(got, want, rtol=2e-5, atol=2e-5)
    torch.testing.assert_close(
        torch.autograd.grad(answers, table, grads)[0],
        torch.autograd.grad(expected, table, grads)[0],
        rtol=2e-5,
        atol=1e-4 if dtype == torch.float32 else 1e-10,
    )


def test_without_jacobian_the_kernel_gives_the_same_features_and_gradient():
    table, points, levels = table_and_points("mostly hashed", count=200)
    features, _ = interpolate(table, points, levels, need_jacobian=False)
    expected, _ = interpolate_reference(table, points, levels)
    torch.testing.assert_close(features, expected)
    grad = torch.randn_like(expected)
    torch.testing.assert_close(
        torch.autograd.grad(features, table, grad)[0], torch.autograd.grad(expected, table, grad)[0]
    )


@pytest.mark.parametrize("name", NAMES[:2])
def test_the_number_of_threads_does_not_change_a_bit(name):
    table, points, levels = table_and_points(name, torch.float32, 1001)
    results, threads = [], torch.get_num_threads()
    for count in (1, 3):
        torch.set_num_threads(count)
        features, jacobian = interpolate(table, points, levels, need_jacobian=True)
        (grad,) = torch.autograd.grad(features.square().sum() + jacobian.square().sum(), table)
        results.append((features, jacobian, grad))
    torch.set_num_threads(threads)
    for one, three in zip(*results, strict=True):
        assert torch.equal(one, three)


def test_no_points_give_no_features():
    table, points, levels = table_and_points("mostly hashed", torch.float32, 200)
    features, jacobian = interpolate(table, points[:0], levels, need_jacobian=True)
    assert features.shape == (8, 0) and jacobian.shape == (8, 3, 0)


def test_the_torch_backend_is_used_when_it_is_asked_for(monkeypatch):
    monkeypatch.setenv("DISTILL3D_KERNELS", "torch")
    table, points, levels = table_and_points("mostly hashed", count=200)
    features, _ = interpolate(table, points, levels, need_jacobian=True)
    assert "Interpolation" not in type(features.grad_fn).__name__


@pytest.fixture
def triton_that_fails(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Triton as it is without a C compiler; other tests ask anew."""
    monkeypatch.delenv("DISTILL3D_KERNELS", raising=False)
    monkeypatch.setattr(encoding.importlib.util, "find_spec", lambda name: SimpleNamespace())
    failing = Mock(side_effect=RuntimeError("no C compiler"))
    monkeypatch.setitem(sys.modules, TRITON, SimpleNamespace(interpolate_by_triton=failing))
    monkeypatch.setattr(encoding.torch, "zeros", lambda *shape, device: torch.empty(shape))
    encoding.triton_can_run.cache_clear()
    yield
    encoding.triton_can_run.cache_clear()


def test_triton_is_chosen_for_float32_on_cuda_where_it_runs_and_bits_may_differ(monkeypatch):
    monkeypatch.delenv("DISTILL3D_KERNELS", raising=False)
    monkeypatch.setattr(encoding, "triton_can_run", lambda: True)
    there, double = (SimpleNamespace(device=torch.device("cuda"), dtype=t) for t in (torch.float32, torch.float64))
    assert has_triton(there, there)
    assert not has_triton(double, double) and not has_triton(there, double) and not has_triton(*[torch.zeros(2, 3)] * 2)
    monkeypatch.setattr(encoding, "triton_can_run", lambda: False)
    assert not has_triton(there, there)
    monkeypatch.setattr(encoding, "triton_can_run", lambda: True)
    monkeypatch.setattr(encoding.torch, "are_deterministic_algorithms_enabled", lambda: True)
    assert not has_triton(there, there)
    monkeypatch.setattr(encoding.torch, "are_deterministic_algorithms_enabled", lambda: False)
    monkeypatch.setenv("DISTILL3D_KERNELS", "torch")
    assert not has_triton(there, there)


def test_triton_that_cannot_compile_is_told_once_and_not_used(triton_that_fails, caplog):
    with caplog.at_level("INFO"):
        assert not encoding.triton_can_run() and not encoding.triton_can_run()
    assert caplog.text.count("cannot run: no C compiler") == 1


def test_triton_that_is_not_there_is_not_used_without_a_word(triton_that_fails, monkeypatch, caplog):
    monkeypatch.setattr(encoding.importlib.util, "find_spec", lambda name: None)
    with caplog.at_level("INFO"):
        assert not encoding.triton_can_run()
    assert not caplog.text


def test_what_triton_is_chosen_for_it_answers(monkeypatch):
    monkeypatch.setenv("DISTILL3D_KERNELS", "torch")
    monkeypatch.setattr(encoding, "has_triton", lambda table, points: True)
    monkeypatch.setitem(sys.modules, TRITON, SimpleNamespace(interpolate_by_triton=lambda *given: given))
    given = (*table_and_points("mostly hashed", count=20), True)
    assert all(a is b for a, b in zip(interpolate(*given), given, strict=True))


def test_levels_open_on_schedule_and_stay_open_in_a_checkpoint():
    cfg = HashGrid.Config(n_levels=4, start_level=2, start_step=100, update_steps=50)
    encoding, points = HashGrid(cfg), torch.rand(5, 3)
    channels = []
    for step in (0, 100, 149, 150, 200, 10_000):
        encoding.update_step(step)
        channels.append(len(encoding(points)))
    assert channels == [4, 4, 4, 6, 8, 8]
    restored = HashGrid(cfg)
    restored.load_state_dict(encoding.state_dict())
    assert torch.equal(restored(points), encoding(points))


def test_a_hash_grid_opens_all_levels_unless_told_otherwise():
    assert len(HashGrid(HashGrid.Config())(torch.rand(2, 3))) == 16


def test_closed_levels_get_no_gradient():
    encoding = HashGrid(HashGrid.Config(n_levels=3, start_level=1))
    encoding(torch.rand(50, 3)).square().sum().backward()
    second = encoding.levels[1].offset
    assert encoding.table.grad[:second].abs().sum() > 0 and (encoding.table.grad[second:] == 0).all()


@pytest.mark.parametrize(
    ("cls", "settings", "message"),
    [
        (HashGrid, {"n_levels": 0}, "n_levels=0 must be at least 1"),
        (HashGrid, {"log2_hashmap_size": 40}, "log2_hashmap_size=40 must lie in 1 .. 28"),
        (HashGrid, {"start_level": 9}, "start_level=9 must lie in 1 .. n_levels=8"),
        (HashGrid, {"per_level_scale": 0.5}, "per_level_scale=0.5 must be at least 1"),
        (HashGrid, {"update_steps": 0}, "update_steps=0 must be at least 1"),
        (DenseGrid, {"base_resolution": -3}, "base_resolution=-3 must be at least 1"),
        (DenseGrid, {"log2_hashmap_size": 15}, "log2_hashmap_size is not a setting"),
    ],
)
def test_wrong_settings_are_named(cls, settings, message):
    with pytest.raises(ConfigError, match=message):
        build(cls.Config, settings, "encoding")


def test_a_table_that_would_not_fit_is_refused_before_it_is_allocated():
    with pytest.raises(ValueError, match="n_levels=1 with a finest resolution of 4000"):
        DenseGrid(DenseGrid.Config(base_resolution=4000))

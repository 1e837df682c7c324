"""Checkpoint files: whole or absent, safe to load, and clear about what is wrong with them."""

from __future__ import annotations

import errno
import pickle
from pathlib import Path

import pytest
import torch
from system_doubles import fit, make_trainer, tiny_data, tiny_system

from distill3d.runtime.checkpoint import (
    AtomicCheckpointIO,
    CheckpointError,
    check_resumable,
    checkpoint_file,
    read_checkpoint,
    write_checkpoint,
)

CONTENT = {"state_dict": {"a": torch.arange(3)}, "distill3d": {"identity": {}}, "global_step": 3}


def test_round_trip(tmp_path):
    path = tmp_path / "deep" / "x.ckpt"
    write_checkpoint(CONTENT, path)
    assert torch.equal(read_checkpoint(path)["state_dict"]["a"], torch.arange(3))
    assert [p.name for p in path.parent.iterdir()] == ["x.ckpt"]


def test_a_failed_write_leaves_the_old_file_and_nothing_else(tmp_path, monkeypatch):
    path = tmp_path / "x.ckpt"
    write_checkpoint(CONTENT, path)

    def full(content, file):
        file.write(b"half")
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(torch, "save", full)
    with pytest.raises(OSError, match="No space left"):
        write_checkpoint({}, path)
    assert read_checkpoint(path)["global_step"] == 3
    assert [p.name for p in tmp_path.iterdir()] == ["x.ckpt"]


@pytest.mark.parametrize("share", [0.0, 0.1, 0.5, 0.9, 0.99])
def test_a_truncated_file_is_named(tmp_path, share):
    path = tmp_path / "x.ckpt"
    write_checkpoint(CONTENT, path)
    content = path.read_bytes()
    path.write_bytes(content[: int(share * len(content))])
    with pytest.raises(CheckpointError, match=r"resume=.*x\.ckpt.*truncated"):
        read_checkpoint(path)


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(CheckpointError, match=r"resume=.*no\.ckpt does not exist"):
        read_checkpoint(tmp_path / "no.ckpt")
    with pytest.raises(CheckpointError, match="does not exist"):
        read_checkpoint(tmp_path)


def test_a_file_with_code_is_refused_and_not_run(tmp_path):
    class Trap:
        def __reduce__(self):
            return (open, (str(tmp_path / "sprung"), "w"))

    for name, save in (("torch", lambda p: torch.save({"state_dict": Trap()}, p)), ("pickle", _pickled(Trap))):
        path = tmp_path / f"{name}.ckpt"
        save(path)
        with pytest.raises(CheckpointError, match="cannot be read"):
            read_checkpoint(path)
    assert not (tmp_path / "sprung").exists()


def _pickled(trap):
    return lambda path: path.write_bytes(pickle.dumps({"state_dict": trap()}))


def test_a_foreign_checkpoint_is_named(tmp_path):
    torch.save({"state_dict": {}}, tmp_path / "x.ckpt")
    with pytest.raises(CheckpointError, match="not a checkpoint of distill3d"):
        read_checkpoint(tmp_path / "x.ckpt")


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    root = tmp_path_factory.mktemp("trained")
    fit(root, 1)
    return root / "ckpts" / "last.ckpt"


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"background_type": "solid-color-background"}, "its background is 'neural-environment-map-background'"),
        ({"geometry": {"mlp_network_config": {"n_neurons": 4}}}, r"weights\.0 is "),
        ({"geometry": {"mlp_network_config": {"n_hidden_layers": 2}}}, r"weights\.1 is |only .* has"),
        ({"renderer": {"occupancy_resolution": 4}}, r"occupancy\.\w+ is "),
    ],
)
def test_a_checkpoint_of_another_experiment_says_where_it_differs(trained, tmp_path, changes, message):
    with pytest.raises(CheckpointError, match=f"another experiment.*({message})"):
        fit(tmp_path, 2, resume=trained, **changes)


def test_another_rule_may_go_on_with_the_same_scene(trained, tmp_path):
    _, trainer = fit(tmp_path, 2, resume=trained, guidance_type="lmc-cond")
    assert trainer.global_step == 2


def test_a_loaded_scene_renders_as_the_trained_one(tmp_path):
    system, _ = fit(tmp_path, 4, geometry={"density_blob_scale": [0, 10.0, 5.0, 4]})
    views = tiny_data().evaluation_batch(2)
    other = tiny_system(seed=9, geometry={"density_blob_scale": [0, 10.0, 5.0, 4]})
    make_trainer(tmp_path, 1).test(other, tiny_data(), ckpt_path=tmp_path / "ckpts/last.ckpt", verbose=False)
    for a, b in zip(
        vars(system.renderer.render(views.cameras)).values(),
        vars(other.renderer.render(views.cameras)).values(),
        strict=True,
    ):
        assert a is b is None or isinstance(a, str) or torch.equal(a, b)
    assert other.steps_done == 4


# -- damage -----------------------------------------------------------------------------------------------------------


def written(path, **changes):
    content = {"state_dict": {"w": torch.linspace(0, 1, 4096)}, "global_step": 3, "epoch": 0}
    content |= {
        "loops": {"fit_loop": {}},
        "callbacks": {},
        "lr_schedulers": [],
        "optimizer_states": [],
        "distill3d": {"identity": {"system": "S", "scene": "s"}, "version": "0"},
    }
    content = {key: value for key, value in {**content, **changes}.items() if value is not None}
    write_checkpoint(content, path)
    return content


@pytest.mark.parametrize("seed", range(30))
def test_no_flipped_bit_of_the_weights_is_accepted(seed, tmp_path):
    import random

    written(tmp_path / "last.ckpt")
    data = bytearray((tmp_path / "last.ckpt").read_bytes())
    begin = bytes(data).index(torch.linspace(0, 1, 4096)[1000:1010].numpy().tobytes()) - 4000
    rng = random.Random(seed)
    data[begin + rng.randrange(4096 * 4)] ^= 1 << rng.randrange(8)
    (tmp_path / "last.ckpt").write_bytes(data)
    with pytest.raises(CheckpointError, match="damaged"):
        read_checkpoint(tmp_path / "last.ckpt")


@pytest.mark.parametrize("name", ["global_step", "loops", "optimizer_states", "lr_schedulers", "callbacks", "epoch"])
def test_what_a_checkpoint_lacks_is_named(name, tmp_path):
    written(tmp_path / "last.ckpt", **{name: None})
    with pytest.raises(CheckpointError, match=f"lacks {name}, so a training cannot go on"):
        check_resumable(read_checkpoint(tmp_path / "last.ckpt"), "last.ckpt")


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_weights_that_are_not_finite_are_refused(value, tmp_path):
    written(tmp_path / "last.ckpt", state_dict={"w": torch.tensor([1.0, value])})
    with pytest.raises(CheckpointError, match="its w holds NaN or infinity"):
        read_checkpoint(tmp_path / "last.ckpt")


@pytest.mark.parametrize(
    "changes",
    [
        {"global_step": -1},
        {"epoch": "x"},
        {"loops": {}},
        {"optimizer_states": [1]},
        {"optimizer_states": [{"state": {0: 3}, "param_groups": []}]},
        {"lr_schedulers": {}},
        {"callbacks": []},
    ],
)
def test_what_cannot_be_gone_on_from_is_named(changes, tmp_path):
    written(tmp_path / "last.ckpt", **changes)
    with pytest.raises(CheckpointError, match=f"its {next(iter(changes))} cannot be understood"):
        check_resumable(read_checkpoint(tmp_path / "last.ckpt"), "last.ckpt")


@pytest.mark.parametrize("state", [[], 3, {"w": None}, {3: torch.ones(2)}, {"w": torch.ones(2).to_sparse()}])
def test_weights_that_are_no_arrays_are_refused(state, tmp_path):
    written(tmp_path / "last.ckpt", state_dict=state)
    with pytest.raises(CheckpointError, match=r"resume=.*last\.ckpt lacks .*: its (state_dict|w|3) is no"):
        read_checkpoint(tmp_path / "last.ckpt")


@pytest.mark.parametrize("kind", ["without data", "quantised", "of 8 bits", "nested", "one number repeated"])
def test_tensors_that_no_run_writes_are_refused(kind, tmp_path):
    made = {
        "without data": lambda: torch.ones(3, device="meta"),
        "quantised": lambda: torch.quantize_per_tensor(torch.ones(3), 0.1, 0, torch.quint8),
        "of 8 bits": lambda: torch.ones(3).to(torch.float8_e4m3fn),
        "nested": lambda: torch.nested.nested_tensor([torch.ones(2)]),
        "one number repeated": lambda: torch.ones(1).expand(10**12),
    }
    torch.save({**CONTENT, "state_dict": {"a": made[kind]()}}, tmp_path / "x.ckpt")
    with pytest.raises(CheckpointError, match=r"x\.ckpt.*(its a is no array|cannot be read)"):
        read_checkpoint(tmp_path / "x.ckpt")


def test_a_folder_stands_for_its_last_checkpoint(tmp_path):
    written(tmp_path / "ckpts" / "last.ckpt")
    assert checkpoint_file(tmp_path) == checkpoint_file(tmp_path / "ckpts") == tmp_path / "ckpts" / "last.ckpt"
    assert read_checkpoint(tmp_path)["global_step"] == 3
    assert checkpoint_file("~/x.ckpt") == Path.home() / "x.ckpt"
    (tmp_path / "empty").mkdir()
    with pytest.raises(CheckpointError, match=r"empty/last.ckpt does not exist"):
        read_checkpoint(tmp_path / "empty")


def test_a_checkpoint_says_with_how_many_threads_it_was_trained(tmp_path):
    content = written(tmp_path / "a.ckpt")
    AtomicCheckpointIO().save_checkpoint(content, tmp_path / "b.ckpt")
    assert read_checkpoint(tmp_path / "b.ckpt")["distill3d"]["threads"] == torch.get_num_threads()

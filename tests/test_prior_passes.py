"""Which passes are merged, which share a call, and that every pass gets its own answer back."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import nn

from distill3d.camera import make_cameras
from distill3d.priors.passes import batches, check_rows, join, split, unique_passes
from distill3d.types import Cameras, Pass, Prediction, PromptEmbedding


def make_pass(value: float = 0.0, tokens: int = 4, rows: int = 2, adapter: nn.Module | None = None) -> Pass:
    text = PromptEmbedding(torch.full((rows, tokens, 3), value), torch.ones(rows, tokens, dtype=torch.bool))
    return Pass(torch.full((rows, 3, 4, 4), value), torch.arange(rows), text, adapter)


def cameras_for(azimuth_deg: float, size: int = 4) -> Cameras:
    full = torch.ones(2)
    return make_cameras(20.0 * full, azimuth_deg * full, 1.5 * full, 40.0 * full, size, size)


def test_equal_values_are_one_pass() -> None:
    a, b, c = make_pass(1.0), make_pass(1.0), make_pass(2.0)
    unique, index = unique_passes([a, b, c, a], by_value=True)
    assert len(unique) == 2 and unique[0] is a and unique[1] is c
    assert index == [0, 0, 1, 0]


def test_any_difference_keeps_passes_apart() -> None:
    base, adapter = make_pass(1.0), nn.Identity()
    others = [
        Pass(base.z + 1, base.t, base.text),
        Pass(base.z, base.t + 1, base.text),
        Pass(base.z, base.t, PromptEmbedding(base.text.tokens + 1, base.text.mask)),
        Pass(base.z, base.t, PromptEmbedding(base.text.tokens, ~base.text.mask)),
        Pass(base.z, base.t, PromptEmbedding(base.text.tokens, base.text.mask, torch.ones(2, 5))),
        Pass(base.z, base.t, base.text, adapter),
        Pass(base.z, base.t, base.text, cameras=cameras_for(0.0)),
        Pass(base.z, base.t, base.text, cameras=cameras_for(30.0)),
    ]
    assert unique_passes([base, *others], by_value=True)[1] == list(range(9))


def test_equal_cameras_are_one_pass_and_others_share_its_call() -> None:
    base = make_pass(1.0)
    front, again, side = (replace(base, cameras=cameras_for(azimuth)) for azimuth in (0.0, 0.0, 90.0))
    assert unique_passes([front, again, side], by_value=True)[1] == [0, 0, 1]
    assert unique_passes([front, again, front], by_value=False)[1] == [0, 1, 0]
    assert batches([front, side, base, replace(base, cameras=cameras_for(0.0, size=8))]) == [[0, 1], [2], [3]]
    joined = join([front, side]).cameras
    assert joined is not None and joined.azimuth_deg.tolist() == [0.0, 0.0, 90.0, 90.0]
    assert torch.equal(joined.c2w[2:], cameras_for(90.0).c2w)
    with pytest.raises(ValueError, match="batch sizes differ: 2 latents, 1 cameras"):
        check_rows([replace(base, cameras=cameras_for(0.0)[[0]])])


def test_with_gradients_only_the_same_objects_are_merged() -> None:
    """Two tensors of equal values may carry different graphs: merging them would lose one's gradient."""
    a = make_pass(1.0)
    twin = Pass(a.z.clone(), a.t, a.text)
    assert unique_passes([a, twin, Pass(a.z, a.t, a.text)], by_value=False)[1] == [0, 1, 0]


def test_calls_are_shared_by_what_fits_together() -> None:
    adapter = nn.Identity()
    passes = [make_pass(0), make_pass(1, adapter=adapter), make_pass(2), make_pass(3, tokens=5), make_pass(4, rows=1)]
    assert batches(passes) == [[0, 2, 4], [1], [3]]


def test_rows_must_agree() -> None:
    item = make_pass(rows=2)
    check_rows([item])
    with pytest.raises(ValueError, match="batch sizes differ: 2 latents, 1 timesteps, 2 embeddings"):
        check_rows([item, Pass(item.z, item.t[:1], item.text)])
    with pytest.raises(ValueError, match="batch sizes differ: 2 latents, 2 timesteps, 1 embeddings"):
        check_rows([Pass(item.z, item.t, item.text[[0]])])


def test_split_inverts_join() -> None:
    passes = [make_pass(1.0, rows=1), make_pass(2.0, rows=3)]
    joined = join(passes)
    assert joined.z.shape[0] == joined.t.shape[0] == len(joined.text) == 4
    answers = split(Prediction(joined.z, -joined.z), [1, 3])
    for item, answer in zip(passes, answers, strict=True):
        assert torch.equal(answer.noise, item.z) and torch.equal(answer.x0, -item.z)

"""The first command of a newcomer, whole: minutes, so it runs with `make test-slow`."""

from __future__ import annotations

import json

import pytest
import torch
import trimesh

from distill3d.cli import main


@pytest.mark.slow
def test_the_quick_demo_makes_an_object_that_another_program_reads_as_closed(tmp_path):
    settings = (f"exp_root_dir={tmp_path}", "system.prompt_processor.prompt=a hamburger")
    assert main(["--config", "dreamfusion-lmc-quick.yaml", "--train", *settings]) == 0
    (record,) = tmp_path.rglob("metrics.json")
    metrics = json.loads(record.read_text())
    assert (metrics["steps"], metrics["finished"]) == (350, True)
    weights = torch.load(record.parent / "ckpts/last.ckpt", weights_only=True)["state_dict"]
    assert all(value.isfinite().all() for value in weights.values() if value.is_floating_point())

    mesh = trimesh.load(next(record.parent.rglob("*.glb")), force="mesh")
    mesh.merge_vertices(merge_tex=True, merge_norm=True)  # a GLB repeats the vertices along the seams of its texture
    assert len(mesh.faces) > 500 and mesh.is_watertight and 0.1 < mesh.extents.max() < 4.0

"""Small networks train on renders of meshes, as on any folder of images."""

from __future__ import annotations

import os

import pytest
import torch
from picture_doubles import fit, make_data
from tiny_assets import make_assets
from tiny_pipelines import embedded_own

from distill3d.guidance.corrective.files import read_corrective
from distill3d.prior.loader import PriorConfig, model_identity
from distill3d.run import prepare, train
from distill3d.verbs import Request


@pytest.fixture
def assets(tmp_path):
    (tmp_path / "assets").mkdir()
    return make_assets(tmp_path / "assets")


def test_a_translation_learns_from_views_of_meshes(assets, tmp_path):
    settings = {"views_per_mesh": 2, "pair_views": 2, "image_sizes": [8], "batch_size": 4}
    data = make_data("mesh-view-datamodule", assets=str(assets), cache_dir=str(tmp_path / "cache"), **settings)
    prompts = {"prompt": "a fox", "source_prompt": "an apple"}
    system = fit("translation-system", tmp_path / "trial", 2, data, prompt_processor=prompts, width=4)
    assert system.probes.shape == (4, 3, 8, 8)
    assert not torch.equal(system.network(system.probes), system.probes)


def test_b_psi_learns_from_views_of_meshes(assets, tmp_path, monkeypatch):
    monkeypatch.setattr(os, "environ", {**os.environ, "DISTILL3D_CACHE": str(tmp_path / "cache")})
    prior = embedded_own(tmp_path / "prior")
    settings = (
        f"exp_root_dir={tmp_path / 'out'}",
        f"system.prior.pretrained_model_name_or_path={prior}",
        "data_type=mesh-view-datamodule",
        f"data.assets={assets}",
        f"data.cache_dir={tmp_path / 'views'}",
        "data={views_per_mesh: 2, pair_views: 2, image_sizes: [16], batch_size: 4}",
        "system.width=4",
        "trainer={max_steps: 2, accelerator: cpu, enable_progress_bar: false}",
    )
    run = prepare(Request("train", "lmc/corrective.yaml", settings))
    train(run)
    identity = model_identity(PriorConfig(str(prior)))
    assert read_corrective(run.trial.save / "corrective-16.safetensors", identity) is not None

"""Small networks train on renders of meshes, as on any folder of images."""

from __future__ import annotations

import os

import pytest
import torch
from tiny_assets import make_assets
from tiny_pipelines import embedded_own

from distill3d.guidance.corrective.files import read_corrective
from distill3d.priors.loader import PriorConfig, model_identity
from distill3d.run import prepare, train
from distill3d.systems import corrective
from distill3d.verbs import Request


@pytest.fixture
def assets(tmp_path):
    (tmp_path / "assets").mkdir()
    return make_assets(tmp_path / "assets")


@pytest.fixture
def prior(tmp_path, monkeypatch):
    monkeypatch.setattr(os, "environ", {**os.environ, "DISTILL3D_CACHE": str(tmp_path / "cache")})
    monkeypatch.setattr(corrective, "FIT_IMAGES", 4)
    return embedded_own(tmp_path / "prior")


def trained(config, prior, assets, *own):
    """A run of two steps on views of tiny meshes."""
    settings = (
        f"exp_root_dir={prior.parent / 'out'}",
        f"system.prior.pretrained_model_name_or_path={prior}",
        "data_type=mesh-view-datamodule",
        f"data.assets={assets}",
        f"data.cache_dir={prior.parent / 'views'}",
        "data={views_per_mesh: 2, pair_views: 2, image_sizes: [16], batch_size: 4}",
        "system.width=4",
        "trainer={max_steps: 2, accelerator: cpu, enable_progress_bar: false}",
    )
    run = prepare(Request("train", config, (*settings, *own)))
    train(run)
    return run


def test_a_translation_of_one_noun_learns_from_its_views_alone(assets, prior):
    prompts = ("system.prompt_processor.prompt=an apple", "system.prompt_processor.source_prompt=a fox")
    run = trained("translation.yaml", prior, assets, "data.nouns=[fox]", *prompts)
    probes = run.system.probes
    assert probes.shape == (4, 3, 16, 16) and not torch.equal(run.system.network(probes), probes)
    assert {scene.first.noun for scene in run.data.sampler.batch(0, 16, 16).scenes} == {"fox"}
    assert (run.trial.save / "translator.safetensors").is_file()


def test_b_psi_learns_from_views_of_meshes(assets, prior):
    run = trained("lmc/corrective.yaml", prior, assets)
    identity = model_identity(PriorConfig(str(prior)))
    assert read_corrective(run.trial.save / "corrective-16.safetensors", identity) is not None

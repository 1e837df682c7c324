"""The shipped edits of scenes run from the command line, upon a reconstruction, under tiny pixel and latent models."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
import torch
from posed_scenes import make_data_set
from tiny_pipelines import TinyFolders

from distill3d.cli import main

SMALL = (
    "trainer.enable_progress_bar=false",
    "trainer.accelerator=cpu",
    "trainer.precision=32-true",
    "data.n_test_views=2",
    "data.eval_width=16",
    "data.eval_height=16",
    "system.contact_views=2",
    "system.exporter.resolution=16",
    "system.exporter.mode=vertex",
    "system.exporter.view_size=16",
    "system.exporter.turntable_views=0",
    "system.exporter.viewer=false",
    "system.exporter.preview=false",
)
SCENE = (
    "system.geometry.pos_encoding_config.n_levels=4",
    "system.geometry.pos_encoding_config.log2_hashmap_size=8",
    "system.renderer.num_samples_per_ray=16",
)
EDITS = {
    "pds": ("nerf-edit.yaml", "embedded-own", ("data.source=renders", "system.edit_box=[[-1,-1,0],[1,1,1]]")),
    "pds, refined": (
        "nerf-edit.yaml",
        "stable-diffusion",
        ("system.refinement.start_step=1", "system.refinement.editor.steps=2"),
    ),
    "sdedit": ("nerf-edit-idu.yaml", "embedded-own", ("system.editor.steps=2",)),
    "ddpm-inversion": ("nerf-edit-idu.yaml", "stable-diffusion", ("system.editor={name: ddpm-inversion, steps: 2}",)),
}


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    return TinyFolders(tmp_path_factory.mktemp("tiny"))


@pytest.fixture(autouse=True)
def own_environment(monkeypatch, tmp_path):
    monkeypatch.setattr(os, "environ", {**os.environ, "DISTILL3D_CACHE": str(tmp_path / "cache")})


@pytest.fixture(scope="module")
def views(tmp_path_factory):
    return make_data_set(tmp_path_factory.mktemp("posed") / "box")


@pytest.fixture(scope="module")
def source(views, tmp_path_factory):
    """The checkpoint of a reconstruction."""
    root, environment = tmp_path_factory.mktemp("reconstruction"), dict(os.environ)
    settings = (f"data.root={views}", f"exp_root_dir={root}", "trainer.max_steps=2")
    try:
        assert main(["--config", "nerf-reconstruction.yaml", "--train", *settings, *SMALL, *SCENE]) == 0
    finally:
        os.environ.clear()
        os.environ.update(environment)
    return next(root.rglob("last.ckpt"))


@pytest.mark.parametrize("name", list(EDITS))
def test_it_runs_and_leaves_pictures_a_turntable_and_figures(name, views, source, folders, tmp_path):
    config, prior, own = EDITS[name]
    settings = (
        f"data.root={views}",
        f"exp_root_dir={tmp_path}",
        f"system.source_checkpoint={source}",
        f"system.prior.pretrained_model_name_or_path={folders(prior)}",
        "system.prompt_processor.prompt=a pineapple",
        "system.prompt_processor.source_prompt=an apple",
        "trainer.max_steps=2",
    )
    assert main(["--config", config, "--train", *settings, *SMALL, *own]) == 0
    (record,) = tmp_path.rglob("metrics.json")
    metrics = json.loads(record.read_text())
    assert (metrics["steps"], metrics["finished"]) == (2, True)
    assert {"save/it2-test.mp4", "save/it2-views.png"} <= set(metrics["files"])
    assert 0.0 < metrics["edit"]["ssim_to_source"] <= 1.0
    assert ("save/it2-pictures.png" in metrics["files"]) == (name != "pds")
    trained, before = (torch.load(path, weights_only=True)["state_dict"] for path in (last(record), source))
    assert moved(trained, before)


def last(record: Path) -> Path:
    return record.parent / "ckpts/last.ckpt"


def moved(trained, before) -> bool:
    """Whether the encoding of the scene has learned anything, wherever it stands."""
    table = next(value for name, value in trained.items() if name.endswith("encoding.table"))
    start = next(value for name, value in before.items() if name.endswith("encoding.table"))
    return bool(table.isfinite().all()) and not torch.equal(table, start)


NEEDED = {
    "system.source_checkpoint": "last.ckpt",
    "system.prompt_processor.prompt": "a pineapple",
    "system.prompt_processor.source_prompt": "an apple",
}


@pytest.mark.parametrize(
    ("missing", "message"),
    [
        ("system.source_checkpoint", "system.source_checkpoint: missing"),
        ("system.prompt_processor.prompt", "give system.prompt_processor.prompt="),
        ("system.prompt_processor.source_prompt", "give system.prompt_processor.source_prompt="),
    ],
)
def test_a_missing_setting_is_named(missing, message, views, tmp_path, capsys, caplog):
    given = [f"{name}={value}" for name, value in NEEDED.items() if name != missing]
    assert main(["--config", "nerf-edit.yaml", f"data.root={views}", f"exp_root_dir={tmp_path}", *given]) == 2
    error = caplog.text + capsys.readouterr().err
    assert message in error and not any(name in error for name in NEEDED if name != missing)

"""Iterative dataset update: pictures are replaced one by one by each editor, and the scene follows them."""

from __future__ import annotations

import json

import pytest
import torch
from edit_doubles import RenderedViews, edit, make_edit, make_source, psnr_between

from distill3d.config.check import ConfigError

IDU = "nerf-edit-idu-system"
GENTLE = {"strength_range": [0.5, 0.5], "steps": 4, "guidance_scale": 1.0}


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    return make_source(tmp_path_factory.mktemp("source"))


def updated(source, root, steps, editor, resume=None, views="images", **changes):
    data = RenderedViews(source, source=views)
    return edit(IDU, source, root, steps, data, resume, editor={**GENTLE, **editor}, interval=2, **changes)


@pytest.mark.parametrize(("name", "views"), [("sdedit", "images"), ("ddpm-inversion", "renders")])
def test_the_scene_follows_the_edited_pictures(name, views, source, tmp_path):
    system = updated(source, tmp_path, 40, {"name": name}, views=views)
    rows = system.changing.edited()
    assert int(system.changing.replaced.sum()) == 20 and len(rows) >= 4
    pictures, cameras = system.changing.images(rows), system.source_views.train_views.cameras[rows]
    distance = [
        float((r.render(cameras).rgb - pictures).square().mean()) for r in (system.renderer, system.original.renderer)
    ]
    assert distance[0] < 0.6 * distance[1]


def test_views_that_were_not_edited_are_the_sources(source, tmp_path):
    system = updated(source, tmp_path, 1, {})
    untouched = (system.changing.replaced == 0).nonzero()[:, 0]
    assert len(untouched) == 5
    images = system.source_views.train_views.images[untouched]
    torch.testing.assert_close(system.changing.images(untouched), images, rtol=0, atol=0.5 / 255 + 1e-6)


def test_the_disagreement_of_edited_pictures_is_measured(source, tmp_path):
    """Fresh noise for every picture makes them disagree more than the source's do, and than the scene's renders."""
    system = updated(source, tmp_path, 16, {"strength_range": [0.9, 0.9], "guidance_scale": 0.0})
    system.trainer.test(system, system.source_views, verbose=False)
    metrics = json.loads((tmp_path / "metrics.json").read_text())
    figures = metrics["edit"]
    assert figures["inconsistency_of_pictures"] > 1.5 * figures["inconsistency_of_source"] > 0.0
    assert figures["inconsistency_of_pictures"] > 1.5 * figures["inconsistency_of_renders"]
    assert {"save/it16-test.mp4", "save/it16-views.png", "save/it16-pictures.png"} <= set(metrics["files"])


def test_an_editor_that_is_told_to_do_nothing_leaves_the_scene(source, tmp_path):
    system = updated(
        source, tmp_path, 6, {"strength_range": [0.0, 0.0]}, views="renders", optimizer={"args": {"lr": 1e-4}}
    )
    assert psnr_between(system) > 30.0


def test_a_run_that_goes_on_ends_where_an_uninterrupted_one_does(source, tmp_path):
    whole = updated(source, tmp_path / "whole", 5, {})
    updated(source, tmp_path / "parts", 3, {})
    again = updated(source, tmp_path / "parts", 5, {}, tmp_path / "parts/ckpts/last.ckpt")
    for name, value in whole.state_dict().items():
        assert torch.equal(value, again.state_dict()[name]), name


def test_ddpm_inversion_needs_a_source_prompt_and_sdedit_does_not(source):
    plain = {"prompt": "a fox", "source_prompt": None}
    with pytest.raises(ConfigError, match="source_prompt is not set; describe the original"):
        make_edit(IDU, source, prompt_processor=plain, editor={"name": "ddpm-inversion"})
    make_edit(IDU, source, prompt_processor=plain)


def test_an_editor_that_does_not_exist_is_refused(source):
    with pytest.raises(ConfigError, match=r"system\.editor\.name"):
        make_edit(IDU, source, editor={"name": "photoshop"})
    with pytest.raises(ConfigError, match="strength_range"):
        make_edit(IDU, source, editor={"strength_range": [0.7, 0.3]})

"""Edits of a NeRF: nothing changes where nothing is asked for, or allowed to; every rule runs; refinement follows."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
import torch
from edit_doubles import OTHER, SAME, SIDE, RenderedViews, edit, make_edit, make_source, psnr_between
from system_doubles import make_trainer, tiny_data

from distill3d.config.check import ConfigError
from distill3d.data.posed.images import StoredView
from distill3d.runtime.checkpoint import CheckpointError, read_checkpoint, write_checkpoint
from distill3d.scenes.base import Step

EDIT = "nerf-edit-system"


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    return make_source(tmp_path_factory.mktemp("source"))


@pytest.mark.parametrize("rule", ["pds", "dds"])
def test_equal_prompts_and_renders_change_nothing_in_100_steps(rule, source, tmp_path):
    data = RenderedViews(source, source="renders")
    system = edit(EDIT, source, tmp_path, 100, data, guidance_type=rule, prompt_processor=SAME)
    assert psnr_between(system) > 50.0


def test_the_images_of_the_data_set_are_the_source_where_they_are_asked_for(source, tmp_path):
    """With equal prompts PDS returns to its source: to images that are darker than the scene."""
    settings = {"prompt_processor": SAME, "guidance": {"guidance_scale": 0.0, "max_step_percent": 0.1}}
    data = RenderedViews(source, shift=-0.2, source="images")
    system = edit(EDIT, source, tmp_path, 40, data, **settings)
    darker = [float(r.render(data.train_views.cameras).rgb.mean()) for r in (system.renderer, system.original.renderer)]
    assert darker[0] < darker[1] - 0.1


def test_what_a_mask_covers_is_not_the_source_of_an_edit(source, tmp_path):
    """White blots of the data set, covered by masks, are nowhere in what the edit is compared with or starts from."""
    data = RenderedViews(source, source="images")
    views, own = data.train_views, data.train_views.images.clone()
    counted = torch.ones(1, SIDE, SIDE)
    counted[:, :8, :8] = 0.0
    stored = tuple(StoredView((image * counted + (1.0 - counted)), counted) for image in own)
    data.__dict__["_views"] = (replace(views, stored=stored),) * 2
    system = make_edit(EDIT, source)
    system.trainer = make_trainer(tmp_path, 1)
    system.trainer.datamodule = data
    batch = data.batch(0)
    assert batch.images[:, :, :8, :8].min() == 1.0
    seen = [system.source_pictures(batch.index), system.views_of_original(batch, Step(0)).images]
    for images in seen:
        assert (images - own[batch.index]).abs().max() < 0.05


@pytest.mark.parametrize("rule", ["pds", "dds", "sds", "lmc-sds"])
def test_every_rule_of_the_comparison_changes_the_scene(rule, source, tmp_path):
    system = edit(EDIT, source, tmp_path, 8, guidance_type=rule)
    assert psnr_between(system) < 45.0
    assert all(p.isfinite().all() for p in system.parameters())


def test_the_weight_of_the_source_holds_the_scene_and_may_be_scheduled(source, tmp_path):
    settings = {"guidance_type": "sds", "guidance": {"guidance_scale": 3.0}}
    free, held, late = (
        psnr_between(edit(EDIT, source, tmp_path / name, 12, loss={"lambda_source": weight}, **settings))
        for name, weight in (("free", 0.0), ("held", 30.0), ("late", [0, 0.0, 60.0, 12]))
    )
    assert held > free + 3.0 and late > free + 3.0


def test_kept_geometry_lets_only_the_colour_learn(source, tmp_path):
    system = edit(EDIT, source, tmp_path, 8, guidance_type="sds", keep_geometry=True)
    cameras = system.source_views.train_views.cameras
    now, before = (r.render(cameras, need_normal=False) for r in (system.renderer, system.original.renderer))
    points = 0.5 * torch.randn(500, 3, generator=torch.Generator().manual_seed(0))
    assert torch.equal(system.renderer.geometry.density(points), system.original.renderer.geometry.density(points))
    assert float((now.rgb - before.rgb).abs().max()) > 0.01


def test_outside_the_box_nothing_changes(source, tmp_path):
    box = [[0.0, -1.0, -1.0], [1.0, 1.0, 1.0]]
    system = edit(EDIT, source, tmp_path, 8, guidance_type="sds", edit_box=box)
    points = 0.4 * torch.randn(2000, 3, generator=torch.Generator().manual_seed(0))
    now, before = (r.geometry.sample(points, False) for r in (system.renderer, system.original.renderer))
    outside = points[:, 0] < 0
    assert torch.equal(now.albedo[outside], before.albedo[outside])
    assert torch.equal(now.density[outside], before.density[outside])
    assert float((now.albedo - before.albedo)[~outside].abs().max()) > 0.01
    for mine, its in zip(
        system.renderer.background.parameters(), system.original.renderer.background.parameters(), strict=True
    ):
        assert torch.equal(mine, its)


def test_it_leaves_a_turntable_a_sheet_and_figures(source, tmp_path):
    system = edit(EDIT, source, tmp_path, 2, guidance_type="dds")
    system.trainer.test(system, system.source_views, verbose=False)
    metrics = json.loads((tmp_path / "metrics.json").read_text())
    assert {"save/it2-test.mp4", "save/it2-views.png"} <= set(metrics["files"])
    figures = metrics["edit"]
    assert 0.0 < figures["ssim_to_source"] < 1.0 and figures["psnr_to_source_db"] < 99.0
    assert figures["pictures_edited"] == 0
    from PIL import Image

    with Image.open(tmp_path / "save/it2-views.png") as sheet:
        assert sheet.size == (3 * 16, 2 * 16)


def refined(scene, root, steps, resume=None, views="images", **changes):
    stage = {"start_step": 2, "interval": 2, "editor": {"strength_range": [0.4, 0.4], "steps": 4, "guidance_scale": 1}}
    data = RenderedViews(scene, source=views)
    return edit(EDIT, scene, root, steps, data, resume, refinement=stage, **changes)


def test_refinement_redraws_a_view_every_few_steps_and_fits_the_scene_to_it(source, tmp_path):
    system = refined(source, tmp_path, 24)
    assert int(system.changing.replaced.sum()) == 11  # in steps 2, 4, ... 22
    rows = system.changing.edited()
    system.trainer.test(system, system.source_views, verbose=False)
    figures = json.loads((tmp_path / "metrics.json").read_text())["edit"]
    assert figures["pictures_edited"] == len(rows) >= 4
    before = system.original.renderer.render(system.source_views.train_views.cameras[rows]).rgb
    unfitted = float((before - system.changing.images(rows)).square().mean().sqrt())
    assert 0.0 < figures["residual"] < 0.7 * unfitted
    assert (tmp_path / "save/it24-pictures.png").is_file()


def test_a_run_that_goes_on_ends_where_an_uninterrupted_one_does(source, tmp_path):
    whole = refined(source, tmp_path / "whole", 7, views="renders")
    refined(source, tmp_path / "parts", 5, views="renders")
    again = refined(source, tmp_path / "parts", 7, tmp_path / "parts/ckpts/last.ckpt", views="renders")
    for name, value in whole.state_dict().items():
        assert torch.equal(value, again.state_dict()[name]), name


def test_an_edit_is_edited_again_also_one_that_held_a_part(source, tmp_path):
    import yaml

    first = edit(EDIT, source, tmp_path / "first", 3, guidance_type="sds", keep_geometry=True)
    (tmp_path / "first/configs").mkdir()
    settings = {"source_checkpoint": source.checkpoint, "keep_geometry": True}
    text = yaml.safe_dump({"system_type": EDIT, "system": settings})
    (tmp_path / "first/configs/parsed.yaml").write_text(text)
    second = make_edit(EDIT, type(source)(tmp_path / "first", None))
    cameras = first.source_views.train_views.cameras
    torch.testing.assert_close(second.original.renderer.render(cameras).rgb, first.renderer.render(cameras).rgb)


# -- wrong input -------------------------------------------------------------------------------------------------------


def test_a_source_prompt_is_needed_where_the_rule_compares(source):
    for rule in ("pds", "dds"):
        with pytest.raises(ConfigError, match=r"system.prompt_processor.source_prompt is not set"):
            make_edit(EDIT, source, guidance_type=rule, prompt_processor={"prompt": "a fox", "source_prompt": None})
    make_edit(EDIT, source, guidance_type="sds", prompt_processor={"prompt": "a fox", "source_prompt": None})


def test_the_checkpoint_must_be_one_of_a_scene(source, tmp_path):
    with pytest.raises(ConfigError, match=r"system.source_checkpoint is not set.*last.ckpt"):
        make_edit(EDIT, source, source_checkpoint="")
    with pytest.raises(CheckpointError, match=r"system.source_checkpoint=nowhere.ckpt does not exist"):
        make_edit(EDIT, source, source_checkpoint="nowhere.ckpt")
    corrective = read_checkpoint(source.checkpoint)
    corrective["state_dict"] = {"network.weight": torch.zeros(1)}
    corrective["distill3d"]["identity"] = {"system": "CorrectiveTraining"}
    write_checkpoint(corrective, tmp_path / "corrective.ckpt")
    with pytest.raises(CheckpointError, match="is a checkpoint of CorrectiveTraining, which has no scene"):
        make_edit(EDIT, source, source_checkpoint=str(tmp_path / "corrective.ckpt"))


def test_the_field_must_be_of_the_type_that_is_asked_for(source, tmp_path):
    other = read_checkpoint(source.checkpoint)
    other["distill3d"]["identity"]["geometry"] = "tetrahedra"
    path = tmp_path / "ckpts/last.ckpt"
    write_checkpoint(other, path)
    given = {"geometry_type": "implicit-volume", "material_type": "diffuse-with-point-light-material"}
    given |= {"background_type": "neural-environment-map-background", "renderer_type": "nerf-volume-renderer"}
    with pytest.raises(CheckpointError, match="its geometry is 'tetrahedra', not 'implicit-volume'"):
        make_edit(EDIT, source, source_checkpoint=str(path), **given)
    with pytest.raises(ConfigError, match=r"lies in no trial.*give system.geometry_type"):
        make_edit(EDIT, source, source_checkpoint=str(path))


def test_the_data_must_be_posed_images(source, tmp_path):
    system = make_edit(EDIT, source, prompt_processor=OTHER)
    with pytest.raises(ConfigError, match="needs edit-views-datamodule"):
        make_trainer(tmp_path, 1).fit(system, tiny_data())


def test_a_box_has_its_lower_corner_first(source):
    with pytest.raises(ConfigError, match="lower corner"):
        make_edit(EDIT, source, edit_box=[[1, 0, 0], [0, 1, 1]])


def test_a_box_that_holds_nothing_of_the_scene_is_refused(source):
    with pytest.raises(ConfigError, match=r"system\.edit_box=.* lies outside the scene, which reaches from"):
        make_edit(EDIT, source, edit_box=[[5.0, -1, -1], [6.0, 1, 1]])

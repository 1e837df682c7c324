"""Edits of drawings: nothing changes where nothing is asked for, every rule runs, and the file stays an SVG."""

from __future__ import annotations

import json

import pytest
import torch
from picture_doubles import fit, make_data, make_system
from svg_drawings import drawing

from distill3d.config.check import ConfigError
from distill3d.runtime.checkpoint import CheckpointError, read_checkpoint
from distill3d.scenes.svg.document import SvgError, parse_svg
from distill3d.scenes.svg.scene import QUANTITIES

EDIT = "svg-edit-system"
PROMPTS = {"prompt_processor": {"prompt": "a fox", "source_prompt": "a cat"}}
SAME = {"prompt_processor": {"prompt": "a cat", "source_prompt": "a cat"}}
BODY = """
    <rect id="back" width="100" height="100" fill="#aac"/>
    <g id="both" opacity=".9"><circle id="ball" cx="40" cy="50" r="30" fill="#c42" stroke="#222" stroke-width="6"
    opacity=".7"/>
    <text>hi</text><path id="leaf" d="M60 60 Q 95 60 90 20 Z" fill="#2a4"/></g>
    <rect id="nothing" width="0" height="9"/>"""


@pytest.fixture
def svg(tmp_path):
    path = tmp_path / "drawing.svg"
    path.write_text(drawing(BODY))
    return str(path)


def edit(root, steps, svg, data=(), resume=None, **changes):
    changes.setdefault("guidance_type", "pds")
    changes.setdefault("picture_size", 24)
    return fit(EDIT, root, steps, make_data("svg-datamodule", svg=svg, **dict(data)), resume, **changes)


def moved(system, name: str) -> float:
    part = getattr(system.scene, name)
    return float((part.values.detach() - part.start).abs().max())


@pytest.mark.parametrize("rule", ["pds", "dds"])
def test_equal_prompts_change_nothing(rule, svg, tmp_path):
    system = edit(tmp_path, 5, svg, {"batch_size": 2}, guidance_type=rule, **SAME)
    assert all(moved(system, name) == 0.0 for name in QUANTITIES)
    system.export()
    assert (tmp_path / "save/final.svg").read_text() == drawing(BODY)
    metrics = json.loads((tmp_path / "metrics.json").read_text())
    assert metrics["export"] == {"ssim_to_source": pytest.approx(1.0), "mean_point_motion": 0.0}


@pytest.mark.parametrize("rule", ["pds", "dds", "sds", "lmc-sds"])
def test_another_prompt_changes_all_quantities_and_the_structure_stays(rule, svg, tmp_path):
    system = edit(tmp_path, 6, svg, guidance_type=rule, **PROMPTS)
    assert all(moved(system, name) > 1e-4 for name in QUANTITIES)
    files = {path.name for path in system.export()}
    assert files == {"it6-0.png", "it6-progress.mp4", "final.svg"} and (tmp_path / "save/source.png").is_file()
    before, after = (parse_svg(text) for text in (drawing(BODY), (tmp_path / "save/final.svg").read_text()))
    assert [shape.node for shape in after.shapes] == [shape.node for shape in before.shapes]
    assert (after.layers, after.unsupported, after.invisible) == (before.layers, before.unsupported, before.invisible)
    metrics = json.loads((tmp_path / "metrics.json").read_text())
    assert "save/final.svg" in metrics["files"] and 0.0 < metrics["export"]["ssim_to_source"] < 1.0
    named = [text for text in metrics["warnings"] if "data.svg" in text]
    assert len(named) == 2 and "text" in named[0] and "nothing" in named[1]


def test_latent_priors_edit_drawings_too(svg, tmp_path):
    prior = {"channels": 4}
    still = edit(tmp_path / "a", 3, svg, prior=prior, **SAME)
    changed = edit(tmp_path / "b", 3, svg, prior=prior, **PROMPTS)
    assert still.source.shape[1] == 4
    assert moved(still, "points") == 0.0 and moved(changed, "points") > 1e-3


def test_only_what_is_named_is_trained_with_learning_rates_of_its_own(svg, tmp_path):
    optimizer = {"params": {"scene.points": {"lr": 0.0}, "scene.opacities": {"lr": 0.001}}}
    system = edit(tmp_path / "a", 3, svg, trained=["points", "colours", "opacities"], optimizer=optimizer, **PROMPTS)
    assert moved(system, "points") == moved(system, "widths") == 0.0
    assert moved(system, "colours") > 5 * moved(system, "opacities") > 0.0
    with pytest.raises(ConfigError, match=r"trained=\[\] leaves nothing"):
        make_system(EDIT, trained=[])
    with pytest.raises(ConfigError, match="colors"):
        make_system(EDIT, trained=["colors"])


def test_points_hold_as_tightly_as_their_weight_says(svg, tmp_path):
    free, held = (
        edit(tmp_path / str(i), 12, svg, guidance_type="sds", loss={"lambda_points": weight}, **PROMPTS)
        for i, weight in enumerate((0.0, [0, 1e3, 1e6, 4]))
    )
    assert float(held.scene.displacement().detach()) < 0.2 * float(free.scene.displacement().detach())


def test_a_run_goes_on_to_the_same_bits_and_its_checkpoint_brings_the_drawing(svg, tmp_path):
    whole = edit(tmp_path / "whole", 6, svg, **PROMPTS)
    edit(tmp_path / "part", 3, svg, **PROMPTS)
    last = tmp_path / "part/ckpts/last.ckpt"
    going_on = edit(tmp_path / "part", 6, svg, resume=last, **PROMPTS)
    for name in QUANTITIES:
        assert torch.equal(getattr(going_on.scene, name).values, getattr(whole.scene, name).values)
    alone, content = make_system(EDIT, guidance_type="pds"), read_checkpoint(last)
    alone.on_load_checkpoint(content)
    alone.load_state_dict(content["state_dict"])
    assert alone.scene.svg() == going_on.scene.svg()


def test_a_checkpoint_of_another_drawing_is_refused(svg, tmp_path):
    edit(tmp_path, 1, svg, **PROMPTS)
    other = tmp_path / "other.svg"
    other.write_text(drawing('<circle r="9"/>'))
    system = make_system(EDIT, guidance_type="pds", **PROMPTS)
    system.on_load_checkpoint(read_checkpoint(tmp_path / "ckpts/last.ckpt"))
    system.trainer = type("T", (), {"datamodule": make_data("svg-datamodule", svg=str(other))})()
    with pytest.raises(CheckpointError, match="another drawing"):
        system.begin()


def test_wrong_data_is_a_clear_error(tmp_path):
    empty = tmp_path / "empty.svg"
    empty.write_text(drawing(""))
    with pytest.raises(SvgError, match=r"data.svg='.*empty.svg' has nothing to draw"):
        edit(tmp_path, 1, str(empty), **PROMPTS)
    with pytest.raises(ConfigError, match="needs svg-datamodule"):
        fit(EDIT, tmp_path, 1, make_data(), guidance_type="pds", **PROMPTS)

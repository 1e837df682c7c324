"""Edits: nothing changes where nothing is asked for, every rule runs, and the original holds as tightly as asked."""

from __future__ import annotations

import pytest
import torch
from picture_doubles import fit, make_data, picture_file
from PIL import Image

from distill3d.config.check import ConfigError
from distill3d.config.registry import registered

EDIT = "image-edit-system"
PROMPTS = {"prompt_processor": {"prompt": "a fox", "source_prompt": "a cat"}}
SAME = {"prompt_processor": {"prompt": "a cat", "source_prompt": "a cat"}}


@pytest.fixture
def picture(tmp_path):
    return str(picture_file(tmp_path / "picture.png", (20, 12)))


def change(system) -> float:
    return float((system.scene.values.detach() - system.original.values).abs().max())


@pytest.mark.parametrize("rule", ["dds", "pds"])
@pytest.mark.parametrize("parameters", ["pixels", "latents"])
def test_equal_prompts_change_nothing(rule, parameters, picture, tmp_path):
    data = make_data(image=picture, batch_size=2)
    system = fit(EDIT, tmp_path, 4, data, guidance_type=rule, parameters=parameters, **SAME)
    assert change(system) == 0.0


@pytest.mark.parametrize("rule", ["sds", "lmc-sds", "dds", "pds"])
def test_another_prompt_moves_the_picture_towards_its_mean(rule, picture, tmp_path):
    system = fit(EDIT, tmp_path, 25, make_data(image=picture, batch_size=4), guidance_type=rule, **PROMPTS)
    assert system.original is not None and change(system) > 0.1
    assert (tmp_path / "save/source.png").is_file()


def test_the_original_holds_as_tightly_as_its_weight_says(picture, tmp_path):
    changes = {}
    for weight in (0.0, 5.0, [0, 0.0, 50.0, 5]):
        system = fit(
            EDIT,
            tmp_path / str(weight),
            25,
            make_data(image=picture, batch_size=4),
            guidance_type="dds",
            loss={"lambda_source": weight},
            **PROMPTS,
        )
        changes[str(weight)] = float((system.scene.values.detach() - system.original.values).square().mean())
    free, held, scheduled = changes.values()
    assert held < 0.7 * free and scheduled < held


def test_without_a_file_a_sample_of_the_source_prompt_is_edited(tmp_path):
    first, again = (fit(EDIT, tmp_path / name, 1, make_data(), guidance_type="dds", **PROMPTS) for name in "ab")
    assert torch.equal(first.original.values, again.original.values)
    assert float(first.original.values.std()) > 0.05
    with pytest.raises(ConfigError, match=r"data.image is not set.*source_prompt"):
        fit(EDIT, tmp_path / "c", 1, make_data(), guidance_type="sds")


def test_a_fixed_noise_gives_edits_that_differ_by_seed(picture, tmp_path):
    settings = {"guidance_type": "lmc-sds", "guidance": {"fixed_condition_noise": True, "corrective": "none"}}
    edits = [
        fit(EDIT, tmp_path / str(seed), 10, make_data(image=picture, seed=seed), seed=seed, **settings, **PROMPTS)
        for seed in (0, 1)
    ]
    assert float((edits[0].scene.values - edits[1].scene.values).detach().abs().mean()) > 1e-3


SHIPPED = sorted(name for name, cls in registered("guidance").items() if cls.__module__.startswith("distill3d."))


@pytest.mark.parametrize("rule", [name for name in SHIPPED if name != "rfds"])  # that one is for flows
def test_every_guidance_edits_a_picture(rule, picture, tmp_path):
    system = fit(EDIT, tmp_path, 2, make_data(image=picture), guidance_type=rule, **PROMPTS)
    assert system.scene.values.isfinite().all() and change(system) > 0


def test_the_alpha_of_a_cutout_is_the_mask_of_its_edit(tmp_path):
    pixels = torch.full((20, 12, 4), 90, dtype=torch.uint8)
    pixels[..., 3] = 0
    pixels[4:16, 3:9, 3] = 255
    Image.fromarray(pixels.numpy()).save(tmp_path / "cutout.png")
    data = make_data(image=str(tmp_path / "cutout.png"), batch_size=2)
    system = fit(EDIT, tmp_path, 8, data, guidance_type="sds", **PROMPTS)
    moved = (system.scene.values.detach() - system.original.values).abs().amax((0, 1))
    assert moved[4:16, 3:9].min() > 0.0
    assert float(moved.sum()) == pytest.approx(float(moved[4:16, 3:9].sum()))
    assert torch.equal(system.scene.values.detach()[0, :, 0, 0], torch.ones(3))


def test_a_picture_that_is_transparent_everywhere_is_refused(tmp_path):
    Image.new("RGBA", (8, 8)).save(tmp_path / "empty.png")
    with pytest.raises(ValueError, match=r"data\.image=.* is transparent everywhere"):
        make_data(image=str(tmp_path / "empty.png")).check()

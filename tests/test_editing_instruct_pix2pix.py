"""InstructPix2Pix on a tiny folder of diffusers' classes: its guidance, its picture, and what is no such folder."""

from __future__ import annotations

import pytest
import torch
from edit_doubles import edit, make_source
from tiny_components import clip, make_unet, make_vae
from tiny_pipelines import save_pipeline, stable_diffusion

from distill3d.priors.hub import PriorError
from distill3d.priors.settings import PriorConfig
from distill3d.systems.editing.instruct_pix2pix import PIPELINE, embed_instruction, load_instruct_pix2pix


@pytest.fixture(scope="module")
def cfg(tmp_path_factory):
    """A folder as diffusers' own pipeline saves it: 8 channels in, 4 out."""
    from diffusers import DDIMScheduler

    torch.manual_seed(0)
    components = {
        "unet": make_unet(16, 8, out_channels=4),
        "vae": make_vae(scaling_factor=0.18215),
        "scheduler": DDIMScheduler(beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear"),
        **clip(),
        "safety_checker": None,
        "feature_extractor": None,
    }
    return PriorConfig(str(save_pipeline(tmp_path_factory.mktemp("tiny") / "instruct", PIPELINE, components)))


@pytest.fixture(scope="module")
def model(cfg):
    return load_instruct_pix2pix(cfg)


def pictures(seed: int) -> torch.Tensor:
    return torch.rand(2, 3, 32, 32, generator=torch.Generator().manual_seed(seed))


def rows(cfg, instruction="make it a fox"):
    return tuple(text[[0, 0]] for text in embed_instruction(cfg, instruction))


def test_its_guidance_is_the_papers(cfg, model):
    """``e(0, 0) + s_I (e(c_I, 0) - e(0, 0)) + s_T (e(c_I, c_T) - e(c_I, 0))``, each evaluated by hand."""
    z = model.encode(pictures(0))
    seen, t, (text, empty) = model.codec.unscaled(model.encode(pictures(1))), torch.tensor([300, 700]), rows(cfg)

    def by_hand(picture, tokens):
        return model.network(torch.cat([z, picture], 1), t, encoder_hidden_states=tokens).sample

    with torch.no_grad():
        none, image = by_hand(torch.zeros_like(seen), empty.tokens), by_hand(seen, empty.tokens)
        full = by_hand(seen, text.tokens)
        found = model.predict_edit(z, t, (text, empty), seen, guidance_scale=6.5, image_guidance_scale=0.5).noise
    torch.testing.assert_close(found, none + 1.5 * (image - none) + 7.5 * (full - image), rtol=1e-3, atol=1e-4)


def test_the_picture_that_it_sees_is_that_of_diffusers(model):
    """The mode of the VAE's posterior, without the scaling of the latents that are noised."""
    images = pictures(2)
    with torch.no_grad():
        expected = model.codec.vae.encode(2 * images - 1).latent_dist.mode()
        torch.testing.assert_close(model.codec.unscaled(model.encode(images)), expected)


def test_an_edit_depends_on_the_picture_the_instruction_and_the_noise(cfg, model):
    def drawn(original=1, instruction="make it a fox", seed=0, strength=0.9):
        generator = torch.Generator().manual_seed(seed)
        return model.edit(
            pictures(0), pictures(original), rows(cfg, instruction), generator, strength=strength, steps=2
        )

    first = drawn()
    assert first.shape == (2, 3, 32, 32) and first.min() >= 0.0 and first.max() <= 1.0
    assert torch.equal(first, drawn())
    for other in (drawn(original=2), drawn(instruction="paint it"), drawn(seed=1)):
        assert not torch.equal(first, other)
    assert torch.equal(drawn(strength=0.0), pictures(0))


def test_a_scene_is_edited_by_its_folder(cfg, tmp_path):
    editor = {
        "name": "instruct-pix2pix",
        "steps": 1,
        "pretrained_model_name_or_path": cfg.pretrained_model_name_or_path,
    }
    editor["instruction"] = "make it a fox"
    system = edit("nerf-edit-idu-system", make_source(tmp_path / "source"), tmp_path / "edit", 2, editor=editor)
    assert int(system.changing.replaced.sum()) == 1


def test_another_pipeline_is_refused(tmp_path):
    folder = stable_diffusion(tmp_path / "sd")
    with pytest.raises(PriorError, match=f"is a StableDiffusionPipeline.*needs a {PIPELINE}"):
        load_instruct_pix2pix(PriorConfig(str(folder)))

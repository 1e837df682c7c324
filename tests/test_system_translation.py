"""Translation: the network learns the edit, is kept, and is applied to images in one pass."""

from __future__ import annotations

import pytest
import torch
from models_in_memory import InMemory
from picture_doubles import fit, make_data, make_system, picture_file
from PIL import Image
from tiny_pipelines import flux

from distill3d.data.image_folder import read_image
from distill3d.scenes.translator import load_translator
from distill3d.types import Pass

NAME = "translation-system"
CATS_TO_FOXES = {
    "prompt_processor": {"prompt": "a fox", "source_prompt": "a cat"},
    "optimizer": {"args": {"lr": 3e-3}},
    "width": 4,
    "guidance_type": "dds",
}


@pytest.fixture
def folder(tmp_path):
    root = tmp_path / "images"
    (root / "more").mkdir(parents=True)
    for i, name in enumerate(("a.png", "more/b.png", "c.png")):
        picture_file(root / name, (10 + i, 9), seed=i)
    return root


def images(folder):
    return make_data("image-folder-datamodule", root=str(folder), image_size=8, batch_size=4)


def test_translations_move_from_the_source_prompt_towards_the_prompt(folder, tmp_path):
    system = fit(NAME, tmp_path, 60, images(folder), **CATS_TO_FOXES)
    prior = system.prior_to_decode()
    before = prior.encode(system.probes)
    after = prior.encode(system.network(system.probes).detach())
    means = {}
    for text in ("a fox", "a cat"):  # at the largest t the prediction is the prompt's mean image
        z, t = torch.zeros(1, *prior.shape), torch.tensor([999])
        means[text] = prior.predict([Pass(z, t, prior.embed([text]))])[0].x0
    way = means["a fox"] - means["a cat"]
    moved = ((after - before) * way).sum((1, 2, 3)) / way.square().sum()
    assert (moved > 0.2).all()


def test_equal_prompts_leave_the_identity(folder, tmp_path):
    same = CATS_TO_FOXES | {"prompt_processor": {"prompt": "a cat", "source_prompt": "a cat"}}
    system = fit(NAME, tmp_path, 3, images(folder), **same)
    assert torch.equal(system.network(system.probes), system.probes)


@pytest.mark.parametrize("rule", ["sds", "lmc-sds", "pds"])
def test_other_rules_train_it(rule, folder, tmp_path):
    system = fit(NAME, tmp_path, 3, images(folder), **(CATS_TO_FOXES | {"guidance_type": rule}))
    assert not torch.equal(system.network(system.probes), system.probes)
    assert all(p.isfinite().all() for p in system.network.parameters())


def test_text_encoders_are_gone_before_the_prior_that_draws_the_images(tmp_path, monkeypatch):
    monkeypatch.setenv("DISTILL3D_CACHE", str(tmp_path / "cache"))
    prior = {"pretrained_model_name_or_path": str(flux(tmp_path / "flux")), "image_size": 16}
    parts = {"prior_type": "pretrained-diffusion-model", "prompt_processor_type": "prompt-processor", "prior": prior}
    samples = {"prompts": ["a cat", "a kitten"], "count": 2, "sampling_steps": 1, "batch_size": 2}
    for count in (1, 2):  # the second time every text comes from the cache
        alive = InMemory(monkeypatch)
        data = make_data("prior-samples-datamodule", **samples)
        system = fit(NAME, tmp_path / str(count), 1, data, **(CATS_TO_FOXES | parts))
        assert system.probes.shape == (2, 3, 16, 16) and system.sample_texts is None
        encoders = [names for names in alive.moments if "transformer" not in names]
        assert alive.moments[len(encoders) :] == [["transformer"], ["transformer", "vae"]]
        assert bool(encoders) == (count == 1)


def test_a_checkpoint_is_applied_to_a_folder_in_one_pass_without_the_prior(folder, tmp_path):
    trained = fit(NAME, tmp_path, 3, images(folder), **CATS_TO_FOXES)
    checkpoint = torch.load(tmp_path / "ckpts/last.ckpt", weights_only=True)
    other = make_system(NAME, apply_to=str(folder), **CATS_TO_FOXES)
    other.on_load_checkpoint(checkpoint)
    other.load_state_dict(checkpoint["state_dict"])
    other.record.attach(tmp_path)
    passes = []
    other.network.register_forward_hook(lambda *_: passes.append(1))
    files = other.export()
    translated = tmp_path / "save/translated"
    assert {translated / name for name in ("a.png", "more/b.png", "c.png")} < set(files)
    assert len(passes) == 3 and not other._frozen
    assert Image.open(translated / "more/b.png").size == (11, 9)
    image = 0.5 * read_image(folder / "a.png") + 0.5
    shown = 0.5 * read_image(translated / "a.png") + 0.5
    torch.testing.assert_close(shown[None], trained.translate(image[None]), rtol=0, atol=0.51 / 255)
    kept = load_translator(tmp_path / "save/translator.safetensors")
    torch.testing.assert_close(kept(image[None]), trained.network(image[None]))


def test_an_empty_folder_is_named(folder, tmp_path):
    system = make_system(NAME, apply_to=str(tmp_path / "nothing"), **CATS_TO_FOXES)
    system.record.attach(tmp_path)
    with pytest.raises(ValueError, match=r"system.apply_to=.*nothing.*holds no images"):
        system.export()

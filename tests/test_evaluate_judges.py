"""Judges: the embedded one, and CLIP of transformers with random weights."""

import pytest
import torch
from tiny_components import clip_config, clip_tokenizer

from distill3d.camera import VIEW_WORDS
from distill3d.config.check import ConfigError
from distill3d.embedded.judge import Judge, JudgeConfig, save_judge
from distill3d.evaluation import judges
from distill3d.evaluation.final_pictures import FinalPictures, final_figures, final_pictures
from distill3d.evaluation.judges import EmbeddedJudge, choose_judge, transformers_clip

CONFIG = JudgeConfig(("a", "fox", "hat"), ("fox", "hat"), ("fox",), (16, 16), 32, 1, 16)


@pytest.fixture
def judge():
    torch.manual_seed(0)
    return EmbeddedJudge(Judge(CONFIG).eval())


def test_the_embedded_judge_brings_its_captions_and_knows_what_has_a_front(judge):
    assert judge.captions == ["a fox", "a hat"]
    images = torch.rand(3, 3, 32, 32)
    assert set(judge.view_words(images, "a blue fox")) <= set(VIEW_WORDS)
    assert judge.view_words(images, "a hat") is None


def test_clip_gives_unit_vectors_and_views_by_their_words(tmp_path):
    from transformers import CLIPConfig, CLIPModel

    torch.manual_seed(0)
    vision = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
    config = CLIPConfig(
        text_config=clip_config().to_dict(),
        vision_config={**vision, "image_size": 32, "patch_size": 16, "projection_dim": 16},
        projection_dim=16,
    )
    model = CLIPModel(config).eval()
    model.save_pretrained(tmp_path)
    clip_tokenizer().save_pretrained(tmp_path)
    clip = transformers_clip(str(tmp_path))
    images = torch.rand(2, 3, 64, 64)
    embedded = clip.embed_images(images)
    assert embedded.shape == (2, 16)
    assert torch.allclose(embedded.norm(dim=1), torch.ones(2), atol=1e-5)
    texts = clip.embed_texts(["a fox", "a very long hat"])
    assert torch.allclose(clip.embed_texts(["a fox"]), texts[:1], atol=1e-5)
    assert set(clip.view_words(images, "a fox")) <= set(VIEW_WORDS)
    assert choose_judge(str(tmp_path), "embedded").name == f"CLIP {tmp_path}"


def test_the_automatic_choice_follows_the_prior(tmp_path, monkeypatch):
    save_judge(Judge(CONFIG), tmp_path)
    monkeypatch.setattr(judges, "FOLDER", tmp_path)
    assert choose_judge("auto", "embedded").name == "embedded judge"
    monkeypatch.setattr(judges, "CLIP", str(tmp_path / "nowhere"))
    monkeypatch.setattr(judges, "_open_clip_is_fetched", lambda: False)
    assert choose_judge("auto", "stabilityai/some-model") is None
    assert choose_judge("none", "embedded") is None
    with pytest.raises(ConfigError, match="open_clip:MODEL:WEIGHTS"):
        choose_judge(str(tmp_path / "nowhere"), "embedded")


def test_final_pictures_are_those_of_the_last_step(judge, tmp_path):
    from PIL import Image

    save = tmp_path / "save"
    save.mkdir()
    for name, grey in (("it5-0", 10), ("it20-0", 100), ("it20-1", 200), ("it20-views", 0), ("source", 100)):
        Image.new("RGB", (24, 16), (grey,) * 3).save(save / f"{name}.png")
    found = final_pictures(tmp_path, 16)
    assert found.images.shape == (2, 3, 16, 16)
    assert found.images.mean(dim=(1, 2, 3)).tolist() == pytest.approx([100 / 255, 200 / 255])
    figures = final_figures(found, "a fox", judge, [])
    assert figures["saturation"] == 0.0
    assert 0.0 <= figures["r_precision"] <= 1.0
    same = FinalPictures(found.source, found.source)
    assert final_figures(same, "a fox", judge, [])["ssim"] == pytest.approx(1.0, abs=1e-5)
    assert final_figures(same, "a fox", judge, [])["source_distance"] == pytest.approx(0.0, abs=1e-5)
    assert final_pictures(tmp_path / "nowhere", 16) is None

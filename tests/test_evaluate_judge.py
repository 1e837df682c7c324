"""The judge: texts, ranks, files, and a short training that must learn colours apart."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from tiny_assets import make_assets

from distill3d.embedded.captions import SceneCaption, Thing
from distill3d.embedded.judge import NONE_OF_THESE, Judge, JudgeConfig, load_judge, save_judge, split_words
from distill3d.embedded.judge_report import Confusion, confusions, report_judge
from distill3d.embedded.judge_training import soft_targets
from distill3d.embedded.nothing import pictures_of_nothing

CONFIG = JudgeConfig(("a", "an", "apple", "fox", "blue"), ("apple", "fox"), ("fox",), (16, 16), 32, 1, 16)


def test_words_are_split_without_punctuation():
    assert split_words('A fox, "front view".') == ["a", "fox", "front", "view"]


def test_embeddings_have_unit_length_and_padding_does_not_matter():
    torch.manual_seed(0)
    judge = Judge(CONFIG).eval()
    texts = judge.embed_texts(["a fox", "a blue fox", "something unheard of"])
    assert torch.allclose(texts.norm(dim=1), torch.ones(3), atol=1e-5)
    assert torch.allclose(judge.embed_texts(["a fox"])[0], texts[0], atol=1e-5)
    images = judge.embed_images(torch.rand(2, 3, 32, 32))
    assert torch.allclose(images.norm(dim=1), torch.ones(2), atol=1e-5)


def test_word_order_matters():
    judge = Judge(CONFIG).eval()
    a, b = judge.embed_texts(["fox apple", "apple fox"])
    assert not torch.allclose(a, b)


def test_ranks_count_the_better_candidates():
    judge = Judge(CONFIG).eval()
    image = torch.rand(1, 3, 64, 64)
    candidates = ["a fox", "an apple", "a blue fox", "blue"]
    with torch.no_grad():
        scores = {text: float(judge.embed_images(image) @ judge.embed_texts([text])[0]) for text in candidates}
    order = sorted(candidates, key=scores.__getitem__, reverse=True)
    assert [int(judge.rank_of(image, [text], candidates)) for text in order] == [0, 1, 2, 3]


def test_targets_share_the_mass_between_equal_scenes_and_the_nouns_that_are_seen():
    fox, blue = SceneCaption(Thing("fox")), SceneCaption(Thing("fox", color="blue"))
    pair = SceneCaption(Thing("fox"), "next to", Thing("apple"))
    scenes = [fox, fox, blue, pair]
    target = soft_targets(scenes, scenes, ["apple", "fox"], parent_share=0.3)
    assert torch.allclose(target.sum(1), torch.ones(4))
    assert target[0].tolist() == pytest.approx([1 / 3, 1 / 3, 0, 0, 0, 1 / 3])
    assert target[2].tolist() == pytest.approx([0, 0, 0.7, 0, 0, 0.3])
    assert target[3].tolist() == pytest.approx([0, 0, 0, 0.7, 0.15, 0.15])


def test_a_saved_judge_is_the_same_judge(tmp_path):
    judge = Judge(CONFIG).eval()
    save_judge(judge, tmp_path)
    again = load_judge(tmp_path)
    assert again.config == CONFIG
    assert torch.allclose(judge.embed_texts(["a fox"]), again.embed_texts(["a fox"]), atol=2e-3)
    assert not any(p.requires_grad for p in again.parameters())
    with pytest.raises(FileNotFoundError, match=r"judge\.yaml"):
        load_judge(tmp_path / "nowhere")


def test_a_judge_that_rejects_has_a_caption_for_it_and_keeps_it_in_its_files(tmp_path):
    torch.manual_seed(0)
    judge = Judge(replace(CONFIG, rejects=True)).eval()
    assert judge.captions == ["an apple", "a fox", NONE_OF_THESE]
    assert Judge(CONFIG).captions == ["an apple", "a fox"]
    none, fox = judge.embed_texts([NONE_OF_THESE, "a fox"])
    assert judge.nothing is not None
    torch.testing.assert_close(none, torch.nn.functional.normalize(judge.nothing, dim=0))
    with torch.no_grad():
        image = torch.rand(1, 3, 32, 32)
        judge.nothing.copy_(judge.embed_images(image)[0])
    assert judge.top_nouns(image)[0][0] == NONE_OF_THESE  # nothing is nearer
    assert int(judge.rank_of(image, ["a fox"], judge.captions)[0]) >= 1
    save_judge(judge, tmp_path)
    again = load_judge(tmp_path)
    assert again.config.rejects
    torch.testing.assert_close(again.embed_texts(["a fox"])[0], fox, atol=2e-3, rtol=0)
    assert again.top_nouns(image)[0][0] == NONE_OF_THESE


def test_pictures_of_nothing_are_lumps_balls_pieces_and_blends():
    generator = torch.Generator().manual_seed(0)
    images = torch.rand(8, 3, 32, 32, generator=generator)
    clean = torch.zeros(8, 4, 64, 64)
    clean[:, 0, 16:48, 16:48], clean[:, 3, 16:48, 16:48] = 0.8, 1.0  # red squares
    made = pictures_of_nothing(images, clean, torch.Generator().manual_seed(1))
    assert made.shape == images.shape and 0.0 <= float(made.min()) <= float(made.max()) <= 1.0
    lump, ball, pieces, blend = made[4:]
    for object_at_the_middle in (lump, ball):
        red, green, blue = object_at_the_middle[:, 16, 16]
        assert float(red) > 0.45 and float(green) < 0.1 and float(blue) < 0.1
    assert float((lump[:, :, 1:] - lump[:, :, :-1]).abs().max()) < 0.3  # no edge is left
    assert not torch.equal(pieces, images[6])
    assert torch.equal(pieces.flatten().sort().values, images[6].flatten().sort().values)
    torch.testing.assert_close(blend, 0.5 * (images[7] + images[6]))
    again = pictures_of_nothing(images, clean, torch.Generator().manual_seed(1))
    assert torch.equal(made, again)


def test_confusions_are_shares_of_a_nouns_views_and_rare_ones_are_left_out():
    nouns = ["van"] * 4 + ["suv"] * 10
    found = ["suv", "suv", "van", "bus", *["suv"] * 9, "van"]
    assert confusions(nouns, found) == [Confusion("van", "suv", 0.5), Confusion("van", "bus", 0.25)]


def test_the_report_counts_what_the_judge_finds():
    torch.manual_seed(0)
    judge = Judge(CONFIG).eval()
    images = torch.rand(6, 3, 32, 32)
    found = [row[0] for row in judge.top_nouns(images)]
    words = judge.view_words(images)
    right = report_judge(judge, images, found, words)
    assert (right.top1, right.top5, right.confusions) == (1.0, 1.0, [])
    assert right.view_words == (1.0 if "fox" in found else None)
    other = ["apple" if noun == "fox" else "fox" for noun in found]
    wrong = report_judge(judge, images, other, words)
    assert (wrong.top1, wrong.top5) == (0.0, 1.0) and wrong.confusions[0].share == 1.0


def test_a_short_training_tells_the_objects_apart(tmp_path):
    from distill3d.cli import main
    from distill3d.data.assets import read_index
    from distill3d.embedded.mesh_views import ViewSampler, open_cache

    assets = make_assets(tmp_path)
    settings = [
        f"data.assets={assets}",
        f"data.cache_dir={tmp_path / 'cache'}",
        f"exp_root_dir={tmp_path / 'outputs'}",
        "data.views_per_mesh=16",
        "data.pair_views=8",
        "data.batch_size=16",
        "data.pair_share=0.1",
        "data.strong_augmentation=false",
        "system.learning_rate=3.0e-3",
        "trainer.max_steps=100",
        "trainer.precision=32-true",
        "trainer.enable_progress_bar=false",
        "use_timestamp=false",
    ]
    assert main(["--config", "configs/prior/judge.yaml", "--train", *settings]) == 0
    judge = load_judge(next((tmp_path / "outputs/judge").iterdir()) / "save/judge")
    cache = open_cache(read_index(assets), tmp_path / "cache", 10, 2, seed=99)
    batch = ViewSampler(cache, list(judge.config.nouns), 0, 0.0, 0.0).batch(0, 40, 64)
    images = 0.5 + 0.5 * batch.images
    nothing = pictures_of_nothing(images, batch.clean, torch.Generator().manual_seed(0))
    nouns = [scene.first.noun for scene in batch.scenes]
    report = report_judge(judge, images, nouns, batch.views, nothing)
    assert report.top1 > 0.45  # one of four by chance
    assert report.rejected is not None and report.wrongly_rejected is not None
    assert report.rejected > report.wrongly_rejected + 0.2

"""The user's text, the words for each view, and the one time that a text encoder is built."""

from __future__ import annotations

import gc
import json
import logging
import weakref
from collections.abc import Mapping
from pathlib import Path

import pytest
import torch
from tiny_pipelines import TinyFolders, embedded

from distill3d.camera import make_cameras
from distill3d.config.files import EMBEDDED_WEIGHTS
from distill3d.config.registry import find
from distill3d.embedded.captions import SYNONYMS
from distill3d.priors.loader import PretrainedDiffusionModel, PriorConfig, load_prompt_encoder
from distill3d.priors.prompt_processor import PromptProcessor
from distill3d.priors.words import advice
from distill3d.runtime.word_list import taught_nouns
from distill3d.types import Cameras, PromptEmbedding, TextRequest

REQUESTS: Mapping[str, TextRequest] = {
    "conditional": TextRequest("a cat", per_view=True),
    "unconditional": TextRequest(""),
}


@pytest.fixture(scope="module")
def prior(tmp_path_factory: pytest.TempPathFactory) -> PretrainedDiffusionModel:
    return PretrainedDiffusionModel(TinyFolders(tmp_path_factory.mktemp("tiny")).config("embedded"))


def make(tmp_path: Path, prompt: str = "a cat", **settings: object) -> PromptProcessor:
    return PromptProcessor(PromptProcessor.Config(prompt, cache_dir=str(tmp_path / "cache"), **settings))  # type: ignore[arg-type]


def looking(*angles_deg: tuple[float, float]) -> Cameras:
    """Cameras at (elevation, azimuth)."""
    elevation, azimuth = torch.tensor(angles_deg).T
    return make_cameras(elevation, azimuth, torch.ones(len(angles_deg)), torch.full((len(angles_deg),), 60.0), 8, 8)


def assert_rows(embedding: PromptEmbedding, prior: PretrainedDiffusionModel, texts: list[str]) -> None:
    encoder = load_prompt_encoder(prior.cfg, "cpu")
    assert len(embedding) == len(texts)
    for row, text in enumerate(texts):
        expected = encoder([text])
        assert torch.equal(embedding[[row]].tokens, expected.tokens), text
        assert torch.equal(embedding[[row]].pooled, expected.pooled), text  # type: ignore[arg-type]


def test_it_is_registered() -> None:
    assert find("prompt_processor", "prompt-processor") is PromptProcessor


@pytest.mark.parametrize("prompt", ["", "  \n"])
def test_an_empty_prompt_is_an_error_that_names_the_setting(prompt: str) -> None:
    with pytest.raises(ValueError, match=r"system\.prompt_processor\.prompt is empty"):
        PromptProcessor(PromptProcessor.Config(prompt))


def test_thresholds_are_angles() -> None:
    with pytest.raises(ValueError, match=r"front_threshold=-1 must be an angle"):
        PromptProcessor.Config("a cat", front_threshold=-1)


def test_every_camera_has_its_views_words(prior: PretrainedDiffusionModel, tmp_path: Path) -> None:
    processor = make(tmp_path)
    processor.prepare(REQUESTS, prior, "cpu")
    cameras = looking((15, 0), (15, 90), (15, -100), (15, 180), (75, 0), (15, 44))
    texts = processor.texts(cameras, 6)
    words = ["front", "side", "side", "back", "overhead", "front"]
    assert_rows(texts["conditional"], prior, [f"a cat, {word} view" for word in words])
    assert_rows(texts["unconditional"], prior, [""] * 6)


def test_thresholds_move_the_words(prior: PretrainedDiffusionModel, tmp_path: Path) -> None:
    processor = make(tmp_path, overhead_threshold=10.0, front_threshold=30.0, back_threshold=90.0)
    processor.prepare(REQUESTS, prior, "cpu")
    texts = processor.texts(looking((15, 0), (5, 44), (5, 91)), 3)
    assert_rows(texts["conditional"], prior, [f"a cat, {word} view" for word in ("overhead", "side", "back")])


def test_without_cameras_or_view_words_the_text_is_plain(prior: PretrainedDiffusionModel, tmp_path: Path) -> None:
    processor = make(tmp_path)
    processor.prepare(REQUESTS, prior, "cpu")
    assert_rows(processor.texts(None, 2)["conditional"], prior, ["a cat", "a cat"])
    processor = make(tmp_path, view_dependent_prompting=False)
    processor.prepare(REQUESTS, prior, "cpu")
    assert_rows(processor.texts(looking((15, 0)), 1)["conditional"], prior, ["a cat"])


def test_the_users_own_words_for_a_view_win(prior: PretrainedDiffusionModel, tmp_path: Path) -> None:
    processor = make(tmp_path, prompt_back="a tail")
    assert processor.prompt.views == {
        "front": "a cat, front view",
        "side": "a cat, side view",
        "back": "a tail",
        "overhead": "a cat, overhead view",
    }
    requests = {"conditional": TextRequest("a cat", True), "good": TextRequest("a cat, sharp", True)}
    processor.prepare(requests, prior, "cpu")
    texts = processor.texts(looking((15, 180), (15, 0)), 2)
    assert_rows(texts["conditional"], prior, ["a tail", "a cat, front view"])
    assert_rows(texts["good"], prior, ["a tail, sharp", "a cat, sharp, front view"])


def test_view_words_may_lead(prior: PretrainedDiffusionModel, tmp_path: Path) -> None:
    processor = make(tmp_path, view_dependent_prompt_front=True)
    processor.prepare(REQUESTS, prior, "cpu")
    assert_rows(processor.texts(looking((15, 0)), 1)["conditional"], prior, ["front view of a cat"])


def test_textureless_views_may_say_so(prior: PretrainedDiffusionModel, tmp_path: Path) -> None:
    processor = make(tmp_path, textureless_suffix=", textureless")
    processor.prepare(REQUESTS, prior, "cpu")
    camera = looking((15, 0))
    for shading, suffix in (("textureless", ", textureless"), ("albedo", ""), (None, "")):
        texts = processor.texts(camera, 1, shading)
        assert_rows(texts["conditional"], prior, [f"a cat, front view{suffix}"])
        assert_rows(texts["unconditional"], prior, [""])
    mixed = processor.texts(looking((15, 0), (15, 0)), 2, ["albedo", "textureless"])["conditional"]
    assert_rows(mixed, prior, ["a cat, front view", "a cat, front view, textureless"])


def test_prompt_holds_what_the_user_wrote(tmp_path: Path) -> None:
    prompt = make(tmp_path, negative_prompt="blurry", source_prompt="a dog").prompt
    assert (prompt.text, prompt.negative, prompt.source) == ("a cat", "blurry", "a dog")


def test_the_encoder_is_built_once_and_freed(
    prior: PretrainedDiffusionModel, tmp_path: Path, built: list[weakref.ref]
) -> None:
    first = make(tmp_path)
    first.prepare(REQUESTS, prior, "cpu")
    assert len(built) == 1
    second = make(tmp_path)
    second.prepare(REQUESTS, prior, "cpu")
    assert len(built) == 1
    camera = looking((15, 0))
    for role in REQUESTS:
        assert torch.equal(first.texts(camera, 1)[role].tokens, second.texts(camera, 1)[role].tokens)
    gc.collect()
    assert built[0]() is None
    make(tmp_path, "a dog").prepare({"conditional": TextRequest("a dog", True)}, prior, "cpu")
    assert len(built) == 2


def test_another_text_encoder_does_not_find_these_embeddings(
    prior: PretrainedDiffusionModel, tmp_path: Path, built: list[weakref.ref]
) -> None:
    make(tmp_path).prepare(REQUESTS, prior, "cpu")
    other = PretrainedDiffusionModel(PriorConfig(str(embedded(tmp_path / "other", seed=1))))
    make(tmp_path).prepare(REQUESTS, other, "cpu")
    assert len(built) == 2


def test_the_cache_can_be_turned_off(prior: PretrainedDiffusionModel, tmp_path: Path, built: list[weakref.ref]) -> None:
    for _ in range(2):
        make(tmp_path, use_cache=False).prepare(REQUESTS, prior, "cpu")
    assert len(built) == 2
    assert not (tmp_path / "cache").exists()


def test_unknown_words_are_one_warning(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    folder = embedded(tmp_path / "model")
    (folder / "words.json").write_text(json.dumps({"words": ["a", "cat"]}))
    with caplog.at_level(logging.WARNING):
        make(tmp_path, "a blue cat with wings").prepare(
            REQUESTS, PretrainedDiffusionModel(PriorConfig(str(folder))), "cpu"
        )
    assert [record.getMessage() for record in caplog.records if "not in the vocabulary" in record.getMessage()] == [
        f"not in the vocabulary of the model {folder}: blue, with, wings; these words have no reliable effect"
    ]
    caplog.clear()
    make(tmp_path, "a cat").prepare(REQUESTS, PretrainedDiffusionModel(PriorConfig(str(folder))), "cpu")
    assert "not in the vocabulary" not in caplog.text


def unknown(*words: str, near: str = "") -> str:
    text = f"not in the vocabulary of the model embedded: {', '.join(words)}; these words have no reliable effect"
    return f"{text}; nearest by spelling: {near}" if near else text


def alone(word: str, near: str) -> str:
    return f'"{word}" by itself is not known to the model embedded; near: {near}'


def plural(written: str, name: str) -> str:
    return f'the model embedded knows "{name}", and not "{written}": write the singular'


def several(*nouns: str) -> str:
    return (
        f"the prompt names {len(nouns)} objects ({', '.join(nouns)}), and the model embedded makes one, or two that "
        'stand "on top of" or "next to" each other; each may have a colour or a material'
    )


NOUNS = taught_nouns(EMBEDDED_WEIGHTS)
NONE = f"the prompt names none of the 60 nouns of the model embedded: {', '.join(NOUNS)}"
TREES = "christmas tree, palm tree, pine tree"
ADVICE: Mapping[str, list[str]] = {
    **{name: [] for noun in NOUNS for name in (noun, *SYNONYMS.get(noun, ()))},
    "a red fire truck": [],
    "a DSLR photo of an ice castle": [],
    "A hot dog, front view": [],
    "a T-Rex": [],
    "a fox next to a pine tree": [],
    "a burger on a blue taxi": [],
    # words that no caption held
    "a tiny cactus": [unknown("tiny")],
    "a fluffy cat with a hat": [unknown("fluffy", "with", "hat")],
    "a blue hamburgr next to a cat": [unknown("hamburgr", near="hamburger")],
    # no object
    "": [NONE],
    "🐸": [NONE],
    "blue": [NONE],
    "a velociraptor": [unknown("velociraptor"), NONE],
    "a red dragon fruit": [unknown("dragon", "fruit"), NONE],
    "a pinaple": [unknown("pinaple", near="pineapple"), NONE],
    "a tyranosaurus": [unknown("tyranosaurus", near="tyrannosaurus rex"), NONE],
    "a hotdog": [unknown("hotdog", near="hot dog"), NONE],
    # a word that some names end with, and none itself
    "a tree": [alone("tree", TREES), NONE],
    "trees": [alone("trees", TREES), NONE],
    "a fox next to a tree": [alone("tree", TREES)],
    "a train": [alone("train", "steam locomotive"), NONE],
    "a frog in a pot": [alone("pot", "cactus in a pot")],
    # plurals, which its tokenizer reads as other words
    "three frogs": [unknown("three"), plural("frogs", "frog")],
    "foxes": [plural("foxes", "fox")],
    "pine trees": [plural("pine trees", "pine tree")],
    "a bowl of strawberries": [unknown("bowl"), plural("strawberries", "strawberry")],
    # more than it makes
    "a cat and a dog and a pig": [several("cat", "dog", "pig")],
    "a frog wearing a taxi": [several("frog", "yellow taxi")],
    "a frog on top of hamburgers": [plural("hamburgers", "hamburger"), several("frog", "hamburger")],
}


@pytest.mark.parametrize(("prompt", "told"), ADVICE.items())
def test_a_prompt_beyond_the_embedded_prior_is_answered(prompt: str, told: list[str]) -> None:
    model = PretrainedDiffusionModel(PriorConfig())
    assert advice(prompt, model.name, model.vocabulary(), model.nouns(), model.is_pair(prompt)) == told


def test_misuse_is_explained(prior: PretrainedDiffusionModel, tmp_path: Path) -> None:
    processor = make(tmp_path)
    with pytest.raises(RuntimeError, match="before prepare"):
        processor.texts(None, 1)
    processor.prepare(REQUESTS, prior, "cpu")
    with pytest.raises(ValueError, match="batch sizes differ: 1 cameras, 2 images"):
        processor.texts(looking((15, 0)), 2)

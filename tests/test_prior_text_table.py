"""All texts of a run as embeddings, and no text encoder left behind."""

from __future__ import annotations

import weakref
from pathlib import Path

import pytest
import torch
from tiny_pipelines import TinyFolders

from distill3d.priors.embedding_cache import EmbeddingCache, embedding_cache
from distill3d.priors.loader import PretrainedDiffusionModel, PriorConfig, load_prompt_encoder
from distill3d.priors.text_table import TextTable

TEXTS = ["", "a cat", "a dog", "a cat"]


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> TinyFolders:
    return TinyFolders(tmp_path_factory.mktemp("tiny"))


@pytest.fixture(scope="module")
def prior(folders: TinyFolders) -> PretrainedDiffusionModel:
    return PretrainedDiffusionModel(folders.config("embedded"))


def assert_right(table: TextTable, prior: PretrainedDiffusionModel, texts: list[str]) -> None:
    encoder, found = load_prompt_encoder(prior.cfg, "cpu"), table(texts)
    assert len(found) == len(texts)
    for row, text in enumerate(texts):
        for name, value in vars(encoder([text])).items():
            assert torch.equal(getattr(found[[row]], name), value), (text, name)


@pytest.mark.parametrize("cached", [True, False])
@pytest.mark.parametrize("held_bytes", [0, 3000, 1 << 20])
def test_rows_are_the_encoders_own_however_many_are_held(
    prior: PretrainedDiffusionModel, tmp_path: Path, built: list[weakref.ref], cached: bool, held_bytes: int
) -> None:
    cache = EmbeddingCache(tmp_path, "model") if cached else None
    table = TextTable(TEXTS, prior, "cpu", cache, held_bytes=held_bytes)
    assert [encoder() for encoder in built] == [None]
    assert_right(table, prior, ["a dog", "", "a dog", "a cat"])


def test_texts_beyond_the_memory_are_read_from_the_cache(prior: PretrainedDiffusionModel, tmp_path: Path) -> None:
    cache = EmbeddingCache(tmp_path, "model")
    table = TextTable(TEXTS, prior, "cpu", cache, held_bytes=0)
    for file in tmp_path.rglob("*.safetensors"):
        file.unlink()
    with pytest.raises(KeyError, match="'a cat' was not encoded before the network was loaded, or its file is gone"):
        table(["a cat"])
    assert_right(TextTable(TEXTS, prior, "cpu", cache), prior, TEXTS)


def test_a_cache_that_cannot_be_written_loses_no_text(prior: PretrainedDiffusionModel, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    assert_right(TextTable(TEXTS, prior, "cpu", EmbeddingCache(tmp_path / "file", "model"), held_bytes=0), prior, TEXTS)


def test_a_kept_encoder_takes_any_text(prior: PretrainedDiffusionModel, built: list[weakref.ref]) -> None:
    table = TextTable([""], prior, "cpu", keep_encoder=True)
    assert_right(table, prior, ["a bird", "", "a bird"])
    assert len(built) == 1 and built[0]() is not None
    with pytest.raises(KeyError):
        TextTable([""], prior, "cpu")(["a bird"])


def test_the_cache_is_of_these_encoders(folders: TinyFolders, tmp_path: Path) -> None:
    first, second = (folders.config(kind) for kind in ("embedded", "stable-diffusion"))
    half = PriorConfig(first.pretrained_model_name_or_path, precision="bfloat16")
    caches = [embedding_cache(PretrainedDiffusionModel(cfg), "cpu", tmp_path) for cfg in (first, second, half)]
    assert len({cache.folder for cache in caches if cache is not None}) == 3


@pytest.mark.parametrize("kind", ["embedded", "sdxl", "flux"])
def test_parameters_are_counted_without_loading(folders: TinyFolders, kind: str) -> None:
    cfg = folders.config(kind)
    towers = load_prompt_encoder(cfg, "cpu").towers  # type: ignore[attr-defined]
    expected = sum(p.numel() for tower in towers for p in tower.model.parameters())
    assert PretrainedDiffusionModel(cfg).text_parameters() == expected

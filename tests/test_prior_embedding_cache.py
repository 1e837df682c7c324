"""Embeddings on disk: exact, safe for any text, and never a reason to fail."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest
import torch

from distill3d.priors.embedding_cache import EmbeddingCache, default_cache_dir
from distill3d.types import PromptEmbedding

FULL = PromptEmbedding(torch.randn(1, 4, 3), torch.tensor([[True, True, False, False]]), torch.randn(1, 5))


@pytest.mark.parametrize("embedding", [FULL, PromptEmbedding(FULL.tokens)])
def test_round_trip_is_exact(tmp_path: Path, embedding: PromptEmbedding) -> None:
    cache = EmbeddingCache(tmp_path, "model")
    assert not cache.holds("a cat")
    cache.save("a cat", embedding)
    found = cache.load("a cat")
    assert found is not None and cache.holds("a cat")
    for name, value in vars(embedding).items():
        other = getattr(found, name)
        assert other is None if value is None else torch.equal(other, value)


@pytest.mark.parametrize("text", ["", "a/b/../c", "x" * 5000, "🍔 햄버거", "\udc80", "nul\x00", "C:\\con"])
def test_any_text_is_a_key(tmp_path: Path, text: str) -> None:
    cache = EmbeddingCache(tmp_path, "model")
    assert cache.load(text) is None
    cache.save(text, FULL)
    assert cache.load(text) is not None
    assert cache.load(text + " ") is None
    assert len(list(tmp_path.rglob("*.safetensors"))) == 1


def test_text_encoders_do_not_share_entries(tmp_path: Path) -> None:
    EmbeddingCache(tmp_path, "one").save("a cat", FULL)
    assert EmbeddingCache(tmp_path, "two").load("a cat") is None


def test_an_entry_that_is_cut_counts_as_absent(tmp_path: Path) -> None:
    cache = EmbeddingCache(tmp_path, "model")
    cache.save("a cat", FULL)
    file = next(tmp_path.rglob("*.safetensors"))
    for content in (file.read_bytes()[:-7], b"", b"garbage"):
        file.write_bytes(content)
        assert cache.load("a cat") is None
    cache.save("a cat", FULL)
    assert cache.load("a cat") is not None


def test_nothing_but_entries_is_left_behind(tmp_path: Path) -> None:
    EmbeddingCache(tmp_path, "model").save("a cat", FULL)
    assert [path.suffix for path in tmp_path.rglob("*") if path.is_file()] == [".safetensors"]


def test_a_folder_that_cannot_be_written_is_a_warning(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "file").write_text("in the way")
    cache = EmbeddingCache(tmp_path / "file", "model")
    with caplog.at_level(logging.WARNING):
        cache.save("a cat", FULL)
        cache.save("a dog", FULL)
    assert caplog.text.count("system.prompt_processor.cache_dir") == caplog.text.count("set DISTILL3D_CACHE") == 1
    assert cache.load("a cat") is None and not cache.holds("a cat")


def test_the_place_follows_the_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("DISTILL3D_CACHE", str(tmp_path / "own"))
    assert default_cache_dir() == tmp_path / "own/embeddings"
    monkeypatch.delenv("DISTILL3D_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    assert default_cache_dir() == tmp_path / "xdg/distill3d/embeddings"
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert default_cache_dir() == tmp_path / ".cache/distill3d/embeddings"

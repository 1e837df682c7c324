"""Text encoders of every kind against the pipelines' own encode_prompt."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from tiny_pipelines import TINY, TinyFolders

from distill3d.priors.loader import load_prompt_encoder
from distill3d.types import PromptEmbedding

TEXTS = ["a small red cat, with Capitals", "a much longer text that no tokenizer of so few positions can hold"]


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> TinyFolders:
    return TinyFolders(tmp_path_factory.mktemp("tiny"))


def pipeline_of(name: str, folders: TinyFolders, kind: str) -> Any:
    import diffusers

    return getattr(diffusers, name).from_pretrained(folders(kind))


def encoded(folders: TinyFolders, kind: str, texts: list[str], **settings: object) -> PromptEmbedding:
    return load_prompt_encoder(folders.config(kind, **settings), "cpu")(texts)


def test_stable_diffusion(folders: TinyFolders) -> None:
    pipeline = pipeline_of("StableDiffusionPipeline", folders, "stable-diffusion")
    positive, negative = pipeline.encode_prompt(TEXTS, "cpu", 1, True, negative_prompt=None)
    embedding = encoded(folders, "stable-diffusion", [*TEXTS, ""])
    torch.testing.assert_close(embedding.tokens, torch.cat([positive, negative[:1]]))


def test_sdxl_and_its_zeros_for_the_empty_prompt(folders: TinyFolders) -> None:
    pipeline = pipeline_of("StableDiffusionXLPipeline", folders, "sdxl")
    tokens, no_tokens, pooled, no_pooled = pipeline.encode_prompt(TEXTS, do_classifier_free_guidance=True)
    embedding = encoded(folders, "sdxl", [*TEXTS, ""])
    torch.testing.assert_close(embedding.tokens, torch.cat([tokens, no_tokens[:1]]))
    torch.testing.assert_close(embedding.pooled, torch.cat([pooled, no_pooled[:1]]))
    assert (embedding.tokens[2] == 0).all() and (embedding.tokens[0] != 0).any()


def test_deepfloyd_if(folders: TinyFolders) -> None:
    pipeline = pipeline_of("IFPipeline", folders, "deepfloyd-if")
    positive, _ = pipeline.encode_prompt(TEXTS, do_classifier_free_guidance=False, device="cpu")
    embedding = encoded(folders, "deepfloyd-if", TEXTS, text_tokens=None)
    assert embedding.tokens.shape[1] == 77
    torch.testing.assert_close(embedding.tokens, positive)


def test_sd3(folders: TinyFolders) -> None:
    pipeline = pipeline_of("StableDiffusion3Pipeline", folders, "sd3")
    tokens, _, pooled, _ = pipeline.encode_prompt(
        TEXTS, None, None, do_classifier_free_guidance=False, max_sequence_length=12
    )
    embedding = encoded(folders, "sd3", TEXTS)
    torch.testing.assert_close(embedding.tokens, tokens)
    torch.testing.assert_close(embedding.pooled, pooled)


def test_flux(folders: TinyFolders) -> None:
    pipeline = pipeline_of("FluxPipeline", folders, "flux")
    tokens, pooled, _ = pipeline.encode_prompt(TEXTS, None, max_sequence_length=12)
    embedding = encoded(folders, "flux", TEXTS)
    torch.testing.assert_close(embedding.tokens, tokens)
    torch.testing.assert_close(embedding.pooled, pooled)


def test_the_embedded_kind_gives_states_mask_and_pooled_text(folders: TinyFolders) -> None:
    from transformers import CLIPTextModel, CLIPTokenizer

    folder = folders("embedded")
    tokens = CLIPTokenizer.from_pretrained(folder / "tokenizer")(
        TEXTS, padding="max_length", truncation=True, return_tensors="pt"
    )
    with torch.no_grad():
        output = CLIPTextModel.from_pretrained(folder / "text_encoder")(**tokens)
    embedding = encoded(folders, "embedded", TEXTS)
    torch.testing.assert_close(embedding.tokens, output.last_hidden_state)
    torch.testing.assert_close(embedding.pooled, output.pooler_output)
    assert embedding.mask is not None and embedding.mask.dtype == torch.bool


def test_a_tokenizer_of_sentencepiece_alone_is_read(tmp_path: Path) -> None:
    """As DeepFloyd IF and PixArt-Sigma publish theirs: there is a spiece.model, and no tokenizer.json."""
    import sentencepiece

    folders = TinyFolders(tmp_path)
    place = folders("deepfloyd-if") / "tokenizer"
    for file in place.iterdir():
        file.unlink()
    lines = iter([f"the quick brown fox and a small red cat jump over {number} lazy dogs" for number in range(99)])
    special = {"pad_id": 0, "eos_id": 1, "unk_id": 2, "bos_id": -1}
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=lines, model_prefix=str(place / "spiece"), vocab_size=40, minloglevel=2, **special
    )
    (place / "spiece.vocab").unlink()
    config = {"tokenizer_class": "T5Tokenizer", "extra_ids": 0, "model_max_length": 77}
    (place / "tokenizer_config.json").write_text(json.dumps(config))
    encoder: Any = load_prompt_encoder(folders.config("deepfloyd-if"), "cpu")
    expected = sentencepiece.SentencePieceProcessor(str(place / "spiece.model")).encode("a lazy red fox")
    (ids,) = encoder.towers[0].tokenize(["a lazy red fox"], 30)["input_ids"].tolist()
    assert len(expected) > 3 and ids == [*expected, 1, *[0] * (29 - len(expected))]


@pytest.mark.parametrize("kind", list(TINY))
def test_any_text_is_a_prompt(folders: TinyFolders, kind: str) -> None:
    texts = ["", " ", "a 🍔, 햄버거", "x" * 3000, '"quoted": {null} # 2077\n\ttab', "\x00\ufeff"]
    embedding = encoded(folders, kind, texts)
    assert len(embedding) == len(texts)
    assert embedding.tokens.isfinite().all()


@pytest.mark.parametrize("kind", list(TINY))
def test_half_precision_embeddings_are_finite_and_returned_in_fp32(folders: TinyFolders, kind: str) -> None:
    embedding = encoded(folders, kind, TEXTS, precision="bfloat16")
    assert embedding.tokens.dtype == torch.float32 and embedding.tokens.isfinite().all()
    torch.testing.assert_close(embedding.tokens, encoded(folders, kind, TEXTS).tokens, atol=0.1, rtol=0.1)

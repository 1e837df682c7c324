"""The embedded prior's text side: a byte-level tokenizer made from its captions, and a small CLIP text encoder."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from distill3d.data.captions import COLORS, MATERIALS, RELATIONS, SYNONYMS, TEMPLATES, VIEW_PHRASES, with_article

if TYPE_CHECKING:
    from transformers import CLIPTextModel, CLIPTokenizer

POSITIONS = 32
START, END = "<|startoftext|>", "<|endoftext|>"


def caption_corpus(nouns: list[str], seed: int = 0) -> list[str]:
    """Texts over which the byte pairs are counted: every phrase of the grammar, nouns in templates most of all."""
    draw = random.Random(seed)
    names = nouns + [synonym for noun in nouns for synonym in SYNONYMS.get(noun, ())]
    words = [*COLORS, *MATERIALS, *VIEW_PHRASES.values(), *RELATIONS, "textureless"]
    plain = [template.format(with_article(name), bare=name) for name in names for template in TEMPLATES]
    return plain + [f"{draw.choice(words)} {name}, {draw.choice(words)}" for name in names for _ in range(8)]


def make_tokenizer(nouns: list[str], folder: Path, vocabulary_size: int = 2048) -> CLIPTokenizer:
    """Train byte pairs, write a CLIPTokenizer folder, load it. Any text is accepted: all 256 bytes are tokens."""
    from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers
    from transformers import CLIPTokenizer

    bpe = Tokenizer(models.BPE(end_of_word_suffix="</w>", continuing_subword_prefix=""))
    bpe.normalizer = normalizers.Sequence([normalizers.NFC(), normalizers.Lowercase()])
    pattern = Regex(r"'s|'t|'re|'ve|'m|'ll|'d|\p{L}+|\p{N}|[^\s\p{L}\p{N}]+")
    bpe.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(pattern, behavior="removed", invert=True),
            pre_tokenizers.ByteLevel(add_prefix_space=False),
        ]
    )
    bpe.decoder = decoders.ByteLevel()
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary_size - 2,
        initial_alphabet=alphabet,
        end_of_word_suffix="</w>",
        show_progress=False,
    )
    bpe.train_from_iterator(caption_corpus(nouns), trainer)
    model = json.loads(bpe.to_str())["model"]
    vocabulary = _with_word_ends(model["vocab"], alphabet)
    vocabulary |= {START: len(vocabulary), END: len(vocabulary) + 1}
    merges: Any = [tuple(m) if isinstance(m, list) else tuple(m.split(" ")) for m in model["merges"]]
    tokenizer = CLIPTokenizer(
        vocab=vocabulary, merges=merges, bos_token=START, eos_token=END, unk_token=END, pad_token=END
    )
    tokenizer.model_max_length = POSITIONS
    tokenizer.save_pretrained(folder)
    return CLIPTokenizer.from_pretrained(folder)


def _with_word_ends(vocabulary: dict[str, int], alphabet: list[str]) -> dict[str, int]:
    """Every byte also as the last of a word, so that no text needs the unknown token; indices renumbered."""
    tokens = sorted(vocabulary, key=vocabulary.__getitem__)
    missing = [f"{byte}</w>" for byte in alphabet if f"{byte}</w>" not in vocabulary]
    return {token: index for index, token in enumerate(tokens + missing)}


def make_text_encoder(tokenizer: CLIPTokenizer, width: int = 256, layers: int = 4) -> CLIPTextModel:
    """A CLIPTextModel with fresh weights; its pooled output is the state of the end token.

    Words start far apart (CLIP's own start of 0.02 drowns them in what their neighbours say), so that the network can
    tell captions apart before the encoder has learned anything.
    """
    from transformers import CLIPTextConfig, CLIPTextModel

    ids = tokenizer.get_vocab()
    model = CLIPTextModel._from_config(
        CLIPTextConfig(
            vocab_size=len(tokenizer),
            hidden_size=width,
            intermediate_size=4 * width,
            num_hidden_layers=layers,
            num_attention_heads=width // 64,
            max_position_embeddings=POSITIONS,
            projection_dim=width,
            bos_token_id=ids[START],
            eos_token_id=ids[END],
            pad_token_id=ids[END],
        ),
        attn_implementation="eager",  # faster than the fused one for so few tokens on a CPU
    )
    with torch.no_grad():
        word_table(model).normal_(std=0.5)
    return model


def word_table(model: CLIPTextModel) -> Tensor:
    """The token embeddings, ``V C``."""
    return model.get_input_embeddings().weight  # type: ignore[return-value]

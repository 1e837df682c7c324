"""The embedded prior's text side: a byte-level tokenizer made from its captions, and a small CLIP text encoder."""

from __future__ import annotations

import itertools
import random
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from distill3d.embedded.captions import COLORS, MATERIALS, RELATIONS, SYNONYMS, TEMPLATES, VIEW_PHRASES, with_article

if TYPE_CHECKING:
    from transformers import CLIPTextModel, CLIPTokenizer

POSITIONS = 32
START, END = "<|startoftext|>", "<|endoftext|>"
WORD_END = "</w>"


def caption_corpus(nouns: list[str], seed: int = 0) -> list[str]:
    """Texts over which the byte pairs are counted: every phrase of the grammar, nouns in templates most of all."""
    draw = random.Random(seed)
    names = nouns + [synonym for noun in nouns for synonym in SYNONYMS.get(noun, ())]
    words = [*COLORS, *MATERIALS, *VIEW_PHRASES.values(), *RELATIONS, "textureless"]
    plain = [template.format(with_article(name), bare=name) for name in names for template in TEMPLATES]
    return plain + [f"{draw.choice(words)} {name}, {draw.choice(words)}" for name in names for _ in range(8)]


def make_tokenizer(nouns: list[str], folder: Path, vocabulary_size: int = 2048) -> CLIPTokenizer:
    """Train byte pairs, write a CLIPTokenizer folder, load it. Any text is accepted: all 256 bytes are tokens."""
    from tokenizers import Regex, normalizers, pre_tokenizers
    from transformers import CLIPTokenizer

    normal = normalizers.Sequence([normalizers.NFC(), normalizers.Lowercase()])
    pattern = Regex(r"'s|'t|'re|'ve|'m|'ll|'d|\p{L}+|\p{N}|[^\s\p{L}\p{N}]+")
    split = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(pattern, behavior="removed", invert=True),
            pre_tokenizers.ByteLevel(add_prefix_space=False),
        ]
    )
    corpus = map(normal.normalize_str, caption_corpus(nouns))
    words = Counter(word for text in corpus for word, _ in split.pre_tokenize_str(text))
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokens = [*alphabet, *(byte + WORD_END for byte in alphabet)]  # the last of a word is a token of its own
    merges: Any = byte_pairs(words, vocabulary_size - len(tokens) - 2)
    tokens += dict.fromkeys(map("".join, merges))  # two merges may give one token
    vocabulary = {token: index for index, token in enumerate([*tokens, START, END])}
    tokenizer = CLIPTokenizer(
        vocab=vocabulary, merges=merges, bos_token=START, eos_token=END, unk_token=END, pad_token=END
    )
    tokenizer.model_max_length = POSITIONS
    tokenizer.save_pretrained(folder)
    return CLIPTokenizer.from_pretrained(folder)


def byte_pairs(words: Mapping[str, int], count: int) -> list[tuple[str, str]]:
    """The first ``count`` merges of byte-pair encoding (arXiv 1508.07909) of words with their frequencies.

    Our own, since the library's trainer breaks ties by the order of a hash map, another in every process: weights that
    were trained on with such a tokenizer read some words as others. Here ties are broken by the alphabet.
    """
    parts = {word: [*word[:-1], word[-1] + WORD_END] for word in words}
    merges: list[tuple[str, str]] = []
    while len(merges) < count:
        pairs: Counter[tuple[str, str]] = Counter()
        for word, pieces in parts.items():
            for pair in itertools.pairwise(pieces):
                pairs[pair] += words[word]
        if not pairs:
            break
        best = min(pairs, key=lambda pair: (-pairs[pair], pair))
        merges.append(best)
        parts = {word: _merged(pieces, best) for word, pieces in parts.items()}
    return merges


def _merged(pieces: list[str], pair: tuple[str, str]) -> list[str]:
    """``pieces`` with every occurrence of ``pair`` joined, from the left."""
    result: list[str] = []
    for piece in pieces:
        if result and (result[-1], piece) == pair:
            result[-1] += piece
        else:
            result.append(piece)
    return result


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

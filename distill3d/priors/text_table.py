"""Embeddings of all texts that a run will need, made before the denoising network is loaded."""

from __future__ import annotations

import gc
from collections.abc import Iterable, Iterator

import torch

from distill3d.priors.base import PromptEncoder
from distill3d.priors.embedding_cache import EmbeddingCache
from distill3d.priors.model import PriorModel
from distill3d.types import PromptEmbedding

HELD_BYTES = 1 << 30  # 130 prompts of FLUX


def encoded(
    texts: Iterable[str],
    model: PriorModel,
    device: torch.device | str,
    cache: EmbeddingCache | None,
    encoder: PromptEncoder | None = None,
) -> Iterator[tuple[str, PromptEmbedding]]:
    """Each text with its one row, from the cache or else encoded.

    Unless given, the text encoders are built for the first text that the cache lacks, and are gone after the last.
    """
    for text in texts:
        row = cache.load(text) if cache else None
        if row is None:
            encoder = model.text_encoder(device) if encoder is None else encoder
            row = encoder([text])  # one by one: an embedding must not depend on its neighbours
            if cache:
                cache.save(text, row)
        yield text, row
    if encoder is not None:
        del encoder
        gc.collect()  # a network may hold itself in a cycle, and the next to be loaded may need its memory
        if torch.device(device).type == "cuda":
            torch.cuda.empty_cache()


class TextTable:
    """Texts as embeddings, encoded when the table is made; the text encoders live no longer than that.

    Of many texts only ``held_bytes`` of rows stay in memory, others are read from the cache each time. With
    ``keep_encoder`` texts that were not foreseen are encoded as they come, at the price of the encoders' memory.
    Raises PriorError as the loader does, KeyError for a text that was not foreseen.
    """

    def __init__(
        self,
        texts: Iterable[str],
        model: PriorModel,
        device: torch.device | str,
        cache: EmbeddingCache | None = None,
        keep_encoder: bool = False,
        held_bytes: int = HELD_BYTES,
    ) -> None:
        self.device = torch.device(device)
        self._cache, self._room = cache, held_bytes
        self._rows: dict[str, PromptEmbedding] = {}
        self._encoder = model.text_encoder(device) if keep_encoder else None
        for text, row in encoded(dict.fromkeys(texts), model, device, cache, self._encoder):
            self._hold(text, row, needed=cache is None or not cache.holds(text))

    def __call__(self, texts: list[str]) -> PromptEmbedding:
        """One row for each text, on the device; equal texts are moved there once."""
        index = {text: i for i, text in enumerate(dict.fromkeys(texts))}
        distinct = PromptEmbedding.cat([self._row(text) for text in index]).to(self.device)
        return distinct[[index[text] for text in texts]]

    def _row(self, text: str) -> PromptEmbedding:
        row = self._rows.get(text)
        if row is None and self._cache is not None:
            row = self._cache.load(text)
        if row is None and self._encoder is not None:
            row = self._encoder([text])
            self._hold(text, row)
        if row is None:
            raise KeyError(f"the text {text!r} was not encoded before the network was loaded, or its file is gone")
        return row

    def _hold(self, text: str, row: PromptEmbedding, needed: bool = False) -> None:
        size = sum(part.nbytes for part in vars(row).values() if part is not None)
        if needed or size <= self._room:
            self._rows[text] = row
            self._room -= size

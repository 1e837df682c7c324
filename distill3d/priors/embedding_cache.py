"""Prompt embeddings on disk, so that a text encoder is loaded once for each text and never beside training."""

from __future__ import annotations

import hashlib
import logging
import os
from pathlib import Path

import torch

from distill3d.priors.model import PriorModel
from distill3d.runtime.files import write_atomically
from distill3d.runtime.foreign import user_path
from distill3d.runtime.tensor_file import read_tensors
from distill3d.types import PromptEmbedding

log = logging.getLogger(__name__)


class EmbeddingCache:
    """One safetensors file for each text, in a folder for each text encoder.

    A file that is cut or foreign counts as absent; a folder that cannot be written costs one warning and no run.
    """

    def __init__(self, root: Path, text_identity: str) -> None:
        self.folder = root / text_identity
        self._writable = True

    def load(self, text: str) -> PromptEmbedding | None:
        """The one-row embedding of a text, or None."""
        path = self._path(text)
        try:
            tensors, _ = read_tensors(path, str(path), "")
        except (OSError, ValueError):
            return None
        tokens, mask, pooled = (tensors.get(name) for name in ("tokens", "mask", "pooled"))
        whole = tokens is not None and tokens.ndim == 3 and len(tokens) == 1 and bool(tokens.isfinite().all())
        fits = mask is None or (tokens is not None and mask.shape == tokens.shape[:2])
        return PromptEmbedding(tokens, mask, pooled) if whole and fits and tokens is not None else None

    def holds(self, text: str) -> bool:
        """Whether there is a file for a text."""
        return self._path(text).is_file()

    def save(self, text: str, embedding: PromptEmbedding) -> None:
        """Write atomically: several processes may encode the same text at once."""
        from safetensors.torch import save

        if not self._writable:
            return
        tensors = {name: value.contiguous() for name, value in vars(embedding).items() if value is not None}
        try:
            write_atomically(self._path(text), save(tensors))
        except OSError as error:
            self._writable = False
            log.warning(
                "prompt embeddings cannot be cached in %s (%s); set DISTILL3D_CACHE (or, for the prompt alone, "
                "system.prompt_processor.cache_dir) to a folder that can be written",
                self.folder,
                error.strerror or error,
            )

    def _path(self, text: str) -> Path:
        # a hash, since a prompt may hold any character and be longer than a file name may be
        digest = hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()
        return self.folder / f"{digest[:40]}.safetensors"


def embedding_cache(model: PriorModel, device: torch.device | str, root: Path | None = None) -> EmbeddingCache | None:
    """The embeddings that a model's text encoders make in the precision that they have on a device.

    None for a model whose embeddings cost nothing.
    """
    key = model.text_cache_key(device)
    return None if key is None else EmbeddingCache(root or default_cache_dir(), key)


def default_cache_dir() -> Path:
    """``$DISTILL3D_CACHE``, else ``$XDG_CACHE_HOME/distill3d``, else ``~/.cache/distill3d``; below it, embeddings/."""
    own = os.environ.get("DISTILL3D_CACHE")
    base = Path(own) if own else Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache") / "distill3d"
    return user_path(base) / "embeddings"

"""A registered prior before it is loaded: what a run asks of it while its network is not yet in memory."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import torch

from distill3d.priors.base import DiffusionPrior, PromptEncoder
from distill3d.priors.kinds import PriorKind


class PriorModel:
    """Base of every registered prior. `load` and `text_encoder` are all that a new one must have.

    A run embeds its texts first, frees the text encoder, and only then loads the network: the two are never in memory
    together.
    """

    Config: ClassVar[type]

    def __init__(self, cfg: Any) -> None:
        self.cfg = cfg

    @property
    def name(self) -> str:
        """What messages call it."""
        return type(self).__name__

    def load(self, device: torch.device | str) -> DiffusionPrior:
        """The frozen model on a device."""
        raise NotImplementedError

    def text_encoder(self, device: torch.device | str) -> PromptEncoder:
        """What turns texts into embeddings; dropping the object frees it."""
        raise NotImplementedError

    def text_cache_key(self, device: torch.device | str) -> str | None:
        """Names the text encoder and its precision in the cache of embeddings; None where nothing is worth keeping."""
        return None

    def text_parameters(self) -> int:
        """How many parameters the text encoders have, without loading them."""
        return 0

    def vocabulary(self) -> frozenset[str] | None:
        """The words that the model was taught, in lower case; None where nobody knows."""
        return None

    def nouns(self) -> Mapping[str, str]:
        """Every name of an object that the model was taught, and the noun it stands for; none where nobody knows."""
        return {}

    def is_pair(self, prompt: str) -> bool:
        """Whether the model puts two objects together for this prompt, each in its place."""
        return False

    def kind(self) -> PriorKind | None:
        """What kind of diffusers model it is, where it is one. Raises PriorError for a model that is not there."""
        return None

    def check(self) -> None:
        """Raises ValueError for what `load` will not find, before anything is written."""
        self.kind()

    def check_size(self, height: int, width: int) -> None:
        """Raises ValueError for images, in pixels, that it cannot see at one of its native sizes."""

    def frozen_weights(self) -> dict[str, str]:
        """Hashes of what it reads from this machine's disk: other contents make another run."""
        return {}

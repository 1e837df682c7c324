"""What the user writes, with the words for each view, as embeddings."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Int
from torch import Tensor

from distill3d.camera import VIEW_PHRASES, VIEW_WORDS, ViewWord, view_index
from distill3d.config.registry import register
from distill3d.priors.embedding_cache import embedding_cache
from distill3d.priors.model import PriorModel
from distill3d.priors.text_table import encoded
from distill3d.priors.words import advice
from distill3d.runtime.foreign import user_path
from distill3d.types import Cameras, Prompt, PromptEmbedding, ShadingMode, TextRequest

log = logging.getLogger(__name__)

_SETTING = "system.prompt_processor"


@register("prompt_processor", "prompt-processor")
class PromptProcessor:
    """View-dependent prompts, embedded once and cached on disk (DreamFusion, arXiv 2209.14988, section 3.2)."""

    @dataclass
    class Config:
        prompt: str = ""
        negative_prompt: str = ""
        source_prompt: str | None = None  # what an edit starts from
        prompt_front: str | None = None  # instead of "<prompt>, front view"
        prompt_side: str | None = None
        prompt_back: str | None = None
        prompt_overhead: str | None = None
        view_dependent_prompting: bool = True
        view_dependent_prompt_front: bool = False  # "front view of <prompt>" instead of "<prompt>, front view"
        overhead_threshold: float = 60.0  # degrees of elevation above which a view is from overhead
        front_threshold: float = 45.0  # degrees of azimuth around the front
        back_threshold: float = 45.0  # degrees of azimuth around the back
        textureless_suffix: str | None = None  # appended when the view is rendered without texture
        use_cache: bool = True
        cache_dir: str | None = None  # None: see `default_cache_dir`

        def __post_init__(self) -> None:
            for setting in ("overhead_threshold", "front_threshold", "back_threshold"):
                value = getattr(self, setting)
                if not 0.0 <= value <= 180.0:
                    raise ValueError(f"{_SETTING}.{setting}={value} must be an angle of 0 to 180 degrees")

    def __init__(self, cfg: Config) -> None:
        if not cfg.prompt.strip():
            raise ValueError(f'{_SETTING}.prompt is empty: describe the object, as in {_SETTING}.prompt="a hamburger"')
        self.cfg = cfg
        self.prompt = Prompt(cfg.prompt, cfg.negative_prompt, cfg.source_prompt, self._views())
        self._requests: dict[str, TextRequest] = {}
        self._row: dict[str, int] = {}  # text -> row of the table
        self._table: PromptEmbedding | None = None

    def prepare(self, requests: Mapping[str, TextRequest], model: PriorModel, device: torch.device | str) -> None:
        """Embed every text that the roles will need; the prior's text encoder is built only if the cache lacks one.

        Warns of words outside the vocabulary and of several objects. Raises PriorError as the loader does.
        """
        prompt = self.prompt.text
        for text in advice(prompt, model.name, model.vocabulary(), model.nouns(), model.is_pair(prompt)):
            log.warning("%s", text)
        self._requests = dict(requests)
        texts = list(dict.fromkeys(text for request in requests.values() for text in self._texts_of(request)))
        self._row = {text: row for row, text in enumerate(texts)}
        self._table = PromptEmbedding.cat(self._embed(texts, model, device)).to(device)

    def texts(
        self, cameras: Cameras | None, batch: int, shading: ShadingMode | Sequence[ShadingMode] | None = None
    ) -> dict[str, PromptEmbedding]:
        """For each role B rows, by each camera's view word and, with ``textureless_suffix``, by its shading.

        Without cameras every row has the plain text. Raises RuntimeError before `prepare`, ValueError if the batch is
        not the number of cameras.
        """
        if self._table is None:
            raise RuntimeError("PromptProcessor.texts was called before prepare")
        if cameras is not None and len(cameras) != batch:
            raise ValueError(f"batch sizes differ: {len(cameras)} cameras, {batch} images")
        shadings = [shading] * batch if shading is None or isinstance(shading, str) else list(shading)
        textureless = [mode == "textureless" for mode in shadings]
        views = (None,) if cameras is None else VIEW_WORDS
        words = None if cameras is None else self._words(cameras)
        rows = {role: self._rows(request, views, textureless) for role, request in self._requests.items()}
        # roles of the same texts share one embedding: a prior sees that by the object, without reading its values
        made = {choice: self._table[_chosen(choice, words)] for choice in dict.fromkeys(rows.values())}
        return {role: made[choice] for role, choice in rows.items()}

    def _rows(
        self, request: TextRequest, views: Sequence[ViewWord | None], textureless: list[bool]
    ) -> tuple[tuple[int, ...], ...]:
        """For each image the row of the table that it has at each of these views."""
        return tuple(tuple(self._row[self._text(request, view, plain)] for view in views) for plain in textureless)

    def _words(self, cameras: Cameras) -> Int[Tensor, "B"]:
        cfg = self.cfg
        angles = cameras.elevation_deg, cameras.azimuth_deg
        return view_index(*angles, cfg.overhead_threshold, cfg.front_threshold, cfg.back_threshold)

    def _views(self) -> dict[str, str]:
        """The prompt with each view's words, or what the user wrote instead."""
        own = {view: getattr(self.cfg, f"prompt_{view}") for view in VIEW_WORDS}
        return {view: own[view] or self._with_words(self.cfg.prompt, view) for view in VIEW_WORDS}

    def _with_words(self, text: str, view: ViewWord) -> str:
        if not self.cfg.view_dependent_prompting:
            return text
        words = VIEW_PHRASES[view]
        return f"{words} of {text}" if self.cfg.view_dependent_prompt_front else f"{text}, {words}"

    def _text(self, request: TextRequest, view: ViewWord | None, textureless: bool) -> str:
        """One role's text for one view. Only roles that follow the view follow its shading."""
        text = request.text
        if not request.per_view:
            return text
        if view is not None:
            own = getattr(self.cfg, f"prompt_{view}")
            # the user's words for a view replace the prompt, and what a rule adds to the prompt stays
            if own and text.startswith(self.prompt.text):
                text = own + text[len(self.prompt.text) :]
            else:
                text = self._with_words(text, view)
        return text + self.cfg.textureless_suffix if textureless and self.cfg.textureless_suffix else text

    def _texts_of(self, request: TextRequest) -> list[str]:
        """Every text that a role may need."""
        shadings = (False, True) if self.cfg.textureless_suffix else (False,)
        return [self._text(request, view, mode) for view in (None, *VIEW_WORDS) for mode in shadings]

    def _embed(self, texts: list[str], model: PriorModel, device: torch.device | str) -> list[PromptEmbedding]:
        root = user_path(self.cfg.cache_dir) if self.cfg.cache_dir else None
        cache = embedding_cache(model, device, root) if self.cfg.use_cache else None
        return [row for _, row in encoded(texts, model, device, cache)]


def _chosen(choice: tuple[tuple[int, ...], ...], words: Int[Tensor, "B"] | None) -> Int[Tensor, "B"] | list[int]:
    """The row of each image, by its view's word; chosen on the cameras' device."""
    if words is None or all(len(set(rows)) == 1 for rows in choice):
        return [rows[0] for rows in choice]
    return torch.tensor(choice, device=words.device).gather(1, words[:, None])[:, 0]

"""Who judges: the embedded judge, or CLIP where its weights lie on this machine. Nothing is downloaded."""

from __future__ import annotations

import hashlib
import importlib.util
import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from distill3d.camera import VIEW_PHRASES, VIEW_WORDS, ViewWord
from distill3d.config.check import ConfigError
from distill3d.embedded.judge import FOLDER, Judge, load_judge, split_words
from distill3d.evaluation.retrieval import most_like
from distill3d.runtime.foreign import reading

log = logging.getLogger(__name__)

CLIP = "openai/clip-vit-base-patch32"
CLIP_MEAN = (0.48145466, 0.4578275, 0.40821073)  # of its training images, by channel
CLIP_STD = (0.26862954, 0.26130258, 0.27577711)
OPEN_CLIP = ("ViT-B-32", "laion2b_s34b_b79k")


class ImageTextJudge(Protocol):
    """Images and texts as unit vectors of one space; ``name`` stands in the report, ``captions`` are its own."""

    name: str
    captions: list[str]

    def embed_images(self, images: Float[Tensor, "B 3 H W"]) -> Float[Tensor, "B E"]: ...

    def embed_texts(self, texts: Sequence[str]) -> Float[Tensor, "B E"]: ...

    def view_words(self, images: Float[Tensor, "B 3 H W"], prompt: str) -> list[ViewWord] | None:
        """What each view looks like; None for an object without a front."""
        ...


class EmbeddedJudge:
    """The project's own judge of the embedded prior, with its view classifier."""

    def __init__(self, judge: Judge, name: str = "embedded judge") -> None:
        self.judge, self.name = judge, name
        self.identity = _digest(judge)  # figures by other weights are other figures
        self.captions = judge.captions

    @torch.no_grad()
    def embed_images(self, images: Float[Tensor, "B 3 H W"]) -> Float[Tensor, "B E"]:
        return self.judge.embed_images(images)

    @torch.no_grad()
    def embed_texts(self, texts: Sequence[str]) -> Float[Tensor, "B E"]:
        return self.judge.embed_texts(list(texts))

    def view_words(self, images: Float[Tensor, "B 3 H W"], prompt: str) -> list[ViewWord] | None:
        words = set(split_words(prompt))
        if not any(set(split_words(noun)) <= words for noun in self.judge.config.nouns_with_front):
            return None
        by_name: dict[str, ViewWord] = {word: word for word in VIEW_WORDS}
        return [by_name[word] for word in self.judge.view_words(images)]


class ClipJudge:
    """A CLIP model as a function of images and one of texts; views are told apart by their words."""

    captions: list[str] = []  # noqa: RUF012  CLIP has none of its own

    def __init__(self, name: str, encode_images: Any, encode_texts: Any, size: int, mean: Any, std: Any) -> None:
        self.name, self.size = name, size
        self._encode_images, self._encode_texts = encode_images, encode_texts
        self.mean, self.std = torch.tensor(mean)[:, None, None], torch.tensor(std)[:, None, None]

    @torch.no_grad()
    def embed_images(self, images: Float[Tensor, "B 3 H W"]) -> Float[Tensor, "B E"]:
        images = F.interpolate(images, (self.size, self.size), mode="bicubic", antialias=True).clamp(0.0, 1.0)
        return F.normalize(self._encode_images((images - self.mean) / self.std).float(), dim=-1)

    @torch.no_grad()
    def embed_texts(self, texts: Sequence[str]) -> Float[Tensor, "B E"]:
        return F.normalize(self._encode_texts(list(texts)).float(), dim=-1)

    def view_words(self, images: Float[Tensor, "B 3 H W"], prompt: str) -> list[ViewWord] | None:
        texts = self.embed_texts([f"{prompt}, {phrase}" for phrase in VIEW_PHRASES.values()])
        return most_like(self.embed_images(images), texts, VIEW_WORDS)


def transformers_clip(source: str) -> ClipJudge:
    """CLIP by transformers, from a folder or from fetched files of the Hub. Raises ForeignFileError."""
    from transformers import AutoTokenizer, CLIPModel

    with reading(source, "a CLIP model"):
        model: Any = CLIPModel.from_pretrained(source, local_files_only=True).eval()
        tokenizer: Any = AutoTokenizer.from_pretrained(source, local_files_only=True)

    def texts(batch: list[str]) -> Tensor:
        inputs = tokenizer(batch, padding=True, truncation=True, return_tensors="pt")
        return _pooled(model.get_text_features(**inputs))

    return ClipJudge(
        f"CLIP {source}",
        lambda images: _pooled(model.get_image_features(pixel_values=images)),
        texts,
        model.config.vision_config.image_size,
        CLIP_MEAN,
        CLIP_STD,
    )


def open_clip_judge(model_name: str, pretrained: str) -> ClipJudge:
    """open_clip's CLIP; ``pretrained`` is a file, or a tag whose weights were fetched before."""
    import open_clip  # type: ignore[import-not-found]

    with reading(pretrained, "weights of open_clip"):
        model, _, _ = open_clip.create_model_and_transforms(model_name, pretrained=pretrained)
        tokenizer = open_clip.get_tokenizer(model_name)
    model = model.eval()
    visual = model.visual
    size = visual.image_size[0] if isinstance(visual.image_size, tuple) else visual.image_size
    return ClipJudge(
        f"open_clip {model_name} {pretrained}",
        model.encode_image,
        lambda batch: model.encode_text(tokenizer(batch)),
        size,
        visual.image_mean,
        visual.image_std,
    )


def choose_judge(setting: str, prior: str) -> ImageTextJudge | None:
    """The judge that a setting names; ``auto``: the embedded one for the embedded prior, else CLIP if it is here.

    None, with a line in the log, if auto finds none. Raises ConfigError if one is named that cannot be loaded.
    """
    if setting == "none":
        return None
    if setting == "auto":
        return _automatic(prior)
    try:
        return _named(setting)
    except (OSError, ValueError, ImportError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise ConfigError(
            f"judge={setting!r} cannot be loaded: {reason}; choose auto, none, embedded, a folder with judge.json, "
            "a folder or fetched Hub id of CLIP, or open_clip:MODEL:WEIGHTS",
            "judge",
        ) from error


def judge_identity(judge: ImageTextJudge | None) -> str | None:
    """What figures depend on: the weights of an embedded judge, the name of another, None without one."""
    return getattr(judge, "identity", None) or (judge.name if judge else None)


def _named(setting: str) -> ImageTextJudge:
    if setting == "embedded":
        return EmbeddedJudge(load_judge(FOLDER))
    if (Path(setting) / "judge.json").is_file():
        return EmbeddedJudge(load_judge(Path(setting)), f"judge of {setting}")
    if setting.startswith("open_clip:"):
        model, _, weights = setting.removeprefix("open_clip:").partition(":")
        return open_clip_judge(model, weights)
    return transformers_clip(setting)


def _automatic(prior: str) -> ImageTextJudge | None:
    if prior == "embedded":
        try:
            return _named("embedded")
        except FileNotFoundError as error:
            log.warning("no judge: %s", error)
            return None
    if importlib.util.find_spec("open_clip") is not None and _open_clip_is_fetched():
        return open_clip_judge(*OPEN_CLIP)
    try:
        return transformers_clip(CLIP)
    except (OSError, ValueError):
        log.warning("no judge for the prior %s: CLIP's weights are not on this machine; name some with judge=", prior)
        return None


def _digest(model: torch.nn.Module) -> str:
    """A hash of a model's weights."""
    found = hashlib.blake2b(digest_size=16)
    for name, tensor in model.state_dict().items():
        found.update(name.encode() + tensor.cpu().contiguous().numpy().tobytes())
    return found.hexdigest()


def _open_clip_is_fetched() -> bool:
    from huggingface_hub import try_to_load_from_cache

    found = try_to_load_from_cache("laion/CLIP-ViT-B-32-laion2B-s34B-b79K", "open_clip_pytorch_model.bin")
    return isinstance(found, str)


def _pooled(features: Any) -> Tensor:
    """transformers' answer: the projected features, or an object that holds them."""
    return features if isinstance(features, Tensor) else features.pooler_output

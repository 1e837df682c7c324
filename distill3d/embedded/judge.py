"""The judge: a small retrieval model, image tower and text tower, that ranks captions for an image.

It is trained on renders of its own, with stronger augmentation, shares nothing with the prior and never sees its
samples; so it can say whether the prior, or a scene made with it, shows what was asked for.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn

from distill3d.camera import VIEW_WORDS
from distill3d.runtime.files import write_json
from distill3d.runtime.foreign import read_json_mapping, reading
from distill3d.runtime.tensor_file import read_tensors, write_tensors

FOLDER = Path(__file__).with_name("judge_weights")
IMAGE_SIZE = 64
MAX_WORDS = 16
NONE_OF_THESE = "none of these"  # the caption of what shows no noun, where a judge rejects


@dataclass(frozen=True)
class JudgeConfig:
    """Sizes of both towers, and the vocabulary of the text tower."""

    words: tuple[str, ...]
    nouns: tuple[str, ...]
    nouns_with_front: tuple[str, ...] = ()
    channels: tuple[int, ...] = (32, 64, 128, 256)
    text_width: int = 128
    text_layers: int = 2
    embedding: int = 192
    rejects: bool = False  # knows the caption `NONE_OF_THESE`


class Judge(nn.Module):
    """Unit-length embeddings of images and captions in one space, and a classifier of view words."""

    def __init__(self, config: JudgeConfig):
        super().__init__()
        self.config = config
        self.index = {word: i + 2 for i, word in enumerate(config.words)}  # 0 pads, 1 is any unknown word
        self.image_tower = image_tower(config.channels)
        features = config.channels[-1]
        self.image_projection = nn.Linear(2 * features, config.embedding)
        self.view_head = nn.Linear(2 * features, len(VIEW_WORDS))
        self.words = nn.Embedding(len(config.words) + 2, config.text_width, padding_idx=0)
        self.position = nn.Parameter(0.02 * torch.randn(MAX_WORDS, config.text_width))
        layer = nn.TransformerEncoderLayer(
            config.text_width, 4, 2 * config.text_width, dropout=0.0, batch_first=True, norm_first=True
        )
        self.text_tower = nn.TransformerEncoder(layer, config.text_layers, enable_nested_tensor=False)
        self.text_projection = nn.Linear(config.text_width, config.embedding)
        self.nothing = nn.Parameter(torch.randn(config.embedding)) if config.rejects else None
        self.log_scale = nn.Parameter(torch.tensor(3.0))

    def image_features(self, images: Float[Tensor, "B 3 H W"]) -> Float[Tensor, "B F"]:
        """Pooled features of images in [0, 1] of any size."""
        if images.shape[-2:] != (IMAGE_SIZE, IMAGE_SIZE):
            images = F.interpolate(images, (IMAGE_SIZE, IMAGE_SIZE), mode="bilinear", antialias=True)
        h = self.image_tower(2.0 * images - 1.0)
        return torch.cat([h.mean(dim=(2, 3)), h.amax(dim=(2, 3))], dim=1)

    def embed_features(self, features: Float[Tensor, "B F"]) -> Float[Tensor, "B E"]:
        return F.normalize(self.image_projection(features), dim=-1)

    def embed_images(self, images: Float[Tensor, "B 3 H W"]) -> Float[Tensor, "B E"]:
        """Images in [0, 1] to unit vectors."""
        return self.embed_features(self.image_features(images))

    def embed_texts(self, texts: list[str]) -> Float[Tensor, "B E"]:
        """Captions to unit vectors; view words and templates are ordinary words, `NONE_OF_THESE` is a vector."""
        ids = self.tokenize(texts).to(self.position.device)
        mask = ids == 0
        h = self.text_tower(self.words(ids) + self.position, src_key_padding_mask=mask)
        kept = (~mask)[:, :, None].to(h.dtype)
        embedded = self.text_projection((h * kept).sum(1) / kept.sum(1).clamp_min(1.0))
        if self.nothing is not None:
            none = torch.tensor([text == NONE_OF_THESE for text in texts], device=embedded.device)[:, None]
            embedded = torch.where(none, self.nothing.to(embedded), embedded)
        return F.normalize(embedded, dim=-1)

    def tokenize(self, texts: list[str]) -> Int[Tensor, "B N"]:
        rows = [[self.index.get(word, 1) for word in split_words(text)][:MAX_WORDS] or [1] for text in texts]
        return torch.tensor([row + [0] * (MAX_WORDS - len(row)) for row in rows])

    def scale(self) -> Tensor:
        """The inverse temperature of the contrast, at most 100."""
        return self.log_scale.exp().clamp_max(100.0)

    @cached_property
    def captions(self) -> list[str]:
        """What a view is told apart from: each noun, and none of them where the judge rejects."""
        return [*self._noun_captions, *([NONE_OF_THESE] if self.config.rejects else [])]

    @cached_property
    def _noun_captions(self) -> list[str]:
        from distill3d.embedded.captions import with_article

        return [with_article(noun) for noun in self.config.nouns]

    @torch.no_grad()
    def rank_of(self, images: Float[Tensor, "B 3 H W"], texts: list[str], candidates: list[str]) -> Int[Tensor, "B"]:
        """For each image the rank (0 is best) of its text among the candidates and itself."""
        embedded = self.embed_images(images)
        own = (embedded * self.embed_texts(texts)).sum(-1)
        others = embedded @ self.embed_texts(candidates).T
        same = torch.tensor([[c == t for c in candidates] for t in texts], device=others.device)
        return ((others > own[:, None]) & ~same).sum(dim=1)

    @torch.no_grad()
    def top_nouns(self, images: Float[Tensor, "B 3 H W"], count: int = 5) -> list[list[str]]:
        """The best nouns for each image, best first, `NONE_OF_THESE` among them; at most as many as there are."""
        names = [*self.config.nouns, *self.captions[len(self.config.nouns) :]]
        similarity = self.embed_images(images) @ self.embed_texts(self.captions).T
        best = similarity.topk(min(count, len(names)), dim=1).indices.tolist()
        return [[names[i] for i in row] for row in best]

    @torch.no_grad()
    def view_words(self, images: Float[Tensor, "B 3 H W"]) -> list[str]:
        """The most likely view word of each image."""
        return [VIEW_WORDS[i] for i in self.view_head(self.image_features(images)).argmax(dim=1).tolist()]


def image_tower(channels: tuple[int, ...]) -> nn.Sequential:
    """A residual network that halves the image at each width."""
    layers: list[nn.Module] = []
    previous = 3
    for width in channels:
        layers += [nn.Conv2d(previous, width, 3, stride=2, padding=1), _Residual(width)]
        previous = width
    return nn.Sequential(*layers, nn.GroupNorm(8, previous), nn.ReLU())


class _Residual(nn.Module):
    def __init__(self, channels: int):
        super().__init__()
        self.norm1, self.norm2 = nn.GroupNorm(8, channels), nn.GroupNorm(8, channels)
        self.conv1 = nn.Conv2d(channels, channels, 3, padding=1)
        self.conv2 = nn.Conv2d(channels, channels, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        h = self.conv1(F.relu(self.norm1(x)))
        return x + self.conv2(F.relu(self.norm2(h)))


def split_words(text: str) -> list[str]:
    """Lower-case words without punctuation at their ends."""
    return [word.strip(".,;:!?\"'()") for word in text.lower().split() if word.strip(".,;:!?\"'()")]


def save_judge(judge: Judge, folder: Path) -> None:
    """judge.safetensors in half precision, and judge.json."""
    weights = {name: tensor.half() for name, tensor in judge.state_dict().items()}
    write_tensors(folder / "judge.safetensors", weights, {})
    write_json(folder / "judge.json", asdict(judge.config))


def load_judge(folder: Path = FOLDER) -> Judge:
    """The shipped judge, or one of another folder, in fp32 and for evaluation.

    Raises FileNotFoundError when the folder holds none, and ForeignFileError when its files cannot be read.
    """
    if not (folder / "judge.json").is_file():
        raise FileNotFoundError(f"{folder} holds no judge.json; train one with configs/prior/judge.yaml")
    remedy = "take the files of one training together"
    content = read_json_mapping(folder / "judge.json", remedy)
    tensors, _ = read_tensors(folder / "judge.safetensors", str(folder / "judge.safetensors"), remedy)
    with reading(folder, "a judge", remedy):
        settings: dict[str, Any] = {key: tuple(v) if isinstance(v, list) else v for key, v in content.items()}
        judge = Judge(JudgeConfig(**settings))
        judge.load_state_dict({name: tensor.float() for name, tensor in tensors.items()})
    return judge.requires_grad_(False).eval()

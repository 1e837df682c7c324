"""The exact prior of a set of posed views: its denoiser is their posterior mean, in closed form, without a network.

For views ``x_i`` with weights ``w_i`` (what text and camera say of them) the best prediction of x from
``z = alpha x + sigma eps`` is

    E[x | z] = sum_i p_i x_i,    log p_i = -||z - alpha x_i||^2 / (2 sigma^2) + log w_i + constant

the score of the data themselves (arXiv 2206.00364, appendix B.3). What goes wrong under it is the fault of renderer,
optimiser or guidance, and of no network.
"""

from __future__ import annotations

import hashlib
import logging
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn

from distill3d.camera import VIEW_WORDS, ranges_of, view_words
from distill3d.config.registry import register
from distill3d.data.posed.files import training_views
from distill3d.data.posed.images import PosedImages
from distill3d.data.posed.transforms_json import read_frame_sets
from distill3d.priors.base import Condition, PriorSpec, PromptEncoder
from distill3d.priors.identity import file_identity
from distill3d.priors.model import PriorModel
from distill3d.priors.passes import predict
from distill3d.priors.prediction import from_clean
from distill3d.priors.resize import native_size, to_native
from distill3d.priors.velocity_adapter import VelocityAdapter
from distill3d.runtime.foreign import open_image, read_text, user_path
from distill3d.types import Cameras, Pass, Prediction, PromptEmbedding

log = logging.getLogger(__name__)

TRAIN_TIMESTEPS = 1000
CAPTION_FILE = "caption.txt"
_VIEWS = "system.prior.views"


@dataclass
class EmpiricalPriorConfig:
    """Settings of empirical-prior.

    views: folders of posed images, as ``--render-views`` writes them; several make a prior of several objects.
    captions: one for each folder; null: its caption.txt, else its name. A text with a caption in it means its folder.
    condition: what the prior hears besides the caption: nothing, the words of a view, or where the camera stands.
    camera_kernel_deg: deviation of the Gaussian weight of a view by its angle from the camera; a difference in size of
        what stands in the middle counts as the angle that moves an outline as far.
    background: the colour that views with an alpha stand before; that of the scene, or it is taken for an object.
    schedule: ``cosine`` is the embedded prior's (arXiv 2102.09672), ``flow`` is ``z = (1 - s) x + s eps``.
    chunk: views that are compared at once; it changes memory, not the result.
    """

    views: str | list[str] = ""
    captions: list[str] | None = None
    condition: Literal["text", "view-words", "camera"] = "camera"
    camera_kernel_deg: float = 2.0
    background: tuple[float, float, float] = (0.5, 0.5, 0.5)
    schedule: Literal["cosine", "flow"] = "cosine"
    chunk: int = 1024

    def __post_init__(self) -> None:
        if self.camera_kernel_deg <= 0 or self.chunk < 1:
            name = "chunk" if self.chunk < 1 else "camera_kernel_deg"
            raise ValueError(f"system.prior.{name}={getattr(self, name)} must be positive")
        if not all(0.0 <= value <= 1.0 for value in self.background):
            raise ValueError(f"system.prior.background={list(self.background)} must be a colour in 0 .. 1")
        if self.captions is not None and (len(self.captions) != len(self.folders) or not all(self.captions)):
            raise ValueError(
                f"system.prior.captions={self.captions} must hold one caption for each of the {len(self.folders)} "
                "folders of system.prior.views"
            )

    @property
    def folders(self) -> list[Path]:
        names = [self.views] if isinstance(self.views, str) else self.views
        return [user_path(name) for name in names if name]


@register("prior", "empirical-prior")
class EmpiricalModel(PriorModel):
    """The exact diffusion prior of folders of posed views, computed without a network.

    Raises ValueError, naming the folder, for one that cannot be read.
    """

    Config = EmpiricalPriorConfig
    cfg: EmpiricalPriorConfig

    @property
    def name(self) -> str:
        return ", ".join(map(str, self.cfg.folders))

    def load(self, device: torch.device | str) -> EmpiricalPrior:
        return EmpiricalPrior([read_views(folder) for folder in self._folders()], self.cfg, device)

    def text_encoder(self, device: torch.device | str) -> PromptEncoder:
        return CaptionTable(self.captions())

    def captions(self) -> list[str]:
        """One for each folder."""
        return self.cfg.captions or [read_caption(folder) for folder in self._folders()]

    def check(self) -> None:
        """Raises ValueError, naming the folder, where one holds no posed views."""
        for folder in self._folders():
            read_frame_sets(folder, 8, _VIEWS)

    def check_size(self, height: int, width: int) -> None:
        """Its views are square, and it sees images at their size and at half of it."""
        frame = read_frame_sets(self._folders()[0], 8, _VIEWS).train[0]
        sizes = native_sizes(open_image(frame.path, _VIEWS).width)
        seen = native_size(height, width, sizes, sizes[0])
        if seen[0] != seen[1]:
            raise ValueError(f"the views of {_VIEWS} are square: give views of equal width and height")

    def frozen_weights(self) -> dict[str, str]:
        """A hash of every picture and pose."""
        digest = hashlib.blake2b(digest_size=16)
        for folder in self._folders():
            for file in sorted(path for path in folder.rglob("*") if path.is_file()):
                digest.update(f"{file.relative_to(folder)}:{file_identity(file)};".encode())
        return {"prior": digest.hexdigest()}

    def _folders(self) -> list[Path]:
        if not self.cfg.folders:
            raise ValueError(f"{_VIEWS} is not set; give a folder that launch.py --render-views MESH FOLDER wrote")
        return self.cfg.folders


class CaptionTable:
    """Texts as weights: of each folder (1 for the longest caption that the text contains), then of each view's words.

    No weight at all means any folder, or any view: so the empty text is the unconditional one.
    """

    def __init__(self, captions: Sequence[str]) -> None:
        self.captions = [_plain(caption) for caption in captions]

    def __call__(self, texts: list[str]) -> PromptEmbedding:
        return PromptEmbedding(torch.stack([self._row(text) for text in texts])[:, None])

    def _row(self, text: str) -> Float[Tensor, "D"]:
        row, plain = torch.zeros(len(self.captions) + len(VIEW_WORDS)), _plain(text)
        found = [caption for caption in self.captions if caption in plain]
        if found:
            row[self.captions.index(max(found, key=len))] = 1.0
        elif plain and len(self.captions) > 1:
            log.warning("%r has no caption of the prior (%s): all views are used", text, "; ".join(self.captions))
        for i, word in enumerate(VIEW_WORDS):
            row[len(self.captions) + i] = float(f"{word} view" in plain)
        return row


class EmpiricalPrior:
    """A `DiffusionPrior` over the views of some folders, at their own size and at half of it (area means)."""

    def __init__(
        self, folders: Sequence[PosedImages], cfg: EmpiricalPriorConfig, device: torch.device | str = "cpu"
    ) -> None:
        self.cfg, self.device = cfg, torch.device(device)
        self.num_train_timesteps = TRAIN_TIMESTEPS
        self.alphas, self.sigmas = (table.to(self.device) for table in noise_schedule(cfg.schedule, TRAIN_TIMESTEPS))
        images = torch.cat([2.0 * before(views, cfg.background) - 1.0 for views in folders])
        self.cameras = Cameras.cat([views.cameras for views in folders]).to(self.device)
        self.shares = folder_shares([len(views) for views in folders], self.cameras).to(self.device)
        self.identity = hashlib.blake2b(images.numpy().tobytes(), digest_size=16).hexdigest()
        sizes = native_sizes(images.shape[-1])
        self._tables = {side: ViewTable(F.adaptive_avg_pool2d(images, side).to(self.device)) for side in sizes}
        heard: tuple[Condition, ...] = ("text", "camera") if cfg.condition == "camera" else ("text",)
        self.spec = PriorSpec(
            sizes,
            flow=cfg.schedule == "flow",
            conditions=frozenset(heard),
            default_cameras=ranges_of(self.cameras),
        )

    def encode(self, rgb: Float[Tensor, "B 3 H W"]) -> Float[Tensor, "B 3 h w"]:
        """Images in [0, 1] to [-1, 1] at the nearest of the two sizes."""
        return 2.0 * to_native(rgb, self.spec.image_sizes, self.spec.image_sizes[0]) - 1.0

    def decode(self, x: Float[Tensor, "B 3 h w"]) -> Float[Tensor, "B 3 h w"]:
        """x to images in [0, 1], clamped."""
        return (0.5 * x + 0.5).clamp(0.0, 1.0)

    def alpha_sigma(self, t: Int[Tensor, "B"]) -> tuple[Float[Tensor, "B 1 1 1"], Float[Tensor, "B 1 1 1"]]:
        """alpha_t and sigma_t, fp32."""
        alpha, sigma = self.alphas[t], self.sigmas[t]
        return alpha.float()[:, None, None, None], sigma.float()[:, None, None, None]

    def make_adapter(self, rank: int) -> nn.Module:
        """A small U-Net that is added to the answer: there is no network that could carry a LoRA."""
        token_dim = len(self.shares.folders) + len(self.shares.words)
        return VelocityAdapter(self.spec.channels, token_dim, rank).to(self.device)

    def predict(self, passes: list[Pass], grad: bool = False) -> list[Prediction]:
        """The posterior means; equal passes are evaluated once. Raises ValueError for passes of unequal rows."""
        return predict(passes, self._posterior, self.device, grad, "camera" in self.spec.conditions)

    def _posterior(self, item: Pass) -> Prediction:
        z = item.z.to(torch.promote_types(item.z.dtype, torch.float32))
        alpha, sigma = (table[item.t].to(z)[:, None, None, None] for table in (self.alphas, self.sigmas))
        table = self._tables.get(z.shape[-1])
        if table is None:
            raise ValueError(f"the views are {self.spec.image_sizes} pixels wide, and z is {z.shape[-1]}")
        x0 = table.mean(z, alpha, sigma, self.log_weights(item.text, item.cameras).to(z), self.cfg.chunk)
        exact = from_clean(z, x0, alpha, sigma)
        return exact if item.adapter is None else item.adapter(exact, z, item.t, item.text, alpha, sigma)

    def log_weights(self, text: PromptEmbedding, cameras: Cameras | None) -> Float[Tensor, "B N"]:
        """log w_i of each view for each row, up to a constant of the row."""
        tokens = text.tokens[:, 0].float().to(self.device)
        folders, words = tokens.split([tokens.shape[1] - len(VIEW_WORDS), len(VIEW_WORDS)], dim=1)
        weights = mixed(folders, self.shares.folders)
        if self.cfg.condition == "view-words":
            weights = weights * mixed(words, self.shares.words)
        logs = weights.log()
        if cameras is not None:
            angles = view_angles_deg(cameras.to(self.device), self.cameras)
            logs = logs - 0.5 * (angles / self.cfg.camera_kernel_deg) ** 2
        return logs


@dataclass(frozen=True)
class Shares:
    """For each folder, and for each view's words, the weight of each view: alike within them, 1 in sum."""

    folders: Float[Tensor, "F N"]
    words: Float[Tensor, "W N"]

    def to(self, device: torch.device) -> Shares:
        return Shares(self.folders.to(device), self.words.to(device))


class ViewTable:
    """Views of one size, held around their mean so that differences of large squares keep their digits."""

    def __init__(self, images: Float[Tensor, "N 3 h w"]) -> None:
        self.centre = images.mean(0)
        self.rows = (images - self.centre).flatten(1)
        self.squares = self.rows.double().square().sum(1)

    def mean(
        self,
        z: Float[Tensor, "B 3 h w"],
        alpha: Float[Tensor, "B 1 1 1"],
        sigma: Float[Tensor, "B 1 1 1"],
        log_weights: Float[Tensor, "B N"],
        chunk: int,
    ) -> Float[Tensor, "B 3 h w"]:
        """``sum_i p_i x_i``, views in chunks, with the running maximum of log p taken out of both sums."""
        a, s = alpha.flatten(1), sigma.flatten(1)
        offset = (z - alpha * self.centre).flatten(1)
        peak, total, weighted = torch.full_like(a, -math.inf), torch.zeros_like(a), torch.zeros_like(offset)
        for rows, squares, prior in zip(
            self.rows.split(chunk), self.squares.split(chunk), log_weights.split(chunk, dim=1), strict=True
        ):
            rows = rows.to(z)
            logits = (a * (offset @ rows.T) - 0.5 * a**2 * squares.to(z)) / s**2 + prior
            highest = torch.maximum(peak, logits.detach().amax(1, keepdim=True))
            anchor = highest.nan_to_num(neginf=0.0)  # a chunk in which no view has any weight
            old, new = (peak - anchor).exp(), (logits - anchor).exp()
            total, weighted, peak = old * total + new.sum(1, keepdim=True), old * weighted + new @ rows, highest
        return self.centre + (weighted / total).view_as(z)


def mixed(weights: Float[Tensor, "B K"], shares: Float[Tensor, "K N"]) -> Float[Tensor, "B N"]:
    """The weight of each view in a mixture of K groups; without any weight all views count alike."""
    everyone = weights.sum(1, keepdim=True) == 0
    return torch.where(everyone, torch.ones_like(shares[:1]), weights @ shares)


def folder_shares(counts: Sequence[int], cameras: Cameras) -> Shares:
    """Which views a folder and a view's words stand for; words that no view shows stand for all."""
    owner = torch.repeat_interleave(torch.arange(len(counts)), torch.tensor(counts))
    member = (owner == torch.arange(len(counts))[:, None]).float()
    names = view_words(cameras.elevation_deg, cameras.azimuth_deg)
    shown = torch.tensor([[float(name == word) for name in names] for word in VIEW_WORDS])
    shown = torch.where(shown.sum(1, keepdim=True) > 0, shown, torch.ones_like(shown))
    return Shares(*(group / group.sum(1, keepdim=True) for group in (member, shown)))


def view_angles_deg(cameras: Cameras, views: Cameras) -> Float[Tensor, "B N"]:
    """How far each view is from each camera: the angle seen from the origin, and the change of size, in degrees.

    An object in the middle appears ``1 / (distance tan(fovy / 2))`` large; its logarithm changes by 0.01 where an
    outline moves by 1 % of its distance from the middle, as in a rotation by 0.01 radians.
    """
    here, there = (F.normalize(c.position, dim=-1) for c in (cameras, views))
    chord = torch.cdist(here, there, compute_mode="donot_use_mm_for_euclid_dist")
    angle = 2.0 * torch.asin((0.5 * chord).clamp_max(1.0))
    size = [-torch.log(c.position.norm(dim=-1) * torch.tan(0.5 * c.fovy_rad)) for c in (cameras, views)]
    return torch.rad2deg(torch.hypot(angle, size[0][:, None] - size[1]))


def noise_schedule(name: str, count: int) -> tuple[Float[Tensor, "T"], Float[Tensor, "T"]]:
    """alpha and sigma of every t, float64.

    cosine: ``abar = prod (1 - beta)``, ``beta_t = min(1 - f(t + 1) / f(t), .999)``, ``f(t) = cos^2((t / T + .008) /
    1.008 pi / 2)`` (arXiv 2102.09672). flow: ``s = (t + 1) / T`` (arXiv 2210.02747).
    """
    if name == "flow":
        s = (torch.arange(count, dtype=torch.float64) + 1.0) / count
        return 1.0 - s, s
    f = torch.cos((torch.arange(count + 1, dtype=torch.float64) / count + 0.008) / 1.008 * math.pi / 2) ** 2
    abar = torch.cumprod(1.0 - (1.0 - f[1:] / f[:-1]).clamp_max(0.999), 0)
    return abar.sqrt(), (1.0 - abar).sqrt()


def before(views: PosedImages, color: Sequence[float]) -> Float[Tensor, "N 3 H W"]:
    """The views over one colour, in [0, 1]; without an alpha they stay as they are."""
    if views.alpha is None or views.background is None:
        return views.images
    change = torch.tensor(color) - views.background
    return views.images + (1.0 - views.alpha) * change[:, None, None]


def native_sizes(size: int) -> tuple[int, ...]:
    """That of the views, and half of it where that is whole; ascending."""
    return (size // 2, size) if size % 2 == 0 else (size,)


def read_views(folder: Path) -> PosedImages:
    """The training views of a folder. Raises ValueError, naming it, where it holds none or they are not square."""
    views = training_views(folder, _VIEWS)
    if views.images.shape[-1] != views.images.shape[-2]:
        size = tuple(views.images.shape[-2:])
        raise ValueError(f"{_VIEWS}={str(folder)!r}: its images are {size} pixels, and must be square")
    return views


def read_caption(folder: Path) -> str:
    """The first line of the folder's caption.txt, else its name with spaces for underscores."""
    path = folder / CAPTION_FILE
    text = read_text(path, "a caption").strip() if path.is_file() else ""
    return text.splitlines()[0] if text else folder.resolve().name.replace("_", " ")


def _plain(text: str) -> str:
    """Lower case, single spaces."""
    return " ".join(text.lower().split())

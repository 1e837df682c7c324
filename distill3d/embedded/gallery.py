"""A table of small pictures in the network: what is known, addressed by the words and by the noisy image itself.

At high noise the best prediction is the mean of all views of the object, weighted by how likely each is under the noisy
image. Matching against views and averaging them is one layer of attention over a table of pictures; a network of
convolutions came nowhere near it in the training that a CPU affords. It is a memory layer (arXiv 1907.05242) whose keys
are its values, as in a modern Hopfield network (arXiv 2008.02217); its scores are log-likelihoods.
"""

from __future__ import annotations

import math
from typing import NamedTuple, TypeVar

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

Layer = TypeVar("Layer", nn.Linear, nn.Conv2d)
TRUST_KNOTS = 17
MAPS = 7  # the mean picture before the background, its mask, the background
_LEAST_SIGMA = 0.02
_LIGHT = (0.9, 0.04)  # mean and variance of the brightness that a picture is seen in
# backgrounds of the training images (data/relight.py) before one is seen: share, mean and variance of a channel
_BACKGROUNDS = ((0.6, 0.0, 1e-4), (0.1, 1.0, 1e-4), (0.3, 0.0, 0.33))


class Recalled(NamedTuple):
    """What the gallery adds at the trunk's two levels and at the outer one, and what it says itself."""

    fine: Tensor
    coarse: Tensor
    outer: Tensor
    v: Float[Tensor, "B 3 s s"]  # the prediction, if the recalled picture were the image
    trust: Float[Tensor, "B 1 1 1"]  # in that, from 0 to 1

    def steer(self, v: Float[Tensor, "B 3 H W"]) -> Float[Tensor, "B 3 H W"]:
        """The network's prediction with its coarse part moved towards the gallery's; detail is the network's own."""
        missing = self.v - F.avg_pool2d(v.float(), v.shape[-1] // self.v.shape[-1])
        moved = F.interpolate(self.trust * missing, size=v.shape[-2:], mode="bilinear", align_corners=False)
        return v + moved.to(v.dtype)


class Table(NamedTuple):
    """The pictures as rows of floats, with the sums over cells that likelihoods need."""

    color: Float[Tensor, "N 3P"]
    mask: Float[Tensor, "N P"]
    color_squared: Float[Tensor, "N"]
    mask_squared: Float[Tensor, "N"]
    mask_color: Float[Tensor, "N 3"]

    @staticmethod
    def of(pictures: Float[Tensor, "N 4 s s"]) -> Table:
        color, mask = pictures[:, :3].flatten(2).float(), pictures[:, 3].flatten(1).float()
        square = color.square().sum(dim=(1, 2))
        return Table(color.flatten(1), mask, square, mask.square().sum(dim=1), (color * mask[:, None]).sum(dim=2))


class Gallery(nn.Module):
    """``size`` pictures of ``side x side`` cells with masks, a key for the text each, and their ways into the network.

    It predicts v by the cosine schedule; ``channels`` are those of the outer level and of the trunk's two.
    """

    def __init__(self, size: int, side: int, text_dim: int, channels: tuple[int, int, int], timesteps: int = 1000):
        super().__init__()
        self.side, self.timesteps = side, timesteps
        self.pictures = nn.Parameter(torch.zeros(size, 4, side, side))  # 2 x colour in [0, 1] x mask, and the mask
        self.keys = nn.Linear(text_dim, size)
        self.log_spread = nn.Parameter(torch.tensor(math.log(0.1)))  # of what a picture stands for, about it
        outer, low, deep = channels
        self.to_fine = zero_initialised(nn.Conv2d(MAPS, low, 3, padding=1))
        self.to_coarse = zero_initialised(nn.Conv2d(MAPS, deep, 3, padding=1))
        self.to_outer = zero_initialised(nn.Conv2d(MAPS, outer, 3, padding=1))
        # logits over time, for images of two cells' width and of more; and for what the text says
        self.trust = nn.Parameter(torch.linspace(-4.0, 3.0, TRUST_KNOTS).repeat(2, 1))
        self.trust_text = zero_initialised(nn.Linear(text_dim, 1))
        self._frozen: tuple[object, Table] | None = None

    def freeze_table(self) -> None:
        """Leave pictures and keys as they are: on a CPU, learning them makes a step a third longer."""
        self.pictures.requires_grad_(False)
        self.keys.requires_grad_(False)

    def forward(
        self, sample: Float[Tensor, "B 3 H W"], timestep: Float[Tensor, "B"], text: Float[Tensor, "B D"]
    ) -> Recalled:
        cell = sample.shape[-1] // self.side
        with torch.autocast(sample.device.type, enabled=False):
            maps = self.recall(sample.float(), timestep, text.float())
            abar = cosine_alphas_cumprod(timestep, self.timesteps)[:, None, None, None]
            noisy = F.avg_pool2d(sample.float(), cell)
            v = (abar.sqrt() * noisy - maps[:, :3]) / (1.0 - abar).sqrt().clamp_min(_LEAST_SIGMA)
            trust = self._trust(timestep, cell) + F.linear(text.float(), *_float(self.trust_text))
        maps = maps.to(sample.dtype)
        coarse = F.avg_pool2d(maps, 2)
        outer = F.interpolate(maps, scale_factor=2.0, mode="bilinear", align_corners=False)
        trust = torch.sigmoid(trust)[:, :, None, None]
        return Recalled(self.to_fine(maps), self.to_coarse(coarse), self.to_outer(outer), v, trust)

    def _trust(self, timestep: Tensor, cell: int) -> Float[Tensor, "B 1"]:
        """The logits between two knots of time."""
        place = timestep.float() / self.timesteps * (TRUST_KNOTS - 1)
        left = place.long().clamp_max(TRUST_KNOTS - 2)
        knots = self.trust[0 if cell <= 2 else 1].float()
        return torch.lerp(knots[left], knots[left + 1], place - left)[:, None]

    def recall(
        self, sample: Float[Tensor, "B 3 H W"], timestep: Float[Tensor, "B"], text: Float[Tensor, "B D"]
    ) -> Float[Tensor, "B 7 s s"]:
        """The posterior mean over the table: picture before the background, mask, background; in [-1, 1], in float."""
        cell = sample.shape[-1] // self.side
        abar = cosine_alphas_cumprod(timestep, self.timesteps)
        alpha, sigma = abar.sqrt()[:, None], (1.0 - abar).sqrt()[:, None] / cell  # of a cell's mean
        noisy = F.avg_pool2d(sample, cell)
        background, table = self._background(noisy, alpha, sigma), self._table()
        scores, light = self._likelihood(table, noisy, alpha, sigma, background)
        weights = torch.softmax(scores + F.linear(text, *_float(self.keys)), dim=-1)
        color = ((weights * light) @ table.color).unflatten(-1, (3, self.side, self.side))
        mask = (weights @ table.mask).unflatten(-1, (1, self.side, self.side))
        behind = background[:, :, None, None].expand_as(color)
        return torch.cat([color - mask + (1.0 - mask) * behind, mask, behind], dim=1)

    def _table(self) -> Table:
        """Made once for weights that do not learn, which is most of what a call would cost."""
        if self.pictures.requires_grad:
            return Table.of(self.pictures)
        key = (self.pictures.data_ptr(), self.pictures._version, self.pictures.device, self.pictures.dtype)
        if self._frozen is None or self._frozen[0] != key:
            self._frozen = (key, Table.of(self.pictures))
        return self._frozen[1]

    def _background(self, noisy: Tensor, alpha: Tensor, sigma: Tensor) -> Float[Tensor, "B 3"]:
        """Its posterior mean by the cells at the border, where objects seldom are."""
        border = torch.cat([noisy[:, :, [0, -1]].flatten(2), noisy[:, :, 1:-1, [0, -1]].flatten(2)], dim=2)
        share, mean, variance = noisy.new_tensor(_BACKGROUNDS).T[:, :, None, None]  # each K 1 1
        seen = border.mean(dim=2)[None]  # 1 B 3: alpha b, and noise
        noise = sigma**2 / border.shape[2]
        total = alpha**2 * variance + noise  # K B 1
        fits = -0.5 * ((seen - alpha * mean) ** 2 / total + total.log()).sum(dim=-1)
        weights = torch.softmax(fits + share[..., 0].log(), dim=0)
        guesses = mean + alpha * variance / total * (seen - alpha * mean)
        return (weights[..., None] * guesses).sum(dim=0)

    def _likelihood(
        self, table: Table, noisy: Tensor, alpha: Tensor, sigma: Tensor, background: Tensor
    ) -> tuple[Float[Tensor, "B N"], Float[Tensor, "B N"]]:
        """Log-likelihood of each picture, but for what all share, and the mean of the light that it is seen in.

        With K the colours times mask, m the mask and b the background, an image is ``s K - m + (1 - m) b``; the light s
        is a normal variable, integrated out.
        """
        rest = (noisy - alpha[:, :, None, None] * background[:, :, None, None]).flatten(2)  # B 3 P
        above = 1.0 + background
        dot = rest.flatten(1) @ table.color.T + alpha * (above @ table.mask_color.T)
        over = (rest * above[:, :, None]).sum(dim=1) @ table.mask.T
        over = over + 0.5 * alpha * above.square().sum(dim=1, keepdim=True) * table.mask_squared
        spread = sigma**2 + (alpha * self.log_spread.float().exp()) ** 2
        mean, variance = _LIGHT
        precision = alpha**2 * table.color_squared / spread + 1.0 / variance
        light = (alpha * dot / spread + mean / variance) / precision
        fit = 0.5 * precision * light**2 - alpha * over / spread - 0.5 * (precision * variance).log()
        return fit, light


def cosine_alphas_cumprod(timestep: Float[Tensor, "B"], timesteps: int = 1000) -> Float[Tensor, "B"]:
    """abar of the cosine schedule (arXiv 2102.09672) as diffusers has it, whose last beta is .999 at most."""
    bar = lambda u: torch.cos((u + 0.008) / 1.008 * (math.pi / 2)) ** 2  # noqa: E731
    u = (timestep.float() + 1.0) / timesteps
    start, end = bar(torch.zeros(())), 1e-3 * bar(torch.tensor(1.0 - 1.0 / timesteps))
    return (torch.maximum(bar(u), end.to(u)) / start.to(u)).clamp_max(1.0)


def _float(layer: nn.Linear) -> tuple[Tensor, Tensor]:
    return layer.weight.float(), layer.bias.float()


def zero_initialised(layer: Layer) -> Layer:
    nn.init.zeros_(layer.weight)
    if layer.bias is not None:
        nn.init.zeros_(layer.bias)
    return layer

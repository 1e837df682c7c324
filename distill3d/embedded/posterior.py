"""The mean of all pictures that a noisy one may have come from: a training target without the chance of one draw.

At high noise the best prediction is an average over the views of an object, and a loss against the one view that was
drawn is mostly chance. All cached views of the object, before the same background, are known here, so their average,
weighted by how likely each is under the noisy picture, can be the target instead: its expectation is the same, its
variance is not (the stable target field of arXiv 2302.00670, with the whole conditional data set as reference batch).
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from distill3d.embedded import relight

NEGLIGIBLE = 1e-6  # of a weight


@dataclass(frozen=True)
class FlatViews:
    """Views of one object in its own colours, unlit, in [0, 1]: colour times mask, the mask, and sums over pixels.

    Pictures are kept in half precision, 16 MB for 480 views of 64x64, and are floats again where they are used.
    """

    color: Float[Tensor, "N 3 H W"]
    mask: Float[Tensor, "N 1 H W"]
    color_squared: Float[Tensor, "N"]
    mask_squared: Float[Tensor, "N"]
    mask_color: Float[Tensor, "N 3"]

    @staticmethod
    def of(surface: relight.Surface, image_size: int) -> FlatViews:
        both = torch.cat([surface.albedo * surface.mask, surface.mask], dim=1)
        if both.shape[-1] != image_size:
            both = F.interpolate(both, (image_size, image_size), mode="area")
        color, mask = both[:, :3], both[:, 3:]
        return FlatViews(
            color.half(),
            mask.half(),
            color.square().sum(dim=(1, 2, 3)),
            mask.square().sum(dim=(1, 2, 3)),
            (mask * color).sum(dim=(2, 3)),
        )


@dataclass(frozen=True)
class Others:
    """What an image could have been as well, by all that its caption, its background and its shift tell."""

    views: FlatViews
    same_words: Tensor | None  # N, bool: views that the caption's view words allow; None if it has none
    background: Float[Tensor, "3"]
    shift: tuple[int, int]  # right and down, pixels

    def mean(self, noisy: Float[Tensor, "3 H W"], alpha: float, sigma: float) -> Float[Tensor, "3 H W"]:
        """E[x | x_t] in [-1, 1], for ``noisy = alpha x + sigma eps``; all that is allowed is equally likely before."""
        size = noisy.shape[-1]
        dx, dy = self.shift
        back = F.pad(noisy[:, dy:, dx:], (0, dx, 0, dy), mode="replicate")
        weights = self._weights(0.5 * (back + alpha), alpha, 0.5 * sigma)  # in [0, 1], where noise is half as strong
        chosen = torch.nonzero(weights > NEGLIGIBLE).flatten()
        part = weights[chosen] / weights[chosen].sum()
        color = (part @ self.views.color[chosen].float().flatten(1)).view(3, size, size)
        mask = (part @ self.views.mask[chosen].float().flatten(1)).view(1, size, size)
        picture = color + (1.0 - mask) * self.background[:, None, None]
        return 2.0 * relight.shifted(picture[None], torch.tensor([[dx, dy]]))[0] - 1.0

    def _weights(self, noisy: Tensor, alpha: float, sigma: float) -> Float[Tensor, "N"]:
        """Softmax of the log-likelihoods, with ``x = color + (1 - mask) background`` multiplied out."""
        views, b = self.views, self.background
        rest = noisy - alpha * b[:, None, None]
        dot = views.color.flatten(1).float() @ rest.flatten() - views.mask.flatten(1).float() @ (b @ rest.flatten(1))
        square = views.color_squared - 2.0 * views.mask_color @ b + views.mask_squared * b.square().sum()
        logits = (2.0 * alpha * dot - alpha**2 * square) / (2.0 * sigma**2)
        if self.same_words is not None:
            logits = logits.masked_fill(~self.same_words, -torch.inf)
        return torch.softmax(logits, dim=0)


def posterior_means(
    images: Float[Tensor, "B 3 H W"],
    noisy: Float[Tensor, "B 3 H W"],
    alpha: Float[Tensor, "B 1 1 1"],
    sigma: Float[Tensor, "B 1 1 1"],
    others: list[Others | None],
) -> Float[Tensor, "B 3 H W"]:
    """Each image, or the mean of what it could have been where that is known. Reads ``noisy`` on the CPU."""
    out = images.clone()
    for row, known in enumerate(others):
        if known is not None:
            mean = known.mean(noisy[row].detach().float().cpu(), float(alpha[row]), float(sigma[row]))
            out[row] = mean.to(out)
    return out

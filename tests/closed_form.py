"""Diffusion priors whose noise prediction is known exactly: oracles for every test that needs a prior.

Both satisfy `distill3d.priors.base.DiffusionPrior`, for pixels (C = 3) or latents of any shape, under Stable
Diffusion's schedule, a cosine one or a flow. They compute in the precision of z, at least fp32, so float64 in gives
float64 out.
"""

from __future__ import annotations

import hashlib
import math

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn.functional import interpolate

from distill3d.priors.base import Condition, PriorSpec
from distill3d.types import Pass, Prediction, PromptEmbedding

SCHEDULES = ("sd", "cosine", "flow")


def schedule_table(name: str, count: int) -> tuple[Float[Tensor, "T"], Float[Tensor, "T"]]:
    """alpha and sigma of each step in float64."""
    if name == "flow":  # s = (t + 1) / T
        s = (torch.arange(count, dtype=torch.float64) + 1) / count
        return 1 - s, s
    if name == "cosine":
        angle = (torch.arange(count, dtype=torch.float64) + 1) / (count + 1) * math.pi / 2
        return angle.cos(), angle.sin()
    betas = torch.linspace(0.00085**0.5, 0.012**0.5, count, dtype=torch.float64) ** 2
    abar = torch.cumprod(1 - betas, 0)
    return abar.sqrt(), (1 - abar).sqrt()


class LowRankAdapter(nn.Module):
    """A small trainable change of the predicted noise; zero until it is trained."""

    def __init__(self, channels: int, token_dim: int, rank: int) -> None:
        super().__init__()
        self.down = nn.Conv2d(channels, rank, 1)
        self.text = nn.Linear(token_dim, rank)
        self.up = nn.Conv2d(rank, channels, 1)
        for parameter in self.up.parameters():
            nn.init.zeros_(parameter)

    def forward(self, z: Tensor, text: PromptEmbedding) -> Tensor:
        return self.up(self.down(z) + self.text(text.tokens.sum(1))[..., None, None])


class ClosedFormPrior:
    """What both priors share. ``calls`` holds the passes of every predict; ``evaluations`` counts the distinct ones."""

    conditions: frozenset[Condition] = frozenset({"text", "camera"})  # cameras keep passes apart, as they would

    def __init__(self, shape: tuple[int, int, int], token_dim: int, schedule: str, num_train_timesteps: int) -> None:
        self.shape, self.token_dim = shape, token_dim
        self.num_train_timesteps = num_train_timesteps
        self.identity = f"{type(self).__name__}-{'x'.join(map(str, shape))}-{schedule}"
        space = "pixels" if shape[0] == 3 else "latents"
        self.spec = PriorSpec((shape[1],), space, shape[0], flow=schedule == "flow", conditions=self.conditions)
        self.device = torch.device("cpu")
        self.alpha, self.sigma = schedule_table(schedule, num_train_timesteps)
        self.calls: list[list[Pass]] = []
        self.evaluations = 0

    def embed(self, texts: list[str]) -> PromptEmbedding:
        """One token per text: zeros for the empty text, else a direction that depends on the words alone."""
        return PromptEmbedding(torch.stack([self._token(text) for text in texts])[:, None])

    def _token(self, text: str) -> Float[Tensor, "D"]:
        if not text:
            return torch.zeros(self.token_dim)
        seed = int.from_bytes(hashlib.blake2b(text.encode(), digest_size=4).digest(), "little")
        return torch.randn(self.token_dim, generator=torch.Generator().manual_seed(seed))

    def encode(self, rgb: Float[Tensor, "B 3 H W"]) -> Float[Tensor, "B C h w"]:
        resized = interpolate(rgb.float(), self.shape[1:], mode="bilinear", antialias=True, align_corners=False)
        return torch.einsum("cr,brhw->bchw", self._mixing(), 2 * resized - 1)

    def decode(self, x: Float[Tensor, "B C h w"]) -> Float[Tensor, "B 3 H W"]:
        return (0.5 + 0.5 * torch.einsum("rc,bchw->brhw", self._mixing().pinverse(), x.float())).clamp(0, 1)

    def _mixing(self) -> Float[Tensor, "C 3"]:
        """The identity for pixels; a fixed linear map for latents."""
        channels = self.shape[0]
        return torch.eye(3) if channels == 3 else torch.randn(channels, 3, generator=torch.Generator().manual_seed(7))

    def alpha_sigma(self, t: Int[Tensor, "B"]) -> tuple[Tensor, Tensor]:
        return tuple(table[t].float()[:, None, None, None] for table in (self.alpha, self.sigma))  # type: ignore[return-value]

    def make_adapter(self, rank: int) -> nn.Module:
        return LowRankAdapter(self.shape[0], self.token_dim, rank)

    def predict(self, passes: list[Pass], grad: bool = False) -> list[Prediction]:
        self.calls.append(passes)
        with torch.set_grad_enabled(grad):
            return self._evaluate_once(passes)

    def _evaluate_once(self, passes: list[Pass]) -> list[Prediction]:
        answers: list[Prediction] = []
        for i, one in enumerate(passes):
            twin = next((j for j in range(i) if _equal(passes[j], one)), None)
            answers.append(self._predict(one) if twin is None else answers[twin])
            self.evaluations += twin is None
        return answers

    def _predict(self, one: Pass) -> Prediction:
        z = one.z.to(torch.promote_types(one.z.dtype, torch.float32))
        alpha, sigma = (table[one.t].to(z)[:, None, None, None] for table in (self.alpha, self.sigma))
        answer = self.posterior(z, alpha, sigma, one.text.tokens.sum(1).to(z))
        if one.adapter is None:
            return answer
        change = one.adapter(z, one.text)
        return Prediction(answer.noise + change, answer.x0 - sigma / alpha.clamp_min(0.05) * change)

    def posterior(self, z: Tensor, alpha: Tensor, sigma: Tensor, text: Float[Tensor, "B D"]) -> Prediction:
        """E[eps | z] and E[x | z]."""
        raise NotImplementedError


class GaussianPrior(ClosedFormPrior):
    """``x ~ N(m(text), S)``: S diagonal in the 2D Fourier basis, the mean linear in the text.

    spectrum: the variance of each frequency of the orthonormal ``fft2``; by default falling with the frequency, as in
    natural images. directions: what each component of the text's token adds to the mean; by default smooth and random.
    """

    def __init__(
        self,
        shape: tuple[int, int, int] = (3, 8, 8),
        spectrum: Float[Tensor, "h w"] | None = None,
        directions: Float[Tensor, "D C h w"] | None = None,
        schedule: str = "sd",
        num_train_timesteps: int = 1000,
    ) -> None:
        self.spectrum = natural_spectrum(*shape[1:]) if spectrum is None else spectrum.double()
        if directions is None:
            directions = torch.randn(4, *shape, generator=torch.Generator().manual_seed(11)) * 0.2
        self.directions = directions
        super().__init__(shape, len(directions), schedule, num_train_timesteps)

    def wiener(self, alpha: Tensor, sigma: Tensor) -> Tensor:
        """``alpha^2 S / (alpha^2 S + sigma^2)``: the gain of E[x_hat | x] at each frequency."""
        power = alpha**2 * self.spectrum.to(alpha)
        return power / (power + sigma**2)

    def posterior(self, z: Tensor, alpha: Tensor, sigma: Tensor, text: Tensor) -> Prediction:
        mean = torch.einsum("bd,dchw->bchw", text, self.directions.to(z))
        spectrum = self.spectrum.to(z)
        whitened = torch.fft.fft2(z - alpha * mean, norm="ortho") / (alpha**2 * spectrum + sigma**2)
        noise = torch.fft.ifft2(sigma * whitened, norm="ortho").real
        return Prediction(noise, mean + torch.fft.ifft2(alpha * spectrum * whitened, norm="ortho").real)

    def sample(self, count: int, generator: torch.Generator, text: str = "") -> Float[Tensor, "B C h w"]:
        white = torch.randn(count, *self.shape, generator=generator)
        shaped = torch.fft.ifft2(torch.fft.fft2(white, norm="ortho") * self.spectrum.sqrt().float(), norm="ortho").real
        return torch.einsum("d,dchw->chw", self._token(text), self.directions) + shaped


class GaussianMixturePrior(ClosedFormPrior):
    """``x ~ sum_k pi_k(text) N(m_k, s^2 I)``: a text that is a component's name selects it, any other all of them."""

    def __init__(
        self,
        means: Float[Tensor, "K C h w"],
        names: tuple[str, ...],
        std: float = 0.1,
        schedule: str = "sd",
        num_train_timesteps: int = 1000,
    ) -> None:
        if len(names) != len(means):
            raise ValueError(f"names={names!r} has {len(names)} entries for {len(means)} means; give one for each")
        self.means, self.names, self.std = means, names, std
        super().__init__(tuple(means.shape[1:]), len(means), schedule, num_train_timesteps)  # type: ignore[arg-type]

    def _token(self, text: str) -> Tensor:
        """Logits of the components; 40 leaves nothing of the others in fp32."""
        return torch.tensor([40.0 * (name == text) for name in self.names])

    def posterior(self, z: Tensor, alpha: Tensor, sigma: Tensor, text: Tensor) -> Prediction:
        means, variance = self.means.to(z)[None], (alpha**2 * self.std**2 + sigma**2)[:, None]
        offset = z[:, None] - alpha[:, None] * means  # B K C h w
        logits = text.log_softmax(-1) - 0.5 * (offset**2 / variance).flatten(2).sum(-1)
        share = logits.softmax(-1)[..., None, None, None]
        noise = (share * sigma[:, None] * offset / variance).sum(1)
        return Prediction(noise, (share * (means + alpha[:, None] * self.std**2 * offset / variance)).sum(1))


def natural_spectrum(height: int, width: int, floor: float = 0.01) -> Float[Tensor, "h w"]:
    """Variance falling as 1 / f^2 from the lowest frequency, as in natural images; float64."""
    fy, fx = torch.meshgrid(
        torch.fft.fftfreq(height).double() * height, torch.fft.fftfreq(width).double() * width, indexing="ij"
    )
    return 1 / (1 + fx**2 + fy**2) + floor


def _equal(a: Pass, b: Pass) -> bool:
    poses = [None if one.cameras is None else one.cameras.c2w.tolist() for one in (a, b)]
    shapes = a.text.tokens.shape == b.text.tokens.shape and a.z.shape == b.z.shape
    same = poses[0] == poses[1] and a.adapter is b.adapter and shapes
    return same and all(torch.equal(p, q) for p, q in ((a.z, b.z), (a.t, b.t), (a.text.tokens, b.text.tokens)))

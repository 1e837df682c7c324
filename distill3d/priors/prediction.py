"""From a network's native output to noise and clean image (maths.md 0), in fp32.

z_t = alpha_t x + sigma_t eps,    v = alpha_t eps - sigma_t x    (v-prediction, arXiv 2202.00512)
z_s = (1 - s) x + s eps,          v = eps - x                    (flow matching, arXiv 2210.02747)
"""

from __future__ import annotations

from collections.abc import Callable

from jaxtyping import Float
from torch import Tensor

from distill3d.types import Prediction

Image = Float[Tensor, "B C h w"]
Level = Float[Tensor, "B 1 1 1"]

# Below these a division would only amplify the network's rounding: at SD's noisiest step alpha is 0.068.
MIN_ALPHA = 0.05
MIN_SIGMA = 0.01


def from_noise(z: Image, noise: Image, alpha: Level, sigma: Level) -> Prediction:
    """An eps-network: ``x0 = (z - sigma eps) / alpha`` with alpha held above `MIN_ALPHA`."""
    return Prediction(noise, (z - sigma * noise) / alpha.clamp_min(MIN_ALPHA))


def from_velocity(z: Image, velocity: Image, alpha: Level, sigma: Level) -> Prediction:
    """A v-network: ``eps = alpha v + sigma z``, ``x0 = alpha z - sigma v``; no division, exact at zero terminal SNR."""
    return Prediction(alpha * velocity + sigma * z, alpha * z - sigma * velocity)


def from_clean(z: Image, clean: Image, alpha: Level, sigma: Level) -> Prediction:
    """An x-network: ``eps = (z - alpha x0) / sigma`` with sigma held above `MIN_SIGMA`."""
    return Prediction((z - alpha * clean) / sigma.clamp_min(MIN_SIGMA), clean)


def from_flow(z: Image, velocity: Image, alpha: Level, sigma: Level) -> Prediction:
    """A flow network, where alpha = 1 - s and sigma = s: ``eps = z + (1 - s) v``, ``x0 = z - s v``."""
    return Prediction(z + alpha * velocity, z - sigma * velocity)


Conversion = Callable[[Image, Image, Level, Level], Prediction]

# the values of ``prediction_type`` in diffusers' scheduler configs
CONVERSIONS: dict[str, Conversion] = {
    "epsilon": from_noise,
    "v_prediction": from_velocity,
    "sample": from_clean,
}

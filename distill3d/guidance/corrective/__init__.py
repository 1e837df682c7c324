"""b_psi of LMC-SDS: a shallow model of what one denoising step of a prior does to any clean image."""

from distill3d.guidance.corrective.files import Corrective, WrongPriorError, load_corrective, save_corrective
from distill3d.guidance.corrective.network import CorrectiveNetwork
from distill3d.guidance.corrective.spectral import SpectralCorrective, fit_spectral

__all__ = [
    "Corrective",
    "CorrectiveNetwork",
    "SpectralCorrective",
    "WrongPriorError",
    "fit_spectral",
    "load_corrective",
    "save_corrective",
]

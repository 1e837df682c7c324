"""The one place that picks accelerator, precision, threads and kernels, each with a logged reason."""

from __future__ import annotations

import ctypes
import functools
import importlib.util
import logging
import os
import sys
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    import torch

log = logging.getLogger(__name__)

Backend = Literal["numba", "torch", "cuda"]
MOST_THREADS = 1024  # that a checkpoint may ask for
_MALLOC_OPTIONS = {-3: 32 * 2**20, -1: 128 * 2**20}  # glibc's M_MMAP_THRESHOLD, at its largest, and M_TRIM_THRESHOLD
_PRECISIONS = {"16": "16-mixed", "bf16": "bf16-mixed", "32": "32-true", "64": "64-true"}


def choose_accelerator(setting: str | None = "auto") -> str:
    """``cuda``, ``cpu``, or what trainer.accelerator names. Raises ValueError for a GPU where there is none."""
    import torch

    named = {"gpu": "cuda"}.get(setting or "auto", setting or "auto")
    reason = "no CUDA device was found" if torch.version.cuda else "this build of torch has no CUDA"
    if named == "cuda" and not torch.cuda.is_available():
        raise ValueError(f"trainer.accelerator={setting!r}: {reason}; use cpu or auto")
    if named == "auto":
        named = "cuda" if torch.cuda.is_available() else "cpu"
    else:
        reason = "asked for by trainer.accelerator"
    if named == "cuda":
        log.info("device: cuda, %s", torch.cuda.get_device_name(0))
    else:
        log.info("device: %s (threads: %d), as %s", named, torch.get_num_threads(), reason)
    return named


def choose_precision(setting: str | int | None, accelerator: str) -> str:
    """trainer.precision: fp32 on a CPU and on mps, bf16 or fp16 mixed on CUDA; a named one is taken where it can run.

    fp16 on a CPU has no fast kernels and overflows without a scaler's help, so it becomes fp32 there.
    """
    if setting not in (None, "auto"):
        named = _PRECISIONS.get(str(setting), str(setting))
        if accelerator == "cpu" and named.startswith("16"):
            log.info("precision: 32-true, as %s needs a GPU", named)
            return "32-true"
        return named
    if accelerator != "cuda":
        return "32-true"
    import torch

    chosen = "bf16-mixed" if torch.cuda.is_bf16_supported(including_emulation=False) else "16-mixed"
    log.info("precision: %s, the best that this GPU has tensor cores for", chosen)
    return chosen


def set_threads() -> int:
    """Threads for torch and the kernels: OMP_NUM_THREADS if given, else torch's own choice (physical cores)."""
    import torch

    wish = os.environ.get("OMP_NUM_THREADS", "")
    if wish.isdigit() and int(wish) > 0:
        torch.set_num_threads(int(wish))
    return torch.get_num_threads()


def keep_threads(saved: int | None) -> None:
    """The number of threads that a checkpoint was trained with: another one changes the last bits of sums.

    OMP_NUM_THREADS goes before it, with a warning.
    """
    import torch

    now = torch.get_num_threads()
    if saved is None or saved == now or not 1 <= saved <= MOST_THREADS:
        return
    if os.environ.get("OMP_NUM_THREADS", ""):
        log.warning(
            "OMP_NUM_THREADS gives %d threads and the checkpoint was trained with %d: the run continues, but not to "
            "the same bits; set OMP_NUM_THREADS=%d for these",
            now,
            saved,
            saved,
        )
        return
    torch.set_num_threads(saved)
    log.info("threads: %d, as the checkpoint was trained with (%d would give other bits)", saved, now)


def keep_freed_memory() -> bool:
    """Have glibc keep up to 128 MiB of freed memory for the next step, and say whether it does.

    A step frees what it allocates. By default the heap then shrinks and grows in every step, by some thousand page
    faults where the sizes happen to fall so. MALLOC_* variables of the environment are left as they are.
    """
    if sys.platform != "linux" or any(name.startswith("MALLOC_") for name in os.environ):
        return False
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except AttributeError:  # another C library
        return False
    return all(mallopt(option, value) == 1 for option, value in _MALLOC_OPTIONS.items())


def kernel_backend(device: torch.device | str, setting: str | None = None) -> Backend:
    """Which twin of a kernel runs for tensors on ``device``: ``numba`` on a CPU, ``cuda`` on a GPU, else ``torch``.

    ``setting``, or the environment's DISTILL3D_KERNELS, names one; raises ValueError for one that cannot run there.
    """
    kind = getattr(device, "type", str(device)).split(":")[0]
    wish = setting or os.environ.get("DISTILL3D_KERNELS") or "auto"
    return _backend(kind, wish)


@functools.cache
def _backend(kind: str, wish: str) -> Backend:
    possible: dict[str, Backend] = {"torch": "torch"}
    if kind == "cpu" and importlib.util.find_spec("numba") is not None:
        possible = {"numba": "numba", **possible}
    if kind == "cuda" and importlib.util.find_spec("nerfacc") is not None:
        possible = {"cuda": "cuda", **possible}
    if wish == "auto":
        wish = next(iter(possible))
        reason = "the fastest here" if wish != "torch" else f"no compiled kernels for {kind} are installed"
    else:
        reason = "asked for by DISTILL3D_KERNELS"
    if wish not in possible:
        raise ValueError(f"DISTILL3D_KERNELS={wish!r} cannot run on {kind}; choose one of auto, {', '.join(possible)}")
    log.debug("kernels on %s: %s, %s", kind, wish, reason)
    return possible[wish]

"""torch.compile as an option that no run depends on."""

from __future__ import annotations

import logging
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch

from distill3d.priors.hub import PriorError
from distill3d.priors.settings import PriorConfig

log = logging.getLogger(__name__)
_REMEDY = (
    "install what it asks for (inductor needs a C++ compiler on a CPU, Triton on a GPU), choose another "
    "system.prior.compile_backend, or set system.prior.compile=false"
)


class Compiled:
    """A function through torch.compile, and as it is from the first failure of the compiler on.

    Errors that the function itself raises pass through. Compilation is at the first call, and at new shapes: of the
    backward pass too where a gradient is due. torch would compile that within ``backward()``, where a failure could
    only end the run.
    """

    def __init__(self, function: Callable[..., Any], title: str, backend: str) -> None:
        self._function, self._title = function, title
        self._compiled: Callable[..., Any] | None = _compile(function, backend)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        from torch._dynamo.exc import TorchDynamoException  # the compiler's own errors have no public name

        if self._compiled is not None:
            try:
                with _backward_at_once():
                    return self._compiled(*args, **kwargs)
            except TorchDynamoException as error:
                self._compiled = None
                reason = _reason(error)
                log.warning(
                    "system.prior.compile=true: %s runs uncompiled, since the compiler failed (%s); %s",
                    self._title,
                    reason,
                    _REMEDY,
                )
        return self._function(*args, **kwargs)  # outside of the handler: its own errors are not the compiler's


def compiled(function: Callable[..., Any], title: str, cfg: PriorConfig) -> Callable[..., Any]:
    """The function compiled if the settings say so. Raises PriorError for an unknown backend."""
    return Compiled(function, title, cfg.compile_backend) if cfg.compile else function


def _compile(function: Callable[..., Any], backend: str) -> Callable[..., Any]:
    from torch._dynamo.exc import InvalidBackend

    try:
        return torch.compile(function, backend=backend)
    except InvalidBackend as error:
        known = ", ".join(torch.compiler.list_backends())
        raise PriorError(
            f"system.prior.compile_backend={backend!r} is no backend of torch.compile here; choose one of {known}"
        ) from error


def _backward_at_once() -> AbstractContextManager[Any]:
    """Have AOTAutograd compile backward graphs along with forward ones; nothing where torch has no such setting."""
    from torch._functorch import config

    name = "force_non_lazy_backward_lowering"
    return config.patch({name: True}) if hasattr(config, name) else nullcontext()  # type: ignore[attr-defined]


def _reason(error: Exception) -> str:
    cause = getattr(error, "inner_exception", error)
    lines = [line.strip() for line in str(cause).splitlines() if line.strip()]
    return f"{type(cause).__name__}: {lines[0][:300]}" if lines else type(cause).__name__

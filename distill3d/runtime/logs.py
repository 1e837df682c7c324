"""One logger, one tidy line for each message; the chatter of libraries is kept off the terminal."""

from __future__ import annotations

import logging
import os
import sys
import warnings
from pathlib import Path
from typing import Any

# known, harmless, and nothing a user could act upon
_NOISE = (
    r".*does not have many workers.*",
    r".*Consider increasing the value of the `num_workers`.*",
    r".*defined `IterableDataset`.*",
    r".*GPU available but not used.*",
    r".*Checkpoint directory .* exists and is not empty.*",
    r".*No `test_dataloader\(\)`.*",
    r".*was configured so `GPUs? .*",
    r".*`isinstance\(treespec, LeafSpec\)` is deprecated.*",
    r".*Experiment logs directory .* exists and is not empty.*",
    r".*resuming from a checkpoint that ended before the epoch ended.*",
    r".*resuming from a checkpoint that ended mid-epoch.*",
    r".*torch.jit.* is deprecated.*",
)
_CHATTY = (
    "pytorch_lightning",
    "lightning",
    "lightning_fabric",
    "lightning.pytorch",
    "numba",
    "PIL",
    "matplotlib",
    "httpx",
)


# their information is of how, not of what: it stands in log.txt, and on the terminal with --verbose
_DETAILS = tuple(f"distill3d.{room}." for room in ("export", "guidance", "optim", "priors", "scenes"))


# these write to the terminal by handlers of their own
_LIBRARIES = ("transformers", "diffusers", "huggingface_hub")
_shown: dict[str, None] = {}  # warnings of this run, each once, in their order


def warnings_shown() -> list[str]:
    """Every warning that the terminal has shown since `set_up_logging`, each once; metrics.json keeps them."""
    return list(_shown)


def forget_warnings() -> None:
    """Begin anew: what comes now belongs to another run."""
    _shown.clear()


class _Keeping(logging.Handler):
    """Keeps warnings, for `warnings_shown`."""

    def emit(self, record: logging.LogRecord) -> None:
        if logging.WARNING <= record.levelno < logging.ERROR:
            _shown[record.getMessage()] = None


class _Terminal(_Keeping):
    """Writes to standard error, above a progress bar if there is one."""

    def emit(self, record: logging.LogRecord) -> None:
        super().emit(record)
        try:
            text = self.format(record)
            if "tqdm" in sys.modules:
                sys.modules["tqdm"].tqdm.write(text, file=sys.stderr)
            else:
                sys.stderr.write(text + "\n")
        except BrokenPipeError:
            raise
        except Exception:  # noqa: BLE001, as every handler of the standard library does
            self.handleError(record)


class _OneLine(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        level = "" if record.levelno <= logging.INFO else f"{record.levelname.lower()}: "
        return level + super().format(record)


def set_up_logging(verbose: bool = False) -> None:
    """Configure the ``distill3d`` logger for the terminal, and quieten the others. Safe to call again.

    To be called before Lightning is imported: where the root logger has a handler it adds none of its own, whose level
    would tell of every accelerator that is not there.
    """
    forget_warnings()
    warnings.showwarning = _log_python_warning
    first = os.environ.get("LOCAL_RANK", "0") == "0"  # only the first process logs
    ours = logging.getLogger("distill3d")
    _write_to_terminal(ours, logging.DEBUG if verbose else logging.INFO)
    if not verbose:
        ours.handlers[-1].addFilter(_without_details)
    ours.setLevel(logging.DEBUG if first else logging.ERROR)  # log.txt has everything
    ours.propagate = False
    custom = logging.getLogger("distill3d_custom")
    custom.parent = ours
    for name in _LIBRARIES:
        library = logging.getLogger(name)
        library.handlers = [handler for handler in library.handlers if type(handler) is not _Keeping]
        library.addHandler(_Keeping())
    others = logging.getLogger()
    _write_to_terminal(others, logging.INFO if verbose else logging.WARNING if first else logging.ERROR)
    if verbose:
        others.setLevel(logging.INFO)
        return
    for name in _CHATTY:
        logging.getLogger(name).setLevel(logging.WARNING)
    for pattern in _NOISE:
        warnings.filterwarnings("ignore", message=pattern)
    for name, value in {"TOKENIZERS_PARALLELISM": "false", "TF_CPP_MIN_LOG_LEVEL": "3"}.items():
        os.environ.setdefault(name, value)


def _log_python_warning(message: Warning | str, category: type[Warning], filename: str, lineno: int, *_: Any) -> None:
    """What `warnings.warn` says, as every other warning."""
    logging.getLogger("py.warnings").warning("%s (%s, line %d)", message, Path(filename).name, lineno)


def _without_details(record: logging.LogRecord) -> bool:
    return record.levelno > logging.INFO or not record.name.startswith(_DETAILS)


def _write_to_terminal(logger: logging.Logger, level: int) -> None:
    """One terminal handler for a logger, in the place of an earlier one."""
    logger.handlers = [handler for handler in logger.handlers if not isinstance(handler, _Terminal)]
    handler = _Terminal(level)
    handler.setFormatter(_OneLine())
    logger.addHandler(handler)


def log_to_file(path: Path) -> None:
    """Keep every message of this run, with its time, in a file of the trial as well."""
    root = logging.getLogger("distill3d")
    for old in [handler for handler in root.handlers if isinstance(handler, logging.FileHandler)]:
        root.removeHandler(old)
        old.close()
    handler = logging.FileHandler(path, encoding="utf-8")
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(name)s: %(message)s"))
    root.addHandler(handler)

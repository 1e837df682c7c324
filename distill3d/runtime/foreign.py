"""The one boundary for files that the program did not write: whatever is wrong inside, it is told in one sentence.

A reader wraps what it does with a file in `reading`, or takes one of the functions below. Every failure, however deep
in a library, becomes a `ForeignFileError` that names the setting, the file, what was expected and what to do.
"""

from __future__ import annotations

import json
import os
import stat
import struct
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from distill3d.config.check import ConfigError
from distill3d.config.schedule import is_finite_number

MAX_TEXT_BYTES = 64 * 2**20
MAX_PIXELS = 100_000_000  # of one image: 400 MB as RGBA; larger ones are made to exhaust memory, or by mistake


class ForeignFileError(ValueError):
    """A file from elsewhere that cannot be used, told for the user."""


@contextmanager
def reading(path: Path | str, what: str, remedy: str = "", setting: str = "") -> Iterator[None]:
    """Whatever fails inside becomes a ForeignFileError: ``setting=path cannot be read as WHAT: reason; remedy``.

    Errors that tell the user something already (ForeignFileError, ConfigError) pass as they are. A named pipe or a
    device is refused before it is opened, since that could wait for ever.
    """
    if _may_never_end(path):
        raise ForeignFileError(f"{named(path, setting)} is a pipe or a device; give a file{_then(remedy)}")
    try:
        yield
    except (ForeignFileError, ConfigError):
        raise
    except FileNotFoundError as error:
        alone = error.args[0] if len(error.args) == 1 else ""  # trimesh gives nothing but the name
        needed = str(error.filename or alone)
        if needed and Path(needed).name != Path(path).name:
            raise ForeignFileError(
                f"{named(path, setting)} needs {needed}, which does not exist{_then(remedy)}"
            ) from error
        raise ForeignFileError(f"{named(path, setting)} does not exist{_then(remedy)}") from error
    except Exception as error:  # each library has errors of its own, and any of them can come of a damaged file
        raise ForeignFileError(
            f"{named(path, setting)} cannot be read as {what}: {reason(error)}{_then(remedy)}"
        ) from error


def _may_never_end(path: Path | str) -> bool:
    """Whether it is a named pipe, a device or a socket. The pipe of a shell's ``<(command)`` has its writer."""
    try:
        kind = os.stat(os.path.realpath(path)).st_mode  # the pipe of a shell has no real path
    except (OSError, ValueError):
        return False
    return not (stat.S_ISREG(kind) or stat.S_ISDIR(kind))


def user_path(name: Path | str) -> Path:
    """A path as the user writes it: ~ is the home folder; ~name stays where there is no such user."""
    return Path(os.path.expanduser(name))


def named(path: Path | str, setting: str = "") -> str:
    """``setting=path``, or the path alone."""
    return f"{setting}={str(path)!r}" if setting else str(path)


# what a library's errors mean that are no words about the file; a subclass stands before its base
_MEANT: Mapping[type[Exception], str] = {
    IndexError: "it refers to something that it does not hold",
    AssertionError: "its parts contradict each other",
    TypeError: "one of its values is of the wrong kind",
    AttributeError: "one of its values is of the wrong kind",
    ZeroDivisionError: "one of its sizes is 0",
    OverflowError: "one of its numbers is too large",
    EOFError: "it is cut off",
    struct.error: "it is cut off, or one of its sizes is wrong",
    StopIteration: "it is cut off",
}


def reason(error: BaseException) -> str:
    """One short line on what went wrong in a library; what only a programmer understands of it stands in brackets."""
    told = {
        RecursionError: "it is nested too deep",
        MemoryError: "it needs more memory than there is",
        KeyError: f"it has no {error}",
        UnicodeDecodeError: "it is not UTF-8 text",
    }
    for kind, text in told.items():
        if isinstance(error, kind):
            return text
    words = " ".join(str(error).split())
    if isinstance(error, OSError) and error.strerror:
        words = error.strerror
    meant = next((text for kind, text in _MEANT.items() if isinstance(error, kind)), None)
    if meant:
        return f"{meant} ({words[:120]})" if words else meant
    return words[:200] or f"its reader failed ({type(error).__name__})"


def read_bytes(path: Path, what: str, remedy: str = "", setting: str = "", limit: int = MAX_TEXT_BYTES) -> bytes:
    """The whole of a file that is not larger than ``limit`` bytes."""
    with reading(path, what, remedy, setting):
        with path.open("rb") as file:
            data = file.read(limit + 1)
        if len(data) > limit:
            size = f"{limit >> 20} MB" if limit >= 2**20 else f"{limit >> 10} kB"
            raise ForeignFileError(f"{named(path, setting)} is larger than {size}, too large for {what}")
        return data


def read_text(path: Path, what: str = "text", remedy: str = "", setting: str = "", limit: int = MAX_TEXT_BYTES) -> str:
    """UTF-8, with or without a byte-order mark, or UTF-16 with one, as editors on Windows write it.

    Lines end as those of Windows, of Unix or of old Macs do. UTF-16 without a mark is refused for its zero bytes.
    """
    data = read_bytes(path, what, remedy, setting, limit)
    with reading(path, what, remedy or "save it in UTF-8", setting):
        is_utf16 = data.startswith((b"\xff\xfe", b"\xfe\xff"))
        text = data.decode("utf-16" if is_utf16 else "utf-8-sig").replace("\r\n", "\n").replace("\r", "\n")
        if "\0" in text:
            raise ValueError("it holds zero bytes, so it is not UTF-8 text")
        return text


def read_json(path: Path, remedy: str = "", setting: str = "") -> Any:
    """Any JSON, in any of its encodings."""
    text = read_text(path, "JSON", remedy, setting)
    with reading(path, "JSON", remedy, setting):
        return json.loads(text)


def read_json_mapping(path: Path, remedy: str = "", setting: str = "") -> dict[str, Any]:
    """JSON whose outermost value is a mapping."""
    content = read_json(path, remedy, setting)
    if not isinstance(content, dict):
        raise ForeignFileError(f"{named(path, setting)} must hold a JSON mapping, not {_kind(content)}{_then(remedy)}")
    return content


def read_record(path: Path) -> dict[str, Any]:
    """JSON that an earlier run wrote; empty where there is none, or where damage or an edit left no mapping."""
    try:
        return read_json_mapping(path)
    except ForeignFileError:
        return {}


def finite(value: Any, where: str) -> float:
    """A number that a float can hold. Raises ForeignFileError beginning with ``where`` for anything else."""
    if is_finite_number(value):
        return float(value)
    raise ForeignFileError(f"{where}={repr(value)[:40]} must be a finite number")


def open_image(path: Path, setting: str = "", remedy: str = "give a picture", upright: bool = True) -> Any:
    """A picture as PIL shows it to people: ``upright`` (EXIF), 8 bits, mode RGB, or RGBA where it has an alpha.

    16-bit grey is scaled by its range, 0 to 65535. Raises ForeignFileError for what is none, or is larger than
    MAX_PIXELS, which its header tells before anything is unpacked.
    """
    from PIL import Image, ImageOps

    with reading(path, "an image", remedy, setting), warnings.catch_warnings():
        warnings.simplefilter("ignore", Image.DecompressionBombWarning)  # MAX_PIXELS is our own limit
        file = Image.open(path)
        with file:
            _check_size(file.size, named(path, setting))
            image = ImageOps.exif_transpose(file) if upright else file
            has_alpha = "A" in image.getbands() or "transparency" in image.info
            return eight_bits(image).convert("RGBA" if has_alpha else "RGB")


def _check_size(size: tuple[int, int], where: str) -> None:
    width, height = size
    if width * height > MAX_PIXELS:
        raise ForeignFileError(
            f"{where} has {width}x{height} pixels, more than the {MAX_PIXELS} that are read; make it smaller"
        )


def eight_bits(image: Any) -> Any:
    """Grey of 16 or 32 bits as 8 bits; PIL's own conversion would clip it at 255."""
    if not image.mode.startswith(("I", "F")):
        return image
    import numpy as np
    from PIL import Image

    values = np.asarray(image, np.float64)
    if not np.isfinite(values).all():
        raise ValueError("it holds NaN or infinity")
    top = 1.0 if image.mode == "F" else 65535.0
    if values.min() < 0.0 or values.max() > top:
        raise ValueError(f"its values run from {values.min():g} to {values.max():g}, expected 0 to {top:g}")
    return Image.fromarray((values * (255.0 / top)).round().astype(np.uint8), "L")


def _then(remedy: str) -> str:
    return f"; {remedy}" if remedy else ""


def _kind(value: Any) -> str:
    return {list: "a list", str: "text", int: "a number", float: "a number", bool: "a truth value"}.get(
        type(value), "nothing"
    )

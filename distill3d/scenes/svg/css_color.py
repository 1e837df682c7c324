"""Colours as CSS Color 4 writes them: names, hexadecimal digits and functions, in any case, to sRGB."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass

Triple = tuple[float, float, float]


@dataclass(frozen=True)
class Rgba:
    """A colour in sRGB with its own opacity, all in [0, 1]."""

    rgb: Triple
    alpha: float


_FUNCTION = re.compile(r"([a-z]+)\(\s*([^()]*?)\s*\)")
_NUMBER = re.compile(r"[-+]?(?:\d+\.?\d*|\.\d+)(?:e[-+]?\d+)?")
_PER_TURN = {"deg": 360.0, "grad": 400.0, "rad": 2.0 * math.pi, "turn": 1.0}


def parse_color(text: str) -> Rgba:
    """Any colour but ``currentColor``; components beyond sRGB are clipped. Raises ValueError for what is none."""
    word = text.strip().lower()
    try:
        if word == "transparent":
            return Rgba((0.0, 0.0, 0.0), 0.0)
        if word.startswith("#"):
            return _hexadecimal(word[1:])
        match = _FUNCTION.fullmatch(word)
        rgb, alpha = _function(match[1], match[2]) if match else (_named(word), 1.0)
    except (ValueError, KeyError, IndexError, OverflowError) as error:
        raise ValueError(f"{text[:40]!r} is no colour") from error
    red, green, blue = (min(max(part, 0.0), 1.0) for part in rgb)
    return Rgba((red, green, blue), min(max(alpha, 0.0), 1.0))


def _hexadecimal(digits: str) -> Rgba:
    if len(digits) in (3, 4):
        digits = "".join(2 * digit for digit in digits)
    if re.fullmatch(r"(?:[0-9a-f]{2}){3,4}", digits) is None:
        raise ValueError(digits)
    parts = [int(digits[i : i + 2], 16) / 255.0 for i in range(0, len(digits), 2)]
    return Rgba((parts[0], parts[1], parts[2]), parts[3] if len(parts) == 4 else 1.0)


def _named(word: str) -> Triple:
    from PIL.ImageColor import colormap  # CSS's 148 names

    value = colormap[word]  # Pillow puts numbers in the place of those that it has read
    if isinstance(value, str):
        return _hexadecimal(value[1:]).rgb
    return value[0] / 255.0, value[1] / 255.0, value[2] / 255.0


def _function(name: str, text: str) -> tuple[Triple, float]:
    """``rgb(1 2 3 / 50%)``, ``rgba(1, 2, 3, .5)``, ``color(display-p3 1 0 0)``."""
    body, _, alpha = text.partition("/")
    words = body.replace(",", " ").split()
    space = words.pop(0) if name == "color" else ""
    if len(words) == 4 and not alpha and name != "color":  # the older form
        alpha = words.pop()
    if len(words) != 3:
        raise ValueError(text)
    opacity = _part(alpha.strip(), 1.0) if alpha.strip() else 1.0
    return _PREDEFINED[space](_parts(words, (1, 1, 1))) if name == "color" else _FUNCTIONS[name](words), opacity


def _part(word: str, whole: float) -> float:
    """A number, or a percentage of ``whole``; ``none`` is 0."""
    if word == "none":
        return 0.0
    number, percent = (word[:-1], True) if word.endswith("%") else (word, False)
    if _NUMBER.fullmatch(number) is None or not math.isfinite(float(number)):
        raise ValueError(word)
    return float(number) / 100.0 * whole if percent else float(number)


def _parts(words: Sequence[str], whole: Sequence[float]) -> Triple:
    a, b, c = (_part(word, of) for word, of in zip(words, whole, strict=True))
    return a, b, c


def _turns(word: str) -> float:
    """An angle in turns; a bare number is in degrees."""
    unit = next((unit for unit in ("grad", "deg", "rad", "turn") if word.endswith(unit)), "")
    return _part(word[: len(word) - len(unit)], 0.0) / _PER_TURN[unit or "deg"]


def _rgb(words: Sequence[str]) -> Triple:
    red, green, blue = _parts(words, (255.0, 255.0, 255.0))
    return red / 255.0, green / 255.0, blue / 255.0


def _hue(turns: float, saturation: float, lightness: float) -> Triple:
    """HSL with saturation and lightness in [0, 1]."""

    def channel(n: float) -> float:
        k = (n + 12.0 * turns) % 12.0
        return lightness - saturation * min(lightness, 1.0 - lightness) * max(-1.0, min(k - 3.0, 9.0 - k, 1.0))

    return channel(0.0), channel(8.0), channel(4.0)


def _hsl(words: Sequence[str]) -> Triple:
    saturation, lightness = (min(max(_part(word, 100.0) / 100.0, 0.0), 1.0) for word in words[1:])
    return _hue(_turns(words[0]), saturation, lightness)


def _hwb(words: Sequence[str]) -> Triple:
    white, black = (_part(word, 100.0) / 100.0 for word in words[1:])
    if white + black >= 1.0:
        grey = white / (white + black)
        return grey, grey, grey
    red, green, blue = (part * (1.0 - white - black) + white for part in _hue(_turns(words[0]), 1.0, 0.5))
    return red, green, blue


def _lab(lightness: float, a: float, b: float) -> Triple:
    """CIE Lab under D50, by Bradford's adaptation to D65."""
    fy = (lightness + 16.0) / 116.0
    cubes = [
        f**3 if f**3 > 216.0 / 24389.0 else (116.0 * f - 16.0) * 27.0 / 24389.0
        for f in (fy + a / 500.0, fy, fy - b / 200.0)
    ]
    x, y, z = (value * white for value, white in zip(cubes, (0.96422, 1.0, 0.82521), strict=True))
    return _xyz(
        (
            0.9554734527042182 * x - 0.023098536874261423 * y + 0.0632593086610217 * z,
            -0.028369706963208136 * x + 1.0099954580058226 * y + 0.021041398966943008 * z,
            0.012314001688319899 * x - 0.020507696433477912 * y + 1.3303659366080753 * z,
        )
    )


def _oklab(lightness: float, a: float, b: float) -> Triple:
    """Oklab (Ottosson, 2020)."""
    l = (lightness + 0.3963377774 * a + 0.2158037573 * b) ** 3  # noqa: E741 (as in the paper)
    m = (lightness - 0.1055613458 * a - 0.0638541728 * b) ** 3
    s = (lightness - 0.0894841775 * a - 1.2914855480 * b) ** 3
    return _linear(
        (
            4.0767416621 * l - 3.3077115913 * m + 0.2309699292 * s,
            -1.2684380046 * l + 2.6097574011 * m - 0.3413193965 * s,
            -0.0041960863 * l - 0.7034186147 * m + 1.7076147010 * s,
        )
    )


def _polar(
    of: Callable[[float, float, float], Triple], whole: tuple[float, float]
) -> Callable[[Sequence[str]], Triple]:
    def read(words: Sequence[str]) -> Triple:
        lightness, chroma, angle = (
            _part(words[0], whole[0]),
            _part(words[1], whole[1]),
            2.0 * math.pi * _turns(words[2]),
        )
        return of(lightness, chroma * math.cos(angle), chroma * math.sin(angle))

    return read


def _xyz(xyz: Triple) -> Triple:
    """XYZ under D65."""
    x, y, z = xyz
    return _linear(
        (
            3.2409699419 * x - 1.5373831776 * y - 0.4986107603 * z,
            -0.9692436363 * x + 1.8759675015 * y + 0.0415550574 * z,
            0.0556300797 * x - 0.2039769589 * y + 1.0569715142 * z,
        )
    )


def _linear(rgb: Triple) -> Triple:
    """Linear light to sRGB."""
    red, green, blue = (12.92 * part if part <= 0.0031308 else 1.055 * part ** (1.0 / 2.4) - 0.055 for part in rgb)
    return red, green, blue


def _display_p3(rgb: Triple) -> Triple:
    r, g, b = (part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in rgb)
    return _xyz(
        (
            0.4865709486 * r + 0.2656676932 * g + 0.1982172852 * b,
            0.2289745641 * r + 0.6917385218 * g + 0.0792869141 * b,
            0.0451133819 * g + 1.0439443689 * b,
        )
    )


_FUNCTIONS: dict[str, Callable[[Sequence[str]], Triple]] = {
    "rgb": _rgb,
    "rgba": _rgb,
    "hsl": _hsl,
    "hsla": _hsl,
    "hwb": _hwb,
    "lab": lambda words: _lab(*_parts(words, (100.0, 125.0, 125.0))),
    "oklab": lambda words: _oklab(*_parts(words, (1.0, 0.4, 0.4))),
    "lch": _polar(_lab, (100.0, 150.0)),
    "oklch": _polar(_oklab, (1.0, 0.4)),
}
_PREDEFINED: dict[str, Callable[[Triple], Triple]] = {
    "srgb": lambda rgb: rgb,
    "srgb-linear": _linear,
    "display-p3": _display_p3,
    "xyz": _xyz,
    "xyz-d65": _xyz,
}

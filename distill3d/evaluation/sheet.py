"""grid.png: the front view of every run, rows prompts, columns settings."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from distill3d.runtime.files import replacing

if TYPE_CHECKING:
    from distill3d.evaluation.report import Run

MAX_ROWS, MAX_COLUMNS = 60, 24
_LABEL_WIDTH, _LABEL_HEIGHT = 120, 28


def write_grid(runs: Sequence[Run], path: Path) -> None:
    """Write the picture; nothing where no run has a picture."""
    seen = [run for run in runs if "color" in run.pictures]
    if not seen:
        return
    rows = list(dict.fromkeys(run.entry.prompt for run in seen))[:MAX_ROWS]
    columns = list(dict.fromkeys(run.entry.label for run in seen))[:MAX_COLUMNS]
    cells: dict[tuple[str, str], Path] = {}
    for run in sorted(seen, key=lambda run: run.entry.seed):
        cells.setdefault((run.entry.prompt, run.entry.label), run.pictures["color"])
    with replacing(path) as temporary:
        _draw(rows, columns, cells).save(temporary, format="PNG")


def _draw(rows: list[str], columns: list[str], cells: dict[tuple[str, str], Path]) -> Any:
    from PIL import Image, ImageDraw

    tiles = {place: _first_view(strip) for place, strip in cells.items()}
    size = max(tile.height for tile in tiles.values())
    sheet = Image.new("RGB", (_LABEL_WIDTH + size * len(columns), _LABEL_HEIGHT + size * len(rows)), "white")
    draw = ImageDraw.Draw(sheet)
    for j, label in enumerate(columns):
        draw.multiline_text((_LABEL_WIDTH + j * size + 2, 2), _wrapped(label, size), fill="black")
    for i, prompt in enumerate(rows):
        draw.multiline_text((2, _LABEL_HEIGHT + i * size + 4), _wrapped(prompt, _LABEL_WIDTH, 8), fill="black")
        for j, label in enumerate(columns):
            tile = tiles.get((prompt, label))
            if tile is not None:
                sheet.paste(tile.resize((size, size)), (_LABEL_WIDTH + j * size, _LABEL_HEIGHT + i * size))
    return sheet


def _first_view(strip: Path) -> Any:
    from PIL import Image

    image = Image.open(strip).convert("RGB")
    return image.crop((0, 0, image.height, image.height))


def _wrapped(text: str, width: int, lines: int = 2) -> str:
    """In the default font, 6 pixels a character; characters that it lacks become question marks."""
    import textwrap

    plain = text.encode("latin-1", "replace").decode("latin-1")
    return "\n".join(textwrap.wrap(plain, max(width // 6, 1))[:lines])

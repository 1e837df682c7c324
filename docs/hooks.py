"""What mkdocs is told besides mkdocs.yml: generated pages, and the results that benchmarks write."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from mkdocs.structure.files import File, Files

from distill3d.config.reference import configs_page, guidances_page, settings_page
from distill3d.runtime.extensions import import_extensions

PROJECT = Path(__file__).resolve().parent.parent
PAGES = {"settings.md": settings_page, "configs.md": configs_page, "guidances.md": guidances_page}
RESULTS = "../benchmarks/results/"  # so pages link to it, as they are read in a checkout; in the site it is results/
SHOWN = (".md", ".jpg", ".png")


def on_files(files: Files, config: Any) -> Files:
    """Add the generated pages, and the results."""
    import_extensions([])
    for name, page in PAGES.items():
        files.append(File.generated(config, name, content=page()))
    results = PROJECT / "benchmarks" / "results"
    for path in sorted(results.rglob("*")):
        if path.suffix in SHOWN:
            name = f"results/{path.relative_to(results).as_posix()}"
            files.append(File.generated(config, name, abs_src_path=str(path)))
    return files


def on_page_markdown(markdown: str, page: Any, config: Any, files: Files) -> str:
    """Links out of docs/ lead to the copies in the site."""
    return markdown.replace(f"]({RESULTS}", "](results/")

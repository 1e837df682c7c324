"""A page that shows a mesh, and the Gaussians that it is made of: one file without server, network or other files."""

from __future__ import annotations

import base64
import html
import json
import re
from collections.abc import Mapping
from pathlib import Path

PARTS = Path(__file__).parent / "viewer"


def viewer_html(
    glb: bytes, metadata: Mapping[str, str], file_name: str = "model.glb", gaussians: bytes | None = None
) -> str:
    """The page with three.js, our scripts and the GLB inlined: browsers refuse to fetch files beside a local page.

    gaussians: a .splat in the world, z up; the page then begins with it and has a button for the mesh.
    """
    title = str(metadata.get("prompt") or file_name)
    fill = {
        "title": html.escape(title),
        "file_name": html.escape(file_name),
        "metadata": json.dumps(dict(metadata)).replace("<", "\\u003c"),
        "model": base64.b64encode(glb).decode(),
        "gaussians": base64.b64encode(gaussians or b"").decode(),
        "three": (PARTS / "three.min.js").read_text(encoding="utf-8"),
        "splats": (PARTS / "splats.js").read_text(encoding="utf-8"),
        "viewer": (PARTS / "viewer.js").read_text(encoding="utf-8"),
    }
    template = (PARTS / "viewer.html").read_text(encoding="utf-8")
    return re.sub(r"\{\{(\w+)\}\}", lambda match: fill[match.group(1)], template)

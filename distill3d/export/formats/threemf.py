"""3MF, for printing in colour: millimetres, z up, colours at the vertices (core specification 1.3, materials 1.2)."""

from __future__ import annotations

import io
import zipfile
from xml.sax.saxutils import escape, quoteattr

import numpy as np

from distill3d.export.formats.asset import Asset
from distill3d.export.formats.welding import welded

CORE = "http://schemas.microsoft.com/3dmanufacturing/core/2015/02"
MATERIALS = "http://schemas.microsoft.com/3dmanufacturing/material/2015/02"
RELATIONSHIPS = "http://schemas.openxmlformats.org/package/2006/relationships"
CONTENT_TYPES = """<?xml version="1.0" encoding="UTF-8"?>
<Types xmlns="http://schemas.openxmlformats.org/package/2006/content-types">
<Default Extension="rels" ContentType="application/vnd.openxmlformats-package.relationships+xml"/>
<Default Extension="model" ContentType="application/vnd.ms-package.3dmanufacturing-3dmodel+xml"/>
</Types>
"""
ROOT = f"""<?xml version="1.0" encoding="UTF-8"?>
<Relationships xmlns="{RELATIONSHIPS}">
<Relationship Target="/3D/3dmodel.model" Id="model"
 Type="http://schemas.microsoft.com/3dmanufacturing/2013/01/3dmodel"/>
</Relationships>
"""


def threemf_files(asset: Asset, name: str) -> dict[str, bytes]:
    """``name.3mf``; the asset's units are millimetres there, and the prompt stands as its description."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        parts = {"[Content_Types].xml": CONTENT_TYPES, "_rels/.rels": ROOT, "3D/3dmodel.model": model_xml(asset, name)}
        for path, text in parts.items():
            info = zipfile.ZipInfo(path)  # dated 1980: the same asset gives the same bytes
            info.compress_type = zipfile.ZIP_DEFLATED
            archive.writestr(info, text.encode())
    return {f"{name}.3mf": buffer.getvalue()}


def model_xml(asset: Asset, name: str) -> str:
    """One object over shared positions, with one colour for each of them (sRGB)."""
    mesh = welded(asset)
    colors = np.round(255.0 * np.clip(asset.colors[mesh.first], 0.0, 1.0)).astype(int)
    palette, color_of = np.unique(colors, axis=0, return_inverse=True)
    color_of = color_of.reshape(-1)
    shades = "".join(f'<m:color color="#{r:02X}{g:02X}{b:02X}"/>' for r, g, b in palette.tolist())
    vertices = "".join(f'<vertex x="{x:.6g}" y="{y:.6g}" z="{z:.6g}"/>' for x, y, z in mesh.positions.tolist())
    corners = np.concatenate([mesh.faces, color_of[mesh.faces]], axis=1).tolist()
    triangles = "".join(
        f'<triangle v1="{a}" v2="{b}" v3="{c}" pid="2" p1="{i}" p2="{j}" p3="{k}"/>' for a, b, c, i, j, k in corners
    )
    prompt = escape(str(asset.metadata.get("prompt", "")))
    return f"""<?xml version="1.0" encoding="UTF-8"?>
<model unit="millimeter" xml:lang="en-US" xmlns="{CORE}" xmlns:m="{MATERIALS}">
<metadata name="Title">{escape(name)}</metadata>
<metadata name="Description">{prompt}</metadata>
<metadata name="Application">distill3d</metadata>
<resources>
<m:colorgroup id="2">{shades}</m:colorgroup>
<object id="1" type="model" name={quoteattr(name)} pid="2" pindex="0">
<mesh><vertices>{vertices}</vertices>
<triangles>{triangles}</triangles></mesh>
</object>
</resources>
<build><item objectid="1"/></build>
</model>
"""

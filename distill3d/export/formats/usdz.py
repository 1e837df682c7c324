"""USDZ: a zip archive, stored and aligned, of a text layer and its images."""

from __future__ import annotations

import io
import json
import struct
import zipfile
from collections.abc import Mapping

import numpy as np
from jaxtyping import Float
from numpy import ndarray

from distill3d import __version__
from distill3d.export.formats.asset import Asset, encoded_image, y_up
from distill3d.runtime.srgb import linear_from_srgb

ALIGNMENT = 64  # bytes; files in the archive are read in place (USDZ specification)
ZIP_HEADER = struct.Struct("<4s5H3L2H")  # local file header without name and extra field
PADDING_FIELD = 0x1986  # the extra field's identifier that Pixar's own writer uses


def usdz_files(asset: Asset, name: str) -> dict[str, bytes]:
    """``name.usdz``; y up, front at +z, metres; the metadata stands in ``customLayerData``."""
    images: dict[str, bytes] = {}
    if asset.base_color is not None:
        images[f"textures/albedo.{asset.image_format}"] = encoded_image(asset.base_color, asset.image_format)
        if asset.normal_map is not None:
            images["textures/normal.png"] = encoded_image(asset.normal_map, "png")
    layer = usda_text(asset, list(images)).encode()
    return {f"{name}.usdz": aligned_zip({f"{name}.usda": layer, **images})}


def aligned_zip(files: Mapping[str, bytes]) -> bytes:
    """An uncompressed zip whose contents each begin at a multiple of 64 bytes, in the given order."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_STORED) as archive:
        for path, data in files.items():
            info = zipfile.ZipInfo(path)  # dated 1980: the same asset gives the same bytes
            start = buffer.tell() + ZIP_HEADER.size + len(path.encode()) + 4
            padding = -start % ALIGNMENT
            info.extra = struct.pack("<HH", PADDING_FIELD, padding) + bytes(padding)
            archive.writestr(info, data)
    return buffer.getvalue()


def usda_text(asset: Asset, images: list[str]) -> str:
    """The layer: one mesh, one UsdPreviewSurface material. Textures are sRGB; colours at vertices are linear."""
    extras = {str(k): str(v) for k, v in asset.metadata.items()}
    custom = "\n".join(f"        string {_quoted(k)} = {_quoted(v)}" for k, v in extras.items())
    return f"""#usda 1.0
(
    customLayerData = {{
        dictionary distill3d = {{
{custom}
        }}
    }}
    defaultPrim = "Model"
    doc = "distill3d {__version__}"
    metersPerUnit = 1
    upAxis = "Y"
)

def Xform "Model" (
    kind = "component"
)
{{
    def Mesh "Mesh" (
        prepend apiSchemas = ["MaterialBindingAPI"]
    )
    {{
        uniform token subdivisionScheme = "none"
        uniform token orientation = "rightHanded"
        float3[] extent = {_tuples(_extent(asset))}
        int[] faceVertexCounts = [{", ".join(["3"] * len(asset.faces))}]
        int[] faceVertexIndices = [{", ".join(map(str, asset.faces.ravel().tolist()))}]
        point3f[] points = {_tuples(y_up(asset.vertices))}
        normal3f[] normals = {_tuples(y_up(asset.normals))} (
            interpolation = "vertex"
        )
{_primvar(asset)}
        rel material:binding = </Model/Material>
    }}

{_material(asset, images)}
}}
"""


def _primvar(asset: Asset) -> str:
    if asset.base_color is None or asset.uv is None:
        kind, values = "color3f[] primvars:displayColor", linear_from_srgb(asset.colors)
    else:  # the origin of texture coordinates is at the lower left there
        kind, values = "texCoord2f[] primvars:st", np.stack([asset.uv[:, 0], 1.0 - asset.uv[:, 1]], axis=1)
    return f'        {kind} = {_tuples(values)} (\n            interpolation = "vertex"\n        )'


def _material(asset: Asset, images: list[str]) -> str:
    reader = ("st", "float2") if images else ("displayColor", "float3")
    color = "Albedo.outputs:rgb" if images else "Primvar.outputs:result"
    inputs = [f"color3f inputs:diffuseColor.connect = </Model/Material/{color}>"]
    inputs += [f"float inputs:roughness = {asset.roughness:g}", "float inputs:metallic = 0"]
    textures = ""
    if images:
        textures = _texture("Albedo", images[0], "sRGB", ["float3 outputs:rgb"])
    if len(images) > 1:
        inputs.append("normal3f inputs:normal.connect = </Model/Material/Normal.outputs:rgb>")
        to_signed = ["float4 inputs:scale = (2, 2, 2, 1)", "float4 inputs:bias = (-1, -1, -1, 0)"]
        textures += _texture("Normal", images[1], "raw", [*to_signed, "float3 outputs:rgb"])
    lines = "\n".join(f"            {line}" for line in inputs)
    return f"""    def Material "Material"
    {{
        token outputs:surface.connect = </Model/Material/Surface.outputs:surface>

        def Shader "Surface"
        {{
            uniform token info:id = "UsdPreviewSurface"
{lines}
            token outputs:surface
        }}

        def Shader "Primvar"
        {{
            uniform token info:id = "UsdPrimvarReader_{reader[1]}"
            string inputs:varname = "{reader[0]}"
            {reader[1]} outputs:result
        }}
{textures}    }}"""


def _texture(name: str, path: str, color_space: str, extra: list[str]) -> str:
    lines = "\n".join(f"            {line}" for line in extra)
    return f"""
        def Shader "{name}"
        {{
            uniform token info:id = "UsdUVTexture"
            asset inputs:file = @{path}@
            token inputs:sourceColorSpace = "{color_space}"
            token inputs:wrapS = "clamp"
            token inputs:wrapT = "clamp"
            float2 inputs:st.connect = </Model/Material/Primvar.outputs:result>
{lines}
        }}
"""


def _extent(asset: Asset) -> Float[ndarray, "2 3"]:
    points = y_up(asset.vertices)
    return np.stack([points.min(axis=0), points.max(axis=0)])


def _tuples(array: Float[ndarray, "N A"]) -> str:
    """Rows as ``[(x, y), ...]`` with the digits that float32 holds."""
    return "[" + ", ".join("(" + ", ".join(f"{x:.7g}" for x in row) + ")" for row in array.tolist()) + "]"


def _quoted(text: str) -> str:
    """A string literal; control characters, which the format cannot hold, become spaces."""
    return json.dumps("".join(c if c.isprintable() else " " for c in text), ensure_ascii=False)

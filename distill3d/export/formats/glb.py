"""Binary glTF 2.0: one file with the mesh, a physically based material and its images."""

from __future__ import annotations

import json
import struct
from typing import Any

import numpy as np
from numpy import ndarray

from distill3d import __version__
from distill3d.export.formats.asset import Asset, ImageFormat, encoded_image, y_up
from distill3d.runtime.srgb import linear_from_srgb

FLOAT, UINT16, UINT32 = 5126, 5123, 5125  # glTF component types
ARRAY_BUFFER, ELEMENT_ARRAY_BUFFER = 34962, 34963
LINEAR, LINEAR_MIPMAP_LINEAR, CLAMP_TO_EDGE = 9729, 9987, 33071
MIME = {"png": "image/png", "jpg": "image/jpeg"}


class _Buffer:
    """The binary chunk while it grows, and the views and accessors into it."""

    def __init__(self) -> None:
        self.data = bytearray()
        self.views: list[dict[str, Any]] = []
        self.accessors: list[dict[str, Any]] = []

    def add_bytes(self, data: bytes, **view: Any) -> int:
        self.data += bytes(-len(self.data) % 4)
        self.views.append({"buffer": 0, "byteOffset": len(self.data), "byteLength": len(data), **view})
        self.data += data
        return len(self.views) - 1

    def add_attribute(self, array: ndarray, bounds: bool = False) -> int:
        array = np.ascontiguousarray(array, "<f4")
        accessor = {"componentType": FLOAT, "type": f"VEC{array.shape[1]}", "count": len(array)}
        if bounds:
            accessor |= {"min": array.min(axis=0).tolist(), "max": array.max(axis=0).tolist()}
        return self._add_accessor(array, accessor, ARRAY_BUFFER)

    def add_indices(self, faces: ndarray) -> int:
        wide = faces.max() >= 0xFFFF  # the largest number of a type restarts a primitive and is no index
        accessor = {"componentType": UINT32 if wide else UINT16, "type": "SCALAR", "count": faces.size}
        return self._add_accessor(faces.astype("<u4" if wide else "<u2").ravel(), accessor, ELEMENT_ARRAY_BUFFER)

    def _add_accessor(self, array: ndarray, accessor: dict[str, Any], target: int) -> int:
        self.accessors.append({"bufferView": self.add_bytes(array.tobytes(), target=target), **accessor})
        return len(self.accessors) - 1


def glb_files(asset: Asset, name: str) -> dict[str, bytes]:
    """``name.glb``; y up, front at +z, metres; the metadata stands in the extras of asset and node."""
    return {f"{name}.glb": glb_bytes(asset, name)}


def glb_bytes(asset: Asset, name: str = "model") -> bytes:
    """Serialise to binary glTF 2.0 (Khronos' specification, section 4.4).

    A texture is stored as it is, sRGB-encoded; vertex colours are linear there, so they are converted.
    """
    buffer = _Buffer()
    primitive = {"attributes": _attributes(asset, buffer), "indices": buffer.add_indices(asset.faces), "material": 0}
    document: dict[str, Any] = {
        "asset": {"version": "2.0", "generator": f"distill3d {__version__}", "extras": dict(asset.metadata)},
        "scene": 0,
        "scenes": [{"nodes": [0]}],
        "nodes": [{"mesh": 0, "name": name, "extras": dict(asset.metadata)}],  # Blender drops those of the asset
        "meshes": [{"primitives": [primitive], "name": name}],
        "materials": [_material(asset)],
        **_images(asset, buffer),
    }
    document |= {"accessors": buffer.accessors, "bufferViews": buffer.views}
    document["buffers"] = [{"byteLength": len(buffer.data)}]
    return _container(json.dumps(document, ensure_ascii=False, separators=(",", ":")).encode(), bytes(buffer.data))


def _attributes(asset: Asset, buffer: _Buffer) -> dict[str, int]:
    attributes = {
        "POSITION": buffer.add_attribute(y_up(asset.vertices), bounds=True),
        "NORMAL": buffer.add_attribute(y_up(asset.normals)),
    }
    if asset.base_color is None or asset.uv is None:
        attributes["COLOR_0"] = buffer.add_attribute(linear_from_srgb(asset.colors))
        return attributes
    attributes["TEXCOORD_0"] = buffer.add_attribute(asset.uv)
    if asset.normal_map is not None and asset.tangents is not None:
        tangents = np.concatenate([y_up(asset.tangents[:, :3]), asset.tangents[:, 3:]], axis=1)
        attributes["TANGENT"] = buffer.add_attribute(tangents)
    return attributes


def _material(asset: Asset) -> dict[str, Any]:
    surface: dict[str, Any] = {"metallicFactor": 0.0, "roughnessFactor": asset.roughness}
    material: dict[str, Any] = {"name": "surface", "pbrMetallicRoughness": surface}
    if asset.base_color is not None:
        surface["baseColorTexture"] = {"index": 0}
        if asset.normal_map is not None:
            material["normalTexture"] = {"index": 1}
    return material


def _images(asset: Asset, buffer: _Buffer) -> dict[str, Any]:
    if asset.base_color is None:
        return {}
    parts: list[tuple[str, ndarray, ImageFormat]] = [("albedo", asset.base_color, asset.image_format)]
    if asset.normal_map is not None:
        parts.append(("normal", asset.normal_map, "png"))  # JPEG would bend the normals
    images = [
        {"name": part, "mimeType": MIME[kind], "bufferView": buffer.add_bytes(encoded_image(image, kind))}
        for part, image, kind in parts
    ]
    sampler = {"magFilter": LINEAR, "minFilter": LINEAR_MIPMAP_LINEAR, "wrapS": CLAMP_TO_EDGE, "wrapT": CLAMP_TO_EDGE}
    textures = [{"sampler": 0, "source": i} for i in range(len(images))]
    return {"images": images, "samplers": [sampler], "textures": textures}


def _container(document: bytes, data: bytes) -> bytes:
    """Header, JSON chunk padded with spaces, binary chunk padded with zeros."""
    document += b" " * (-len(document) % 4)
    data += bytes(-len(data) % 4)
    total = 12 + 8 + len(document) + 8 + len(data)
    header = struct.pack("<4sII", b"glTF", 2, total)
    return b"".join(
        [header, struct.pack("<I4s", len(document), b"JSON"), document, struct.pack("<I4s", len(data), b"BIN\0"), data]
    )

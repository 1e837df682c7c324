"""Wavefront OBJ with its material library and images."""

from __future__ import annotations

import io

import numpy as np

from distill3d.export.formats.asset import Asset, encoded_image
from distill3d.export.formats.welding import welded


def obj_files(asset: Asset, name: str) -> dict[str, bytes]:
    """``name.obj``, and with a texture ``name.mtl`` and the images; in the asset's frame.

    Texture coordinates have their origin at the lower left there. Without a texture the colours follow the positions
    (``v x y z r g b``), which most programs read.
    """
    images: dict[str, bytes] = {}
    if asset.base_color is not None:
        images[f"{name}_albedo.{asset.image_format}"] = encoded_image(asset.base_color, asset.image_format)
        if asset.normal_map is not None:
            images[f"{name}_normal.png"] = encoded_image(asset.normal_map, "png")
        images[f"{name}.mtl"] = _material(asset, list(images)).encode()
    return {f"{name}.obj": _geometry(asset, name).encode(), **images}


def comments(asset: Asset) -> list[str]:
    """The metadata and the axes, which these formats do not hold, one line each, whatever line breaks it holds."""
    said = {**asset.metadata, "up": asset.up, "front": asset.front}
    return [f"{key}: {' '.join(str(value).split())}" for key, value in said.items()]


def _geometry(asset: Asset, name: str) -> str:
    """Positions are shared across the cuts of the texture, so that a closed surface reads as closed.

    A corner has an index for its position, and one for its texture coordinate and normal.
    """
    mesh = welded(asset)
    textured = asset.base_color is not None and asset.uv is not None
    out = io.StringIO()
    out.writelines(f"# {line}\n" for line in comments(asset))
    out.write(f"mtllib {name}.mtl\n" if textured else "")
    out.write(f"o {name}\n")
    colors = np.zeros((len(mesh.positions), 0)) if textured else asset.colors[mesh.first]
    positions = np.concatenate([mesh.positions, colors], axis=1)
    np.savetxt(out, positions, fmt="v" + " %.8g" * positions.shape[1])  # fewer digits could join neighbours
    if textured and asset.uv is not None:
        np.savetxt(out, np.stack([asset.uv[:, 0], 1.0 - asset.uv[:, 1]], axis=1), fmt="vt %.7f %.7f")
    np.savetxt(out, asset.normals, fmt="vn %.5f %.5f %.5f")
    out.write("usemtl surface\n" if textured else "")
    corner = " %d/%d/%d" if textured else " %d//%d"
    indices = [mesh.faces, asset.faces, asset.faces] if textured else [mesh.faces, asset.faces]
    np.savetxt(out, np.stack(indices, axis=2).reshape(len(asset.faces), -1) + 1, fmt="f" + corner * 3)
    return out.getvalue()


def _material(asset: Asset, images: list[str]) -> str:
    """Kd 1, as programs multiply it with the map; Pr and Pm are the physically based extension."""
    lines = ["newmtl surface", "Ka 0 0 0", "Kd 1 1 1", "Ks 0 0 0", "d 1", "illum 1", "Pm 0", f"Pr {asset.roughness:g}"]
    lines.append(f"map_Kd {images[0]}")
    if len(images) > 1:
        lines += [f"norm {images[1]}", f"map_Bump {images[1]}"]
    return "\n".join(lines) + "\n"

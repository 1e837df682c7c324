"""What the JSON of a GLB or glTF says before anything is loaded: compressions that are not read, and colours."""

from __future__ import annotations

import json
import logging
import struct
from pathlib import Path
from typing import Any

from distill3d.config.schedule import is_finite_number
from distill3d.runtime.foreign import MAX_TEXT_BYTES, ForeignFileError, read_json_mapping, reading

log = logging.getLogger(__name__)

# extensions that hide geometry or textures from a reader that does not support them, by the name that tools give them
_NOT_READ = {
    "KHR_draco_mesh_compression": "Draco compression",
    "EXT_meshopt_compression": "meshopt compression",
    "KHR_meshopt_compression": "meshopt compression",
    "EXT_mesh_gpu_instancing": "GPU instancing",
    "KHR_texture_basisu": "KTX2 (Basis Universal) textures",
}
_HARMLESS = ("KHR_materials_", "KHR_mesh_quantization", "KHR_lights_", "KHR_animation", "KHR_xmp", "EXT_texture_webp")
SPECULAR = "KHR_materials_pbrSpecularGlossiness"
_MOST_ZEROS = 10_000_000  # entries of accessors without data: a file of a few bytes can ask for any number


def check_gltf(path: Path, setting: str = "") -> dict[str, Any]:
    """The file's JSON. Names extensions that are not read and only add something.

    Raises ForeignFileError for a file that needs one which is not read, or has colours that are no numbers.
    """
    header = _header(path, setting)
    needed, used = (_names(header, key) for key in ("extensionsRequired", "extensionsUsed"))
    for name in sorted(needed):
        if not name.startswith(_HARMLESS) and name != "KHR_texture_transform":
            what = _NOT_READ.get(name, f"the glTF extension {name}")
            raise ForeignFileError(f"{path}: {what} is not read; export without it")
    accessors = header.get("accessors", [])
    accessors = accessors if isinstance(accessors, list) else []
    empty = [a for a in accessors if isinstance(a, dict) and a.get("bufferView") is None]
    if any(isinstance(count := a.get("count"), (int, float)) and count > _MOST_ZEROS for a in empty):
        raise ForeignFileError(f"{path} has an accessor of more than {_MOST_ZEROS} zeros; repair the mesh")
    for name in sorted(used & (_NOT_READ.keys() | {"KHR_texture_transform"})):
        log.warning("%s: %s is not read; what it adds is left out", path, _NOT_READ.get(name, name))
    for number, material in enumerate(_materials(header)):
        _check_factor(material.get("pbrMetallicRoughness"), "baseColorFactor", f"{path}, material {number}")
        _check_factor(_specular(material), "diffuseFactor", f"{path}, material {number}")
    return header


def with_base_colors(path: Path, header: dict[str, Any]) -> bytes | None:
    """The file with diffuse colours of KHR_materials_pbrSpecularGlossiness as base colours; None where it has none.

    These are what is seen without highlights. A mirror, which is what a material without a specularFactor is, would
    have white as the base colour of equal reflection, whatever its texture.
    """
    if not any(map(_specular, _materials(header))):
        return None
    for material in _materials(header):
        if given := _specular(material):
            named = {"diffuseFactor": "baseColorFactor", "diffuseTexture": "baseColorTexture"}
            material["pbrMetallicRoughness"] = {own: given[name] for name, own in named.items() if name in given}
            del material["extensions"][SPECULAR]
    text = json.dumps(header).encode()
    if path.suffix.lower() == ".gltf":
        return text
    data = path.read_bytes()
    rest = data[20 + struct.unpack("<I", data[12:16])[0] :]
    text += b" " * (-len(text) % 4)
    return struct.pack("<4sIII4s", b"glTF", 2, 20 + len(text) + len(rest), len(text), b"JSON") + text + rest


def _materials(header: dict[str, Any]) -> list[dict[str, Any]]:
    materials = header.get("materials")
    return [m for m in materials if isinstance(m, dict)] if isinstance(materials, list) else []


def _specular(material: dict[str, Any]) -> dict[str, Any]:
    """What a material says in that extension; empty where it says nothing."""
    extensions = material.get("extensions")
    found = extensions.get(SPECULAR) if isinstance(extensions, dict) else None
    return found if isinstance(found, dict) else {}


def _check_factor(mapping: Any, name: str, where: str) -> None:
    """Raise ForeignFileError for a colour that is none; name one that is out of range."""
    factor = mapping.get(name) if isinstance(mapping, dict) else None
    if factor is None:
        return
    if not (isinstance(factor, list) and len(factor) == 4 and all(map(is_finite_number, factor))):
        raise ForeignFileError(f"{where}: {name}={str(factor)[:60]} must be four numbers from 0 to 1; repair the mesh")
    if not all(0.0 <= number <= 1.0 for number in factor):
        log.warning("%s: %s=%s is not within 0 .. 1, and cut to it", where, name, factor)


def _header(path: Path, setting: str) -> dict[str, Any]:
    if path.suffix.lower() == ".gltf":
        return read_json_mapping(path, setting=setting)
    with reading(path, "a mesh", setting=setting), path.open("rb") as file:
        magic, _, _, length, kind = struct.unpack("<4sIII4s", file.read(20))
        if magic != b"glTF" or kind != b"JSON" or length > MAX_TEXT_BYTES:
            raise ValueError("it does not begin as a GLB of version 2 does")
        header = json.loads(file.read(length))
    if not isinstance(header, dict):
        raise ForeignFileError(f"{path} cannot be read as a mesh: its JSON is no mapping")
    return header


def _names(header: dict[str, Any], key: str) -> set[str]:
    names = header.get(key, [])
    return {name for name in names if isinstance(name, str)} if isinstance(names, list) else set()

"""What a GLB or glTF needs of its reader: compressions that are not read are named before anything is loaded."""

from __future__ import annotations

import json
import logging
import struct
from pathlib import Path
from typing import Any

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
_MOST_ZEROS = 10_000_000  # entries of accessors without data: a file of a few bytes can ask for any number


def check_gltf(path: Path, setting: str = "") -> None:
    """Raise ForeignFileError for a file that needs an extension which is not read; name those that only add to it."""
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

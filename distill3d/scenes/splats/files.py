"""Files of Gaussians: the .ply of 3D Gaussian splatting and the .splat of web viewers."""

from __future__ import annotations

import logging
from pathlib import Path

import numpy as np
import torch
from numpy import ndarray
from torch import Tensor

from distill3d.runtime.foreign import ForeignFileError, named, read_bytes, reading
from distill3d.scenes.splats.gaussians import MAX_COUNT, Gaussians, logit

log = logging.getLogger(__name__)

SH0 = 0.28209479177387814  # the constant spherical harmonic, by which these files divide colours
MAX_BYTES = 1 << 30
PLACE, NORMAL = ("x", "y", "z"), ("nx", "ny", "nz")
COLOR, SCALE = tuple(f"f_dc_{i}" for i in range(3)), tuple(f"scale_{i}" for i in range(3))
TURN = tuple(f"rot_{i}" for i in range(4))
ATTRIBUTES = (*PLACE, *NORMAL, *COLOR, "opacity", *SCALE, *TURN)
_TYPES = {
    **dict.fromkeys(("char", "int8"), "i1"),
    **dict.fromkeys(("uchar", "uint8"), "u1"),
    **dict.fromkeys(("short", "int16"), "i2"),
    **dict.fromkeys(("ushort", "uint16"), "u2"),
    **dict.fromkeys(("int", "int32"), "i4"),
    **dict.fromkeys(("uint", "uint32"), "u4"),
    **dict.fromkeys(("float", "float32"), "f4"),
    **dict.fromkeys(("double", "float64"), "f8"),
}
_SPLAT = np.dtype([("place", "<f4", 3), ("size", "<f4", 3), ("rgba", "u1", 4), ("turn", "u1", 4)])


def ply_bytes(gaussians: Gaussians) -> bytes:
    """The file that the authors of arXiv 2308.04079 write, with spherical harmonics of degree 0; z is up."""
    own = {name: value.detach().cpu().float() for name, value in gaussians.tensors().items()}
    colors = (own["colors"].sigmoid() - 0.5) / SH0
    turns = torch.nn.functional.normalize(own["quaternions"], dim=1)
    columns = (own["means"], torch.zeros_like(own["means"]), colors, own["opacities"][:, None], own["scales"], turns)
    table = torch.cat(columns, dim=1).numpy().astype("<f4")
    properties = "".join(f"property float {name}\n" for name in ATTRIBUTES)
    header = f"ply\nformat binary_little_endian 1.0\nelement vertex {len(table)}\n{properties}end_header\n"
    return header.encode() + table.tobytes()


def splat_bytes(gaussians: Gaussians) -> bytes:
    """32 bytes each: place, size, colour with opacity, rotation; what matters most comes first, as viewers load it."""
    opacity, sizes = gaussians.opacities.detach().sigmoid(), gaussians.scales.detach().exp()
    order = (opacity * sizes.prod(dim=1)).argsort(descending=True, stable=True)
    colors = torch.cat([gaussians.colors.detach().sigmoid(), opacity[:, None]], dim=1)
    turns = torch.nn.functional.normalize(gaussians.quaternions.detach(), dim=1)
    table = np.empty(len(order), _SPLAT)
    table["place"], table["size"] = _numbers(gaussians.means[order]), _numbers(sizes[order])
    table["rgba"] = _numbers((255.0 * colors[order]).round())
    table["turn"] = _numbers((128.0 * turns[order] + 128.0).round().clamp(0, 255))
    return table.tobytes()


def _numbers(values: Tensor) -> ndarray:
    return values.detach().cpu().numpy()


def read_gaussians(path: Path, setting: str = "") -> Gaussians:
    """A .splat, or a .ply of Gaussians, without harmonics beyond the constant one.

    Raises ForeignFileError for attributes that are missing, values that are not finite, none or too many Gaussians.
    """
    if path.suffix.lower() == ".splat":
        return _read_splat(path, setting)
    table = read_ply_vertices(path, setting)
    missing = [name for name in ATTRIBUTES if name not in table and name not in NORMAL]
    if missing:
        raise ForeignFileError(
            f"{named(path, setting)} lacks {', '.join(missing)}, which a .ply of Gaussians has; give one that a splat "
            "trainer wrote, a point cloud with x, y, z and red, green, blue, or a mesh"
        )
    if "f_rest_0" in table:
        log.info("%s: colours that change with the view are read as their mean", path)
    many = lambda names: np.stack([table[name] for name in names], axis=1)  # noqa: E731
    colors = logit(torch.from_numpy(0.5 + SH0 * many(COLOR)).float())
    values = (many(PLACE), many(SCALE), many(TURN), table["opacity"])
    means, scales, turns, opacities = (torch.from_numpy(np.ascontiguousarray(v)).float() for v in values)
    return checked(Gaussians(means, scales, turns, opacities, colors), path, setting)


def _read_splat(path: Path, setting: str) -> Gaussians:
    data = read_bytes(path, "Gaussians", setting=setting, limit=MAX_BYTES)
    if len(data) % _SPLAT.itemsize:
        raise ForeignFileError(
            f"{named(path, setting)} has {len(data)} bytes, no multiple of 32 as a .splat has; it is cut short or no "
            ".splat"
        )
    table = np.frombuffer(data, _SPLAT)
    part = lambda name: torch.from_numpy(table[name].astype(np.float32))  # noqa: E731
    rgba = part("rgba") / 255.0
    scales = part("size").clamp_min(1e-12).log()
    made = Gaussians(part("place"), scales, part("turn") / 128.0 - 1.0, logit(rgba[:, 3]), logit(rgba[:, :3]))
    return checked(made, path, setting)


def checked(gaussians: Gaussians, path: Path, setting: str) -> Gaussians:
    """The same. Raises ForeignFileError for a number of Gaussians or for values that cannot be used."""
    count = len(gaussians)
    _check_count(count, path, setting)
    for name, value in gaussians.tensors().items():
        bad = ~value.reshape(count, -1).isfinite().all(dim=1)
        if bool(bad.any()):
            raise ForeignFileError(
                f"{named(path, setting)} has {int(bad.sum())} of {count} Gaussians whose {name} are NaN or infinite; "
                "remove them, or write the file again"
            )
    if bool((gaussians.quaternions.norm(dim=1) < 1e-8).any()):
        raise ForeignFileError(f"{named(path, setting)} has rotations of length 0; write the file again")
    return gaussians


def _check_count(count: int, path: Path, setting: str) -> None:
    if count == 0:
        raise ForeignFileError(f"{named(path, setting)} is empty: it has no points; give a file with some")
    if count > MAX_COUNT:
        raise ForeignFileError(
            f"{named(path, setting)} has {count} points, more than the {MAX_COUNT} that are read; thin it out first"
        )


def read_ply_vertices(path: Path, setting: str = "") -> dict[str, ndarray]:
    """The scalar properties of a PLY's vertices, by name, in any of its three encodings."""
    data = read_bytes(path, "a PLY file", setting=setting, limit=MAX_BYTES)
    with reading(path, "a PLY file", setting=setting):
        head, separator, body = data.partition(b"end_header")
        if not head.startswith(b"ply") or not separator:
            raise ForeignFileError(f"{named(path, setting)} is no PLY file: its header is missing or cut short")
        body = body[body.index(b"\n") + 1 :]
        lines = [line.split() for line in head.decode("ascii").splitlines()]
        encoding = next(line[1] for line in lines if line and line[0] == "format")
        count, properties = _vertex_element(lines, path, setting)
        _check_count(count, path, setting)
        return _table(body, encoding, count, properties)


def _vertex_element(lines: list[list[str]], path: Path, setting: str) -> tuple[int, list[tuple[str, str]]]:
    """How many vertices there are, and the type and name of each property."""
    elements = [i for i, line in enumerate(lines) if line and line[0] == "element"]
    if not elements or lines[elements[0]][1] != "vertex":
        raise ForeignFileError(f"{named(path, setting)} does not begin with vertices; give a PLY of points")
    end = elements[1] if len(elements) > 1 else len(lines)
    own = [line for line in lines[elements[0] + 1 : end] if line and line[0] == "property"]
    if any(line[1] == "list" for line in own):
        raise ForeignFileError(f"{named(path, setting)} has lists in its vertices, which are not read")
    return int(lines[elements[0]][2]), [(_TYPES[line[1]], line[2]) for line in own]


def _table(body: bytes, encoding: str, count: int, properties: list[tuple[str, str]]) -> dict[str, ndarray]:
    if encoding == "ascii":
        rows = [line.split() for line in body.decode("ascii").splitlines()[:count]]
        values = np.array(rows, np.float64).reshape(count, -1)
        return {name: values[:, i] for i, (_, name) in enumerate(properties)}
    order = {"binary_little_endian": "<", "binary_big_endian": ">"}[encoding]
    dtype = np.dtype([(name, order + kind) for kind, name in properties])
    values = np.frombuffer(body, dtype, count)
    return {name: values[name].astype(np.float64) for _, name in properties}

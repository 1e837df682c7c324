"""A small coloured mesh, and data sets of its views, made on the spot."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from distill3d.data.posed.write import write_posed_images
from distill3d.evaluation.render_views import RenderViewsSettings, mesh_views, view_cameras
from distill3d.scenes.mesh.raster import Mesh


def colored_box() -> Mesh:
    """A box that is red at the front (+x), green on the left (+y), blue on top, dark elsewhere; z up."""
    import trimesh

    box = trimesh.creation.box((0.5, 0.4, 0.6))
    vertices = np.asarray(box.vertices, np.float32)[box.faces].reshape(-1, 3)
    faces = np.arange(len(vertices), dtype=np.int32).reshape(-1, 3)
    outward = np.repeat(np.asarray(box.face_normals), 3, axis=0)
    return Mesh(vertices, faces, (0.1 + 0.8 * outward.clip(0.0, 1.0)).astype(np.float32))


def make_data_set(folder: Path, size: int = 16, **settings: object) -> Path:
    """Views of the box as --render-views writes them."""
    chosen = RenderViewsSettings(**{"train_views": 6, "test_views": 2, "size": size, **settings})  # type: ignore[arg-type]
    mesh = colored_box()
    splits = {"train": chosen.train_views, "test": chosen.test_views}
    cameras = {name: view_cameras(chosen, count, i) for i, (name, count) in enumerate(splits.items())}
    views = {name: mesh_views(mesh, of_split, "albedo") for name, of_split in cameras.items()}
    write_posed_images(folder, views, "box")
    return folder

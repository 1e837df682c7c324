"""The contact sheet shows the asset as a viewer would, and its figures are what they say."""

import io

import numpy as np
import torch
from export_assets import FIELD, letter
from export_scenes import AnalyticGeometry, MarchingRenderer, box, letter_f
from PIL import Image

from distill3d.camera import camera_rays
from distill3d.evaluation.metrics import psnr_db
from distill3d.export.preview import preview, render_asset
from distill3d.export.surface.grid import Box
from distill3d.export.views import AlbedoViews, surrounding_cameras

UNIT = Box(torch.full((3,), -0.5), torch.full((3,), 0.5))
CAMERAS = surrounding_cameras(UNIT, 4, 48)


def test_texture_and_vertex_colours_look_alike():
    textured, _, mask = render_asset(letter(True), CAMERAS)
    colored, _, same = render_asset(letter(False), CAMERAS)
    torch.testing.assert_close(mask, same)
    assert float(psnr_db(textured[None], colored[None])) > 35.0


def test_the_mesh_looks_like_the_scene_and_the_sheet_has_three_rows():
    views = MarchingRenderer(AnalyticGeometry(letter_f, peak=100.0), steps=192).render(CAMERAS)  # opaque at the level
    data, figures = preview(letter(True), AlbedoViews.of(CAMERAS, views))
    sheet = np.asarray(Image.open(io.BytesIO(data)))
    assert sheet.shape == (3 * 48, 4 * 48, 3)
    assert figures["mesh_psnr"] > 25.0 and figures["mesh_silhouette_overlap"] > 0.85
    assert 15.0 < figures["mesh_psnr_foreground"] < figures["mesh_psnr"]
    scene = np.concatenate(list(views.rgb.permute(0, 2, 3, 1).numpy()), axis=1)
    np.testing.assert_allclose(sheet[:48] / 255.0, scene.clip(0.0, 1.0), atol=0.5 / 255.0 + 1e-6)
    grey = sheet[96:]
    assert (grey[..., 0] == grey[..., 1]).all() and (grey[0, 0] == 255).all()


def test_a_mirrored_scene_does_not_match():
    renderer = MarchingRenderer(FIELD.geometry, steps=192)
    views = renderer.render(CAMERAS)
    mirrored = type(views)(views.rgb.flip(-1), views.opacity.flip(-1), views.depth, None, "albedo")
    assert preview(letter(True), AlbedoViews.of(CAMERAS, mirrored))[1]["mesh_psnr"] < 22.0


def test_the_cameras_see_the_whole_box():
    corners = torch.cartesian_prod(*[torch.tensor([-0.2, 0.6])] * 3)
    cameras = surrounding_cameras(Box(corners[0], corners[-1]), 8, 32)
    for c2w, fovy in zip(cameras.c2w, cameras.fovy_rad, strict=True):
        local = (corners - c2w[:3, 3]) @ c2w[:3, :3]
        assert float((local[:, :2].abs() / -local[:, 2:]).max()) < float(torch.tan(0.5 * fovy))
    first = camera_rays(cameras).origins[0, 0, 0]
    assert float(first[0]) > 1.0 and abs(float(first[1]) - 0.2) < 1e-5  # from the front
    assert float(box(first[None]).item()) > 0.0

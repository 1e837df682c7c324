"""The contact sheet shows the asset as a viewer would, and its figures are what they say."""

import io

import numpy as np
import torch
from export_assets import FIELD, letter
from export_scenes import AnalyticGeometry, MarchingRenderer, box, letter_f
from PIL import Image

from distill3d.camera import camera_rays
from distill3d.evaluation.metrics import psnr_db
from distill3d.export.preview import preview, render_asset, turntable
from distill3d.export.surface.grid import Box
from distill3d.export.views import AlbedoViews, framed, surrounding_cameras
from distill3d.runtime.pictures import GAP, HEAD, STRIP

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
    cell, left = 48 + GAP, sheet.shape[1] - 4 * (48 + GAP)
    top = sheet.shape[0] - 3 * cell
    assert top >= STRIP and left > 60 and sheet[:, :left].min() < 128  # labels
    rows = [sheet[top + i * cell : top + i * cell + 48, left : left + 48] for i in range(3)]
    assert figures["mesh_psnr"] > 25.0 and figures["mesh_silhouette_overlap"] > 0.85
    assert 15.0 < figures["mesh_psnr_foreground"] < figures["mesh_psnr"]
    scene = views.rgb[0].permute(1, 2, 0).numpy()
    np.testing.assert_allclose(rows[0] / 255.0, scene.clip(0.0, 1.0), atol=0.5 / 255.0 + 1e-6)
    assert float(np.abs(rows[1].astype(float) - rows[0]).mean()) < 20.0
    assert (rows[2][..., 0] == rows[2][..., 1]).all() and (rows[2][0, 0] == 255).all()


def test_a_turntable_shows_colour_and_normal_under_their_names():
    frames = [frame.permute(1, 2, 0).numpy() for frame in turntable(letter(True), 4, 64)]
    assert [frame.shape for frame in frames] == [(HEAD + 64, 128, 3)] * 4
    assert all(np.array_equal(frame[:HEAD], frames[0][:HEAD]) for frame in frames) and frames[0][:HEAD].min() < 128
    normal = frames[0][HEAD:, 64:]
    shown = normal.any(axis=2)
    columns = np.flatnonzero(shown.any(axis=0)), np.flatnonzero(shown.any(axis=1))
    assert max(np.ptp(found) for found in columns) > 0.8 * 64  # it fills the frame
    assert not shown[0].any() and not shown[:, 0].any()  # and is not cut
    assert np.median(normal[shown][:, 0]) > 170  # the front looks towards +x
    assert np.median(frames[2][HEAD:, 64:][shown[:, ::-1]][:, 0]) < 85


def test_a_lens_is_narrowed_until_the_object_fills_the_frame():
    mask = torch.zeros(4, 1, 32, 32)
    mask[:, :, 12:20, 10:22] = 1.0
    narrow = framed(CAMERAS, mask)
    half = torch.tan(0.5 * narrow.fovy_rad) / torch.tan(0.5 * CAMERAS.fovy_rad)
    torch.testing.assert_close(half, torch.full((4,), 7.0 / 16.0))  # six pixels, and one as a margin
    torch.testing.assert_close(framed(CAMERAS, torch.zeros_like(mask)).fovy_rad, CAMERAS.fovy_rad)


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

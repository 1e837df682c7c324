"""Under the exact prior a camera makes the object where the text alone cannot; and the benchmark's own figures."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

import pytest
import torch

sys.path.insert(0, str(Path(__file__).parents[1] / "benchmarks"))

import exact
import exact_report
import truth
from exact_objects import OBJECTS

from distill3d.data.posed.write import RenderedViews
from distill3d.evaluation.render_views import mesh_views

SHORT = [
    "trainer.max_steps=120",
    "data.batch_size=2",
    "data.width=32",
    "data.height=32",
    "data.resolution_milestones=[]",
    "data.eval_width=16",
    "data.eval_height=16",
    "system.contact_views=1",
    "system.renderer.num_samples_per_ray=48",
    "system.geometry.pos_encoding_config.n_levels=4",
    "system.geometry.pos_encoding_config.log2_hashmap_size=14",
    "system.exporter.resolution=40",
    "system.exporter.mode=vertex",
    "system.exporter.view_size=16",
    "system.exporter.turntable_views=0",
    "system.exporter.viewer=false",
    "trainer.accelerator=cpu",
]


def benchmark(out: Path, *arguments: str) -> list[exact_report.Row]:
    settings = [
        "--views",
        "96",
        "--rules",
        "sds",
        "--out",
        str(out),
        "--work",
        str(out / "work"),
        "--name",
        "short",
        "--set",
        *SHORT,
    ]
    assert exact.main(["--objects", "car", *arguments, *settings]) == 0
    return exact_report.read_rows(out / "exact.jsonl")


def test_the_camera_beats_the_text_alone_by_a_wide_margin(tmp_path, monkeypatch):
    monkeypatch.setattr(os, "environ", dict(os.environ))  # a trial tells its children where it is
    rows = {row.condition: row for row in benchmark(tmp_path, "--conditions", "text", "camera")}
    assert rows["camera"].iou > 0.8
    assert rows["camera"].iou > rows["text"].iou + 0.15
    assert rows["camera"].psnr_db > rows["text"].psnr_db + 2.0
    assert rows["camera"].chamfer_percent < rows["text"].chamfer_percent
    monkeypatch.setattr(exact, "train_and_measure", lambda *_: pytest.fail("trained again"))
    assert len(benchmark(tmp_path, "--conditions", "camera")) == 2
    text = (tmp_path / "exact-short.md").read_text()
    assert f"| camera | sds |  | car | {rows['camera'].iou:.3f} |" in text
    assert (tmp_path / "exact-short.jpg").stat().st_size > 0
    assert len([json.loads(line) for line in (tmp_path / "exact.jsonl").read_text().splitlines()]) == 2


def test_every_object_has_a_front_a_top_and_colours():
    for name, build in OBJECTS.items():
        mesh = build().normalized()
        assert mesh.faces.max() < len(mesh.vertices) == len(mesh.colors), name
        seen = mesh_views(mesh, truth.around(2, 1.6, 40.0), "albedo")
        assert 0.05 < float((seen.alpha > 0.5).float().mean()) < 0.6, name


def test_the_figures_know_the_truth_and_a_view_from_behind():
    right = mesh_views(OBJECTS["car"]().normalized(), truth.around(exact.TURNS, 1.6, 40.0), "albedo")
    turned = truth.over_grey(right).roll(exact.TURNS // 2, 0)
    assert truth.silhouette_iou(right.alpha, right.alpha) == 1.0
    assert truth.silhouette_iou(right.alpha, torch.ones_like(right.alpha)) < 0.4
    assert truth.albedo_psnr_db(right, right) == pytest.approx(100.0)
    faded = RenderedViews(right.cameras, 0.9 * right.rgb, right.alpha)
    assert 20.0 < truth.albedo_psnr_db(faded, right) < 35.0
    assert truth.janus_rate(truth.over_grey(right), truth.over_grey(right)) == 0.0
    assert truth.janus_rate(turned, truth.over_grey(right)) > 0.5


def test_only_what_is_seen_counts_as_surface():
    mesh = OBJECTS["snowman"]().normalized()
    inner = mesh.transformed(0.2)
    points = truth.visible_points(type(mesh).merged([mesh, inner]))
    assert abs(points - truth.visible_points(mesh)).max() < 1e-5

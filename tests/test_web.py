"""The page: orders as command lines, runs as processes, and a browser that goes from prompt to GLB."""

from __future__ import annotations

import json
import socket
import time

import pytest
from browser import browser, wait

from distill3d import cli
from distill3d.config.experiment import load
from distill3d.viewer.jobs import NAME, Order, newest_picture, past_trials, run
from distill3d.viewer.page import PageSettings, serve

SHORT = (
    *("trainer.max_steps=2", "system.exporter.resolution=24", "system.exporter.mode=vertex", "data.n_test_views=2"),
    *("system.exporter.threshold=0.1", "data.eval_width=16", "data.eval_height=16", "system.exporter.faces=500"),
)


def test_an_order_is_a_command_line_whose_settings_are_valid(tmp_path):
    order = Order("a fox: red, 3", "dreamfusion-quick.yaml", "csd", 12.5, 7)
    arguments = order.arguments(tmp_path, "x")
    assert arguments[:3] == ["--config", "dreamfusion-quick.yaml", "--train"]
    experiment = load(arguments[1], arguments[3:]).experiment
    assert (experiment.prompt, experiment.seed, experiment.tag) == ("a fox: red, 3", 7, "x")
    assert experiment.system["guidance_type"] == "csd" and experiment.system["guidance"]["guidance_scale"] == 12.5
    plain = Order("a fox", "dreamfusion-quick.yaml").arguments(tmp_path, "x")
    assert not [argument for argument in plain if argument.startswith("system.guidance")]


def test_a_mistake_is_told_in_its_own_words(tmp_path):
    *_, last = run(Order("a fox", "dreamfusion-quick.yaml", settings=("data.widht=3",)), tmp_path, pause=0.2)
    assert last.done and last.mesh is None and last.text.startswith("error: data.widht")


def test_a_consumer_that_stops_ends_the_process(tmp_path):
    work = run(Order("a fox", "dreamfusion-quick.yaml"), tmp_path, pause=0.2)
    assert next(work).text == "starting"
    begun = time.monotonic()
    work.close()  # waits for the process
    assert time.monotonic() - begun < 100 and not list(tmp_path.rglob("model.glb"))


def test_the_newest_picture_and_the_gallery(tmp_path):
    for name, pictures in (("a", ("it5-0.png", "it50-0.png")), ("b", ("it9-0.png", "it9-views.png")), ("c", ())):
        (tmp_path / NAME / name / "save").mkdir(parents=True)
        (tmp_path / NAME / name / "metrics.json").write_text(json.dumps({"prompt": f"a {name}"}))
        for picture in pictures:
            (tmp_path / NAME / name / "save" / picture).write_bytes(b"")
    assert [newest_picture(tmp_path / NAME / name) for name in "abc"] == [
        tmp_path / NAME / "a/save/it50-0.png",
        tmp_path / NAME / "b/save/it9-views.png",
        None,
    ]
    assert sorted(prompt for _, prompt in past_trials(tmp_path)) == ["a a", "a b"]


def test_settings_of_the_page_are_checked(tmp_path, capsys):
    assert cli.main(["--web", "port=0"]) == 2
    assert "port=0" in capsys.readouterr().err
    with pytest.raises(ValueError, match="port"):
        PageSettings(port=99999)


def test_a_browser_goes_from_prompt_to_glb(tmp_path):
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    page = serve(PageSettings(port=port, exp_root_dir=str(tmp_path)), SHORT, block=False)
    try:
        with browser(tmp_path) as tab:
            tab.open(f"http://127.0.0.1:{port}")
            wait(lambda: "make it" in tab.text(), "the page")
            tab.click("make it")
            state = "[...document.querySelectorAll('textarea, input')].map(e => e.value).join('|')"
            wait(lambda: ", done" in tab.run(state) or "error" in tab.run(state), "the run", 1.0)
            assert ", done" in tab.run(state), tab.run(state)
            link = "[...document.querySelectorAll('a')].map(a => a.href).find(h => h.endsWith('.glb')) || ''"
            address = wait(lambda: tab.run(link), "the link to the GLB")
            script = "fetch(%s).then(r => r.arrayBuffer()).then(b => String.fromCharCode(...new Uint8Array(b, 0, 4)))"
            assert tab.run(script % json.dumps(address)) == "glTF"
            assert wait(lambda: tab.run("document.querySelectorAll('img').length"), "pictures") >= 1
    finally:
        page.close()

"""The page: orders as command lines, runs as processes, the queue, the gallery; a browser from prompt to GLB."""

from __future__ import annotations

import json
import socket
import sys
import threading
import time

import pytest
from browser import browser, wait

from distill3d import cli
from distill3d.config.experiment import load
from distill3d.viewer import jobs
from distill3d.viewer.jobs import NAME, JobState, Order, newest_picture, past_trials, run
from distill3d.viewer.page import PageSettings, serve
from distill3d.viewer.queue import JobQueue

SHORT = (
    *("trainer.max_steps=2", "system.exporter.resolution=24", "system.exporter.mode=vertex", "data.n_test_views=2"),
    "system.exporter.turntable_views=0",
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


def test_a_visitor_cannot_have_a_file_read_as_the_prompt(tmp_path):
    (tmp_path / "secret.txt").write_text("secret")
    for prompt in (f"@{tmp_path}/secret.txt", f" @@ {tmp_path}/secret.txt"):
        arguments = Order(prompt, "dreamfusion-quick.yaml").arguments(tmp_path, "x")
        assert load(arguments[1], arguments[3:]).experiment.prompt == f"{tmp_path}/secret.txt"


def test_a_mistake_is_told_in_its_own_words(tmp_path):
    *_, last = run(Order("a fox", "dreamfusion-quick.yaml", settings=("data.widht=3",)), tmp_path, pause=0.2)
    assert last.done and last.mesh is None and last.text.startswith("error: data.widht")


SLEEPER = """
import json, pathlib, signal, sys, time
trial = pathlib.Path(sys.argv[1])
def leave(*_):
    (trial / "saved").touch()
    sys.exit(3)
signal.signal(signal.SIGTERM, leave)
(trial / "save").mkdir(parents=True)
(trial / "save" / "it50-0.png").touch()
(trial / "metrics.json").write_text(json.dumps({"steps": 50, "seconds_total": 2.0, "prompt": "a fox"}))
if sys.argv[2] == "end":
    print("a line", "warning: words", "warning: and more", sep="\\n", file=sys.stderr)
    (trial / "save" / "it50-export").mkdir()
    (trial / "save" / "it50-export" / "model.glb").touch()
else:
    time.sleep(600)
"""


@pytest.fixture
def stand_in(monkeypatch):
    """Runs are small processes that write what training writes; a prompt of "end" finishes, others sleep."""

    def command(order, root, tag):
        return [sys.executable, "-c", SLEEPER, str(root / NAME / tag), order.prompt]

    monkeypatch.setattr(jobs, "_command", command)


def until_step(work):
    return next(told for told in work if told.text.startswith("step"))


def test_a_finished_run_has_its_mesh_and_its_picture(tmp_path, stand_in):
    *_, last = run(Order("end", "x"), tmp_path, pause=0.05)
    assert last.text == "step 50, 2 s, done\nwarning: words\nwarning: and more" and last.done
    assert last.mesh and last.mesh.name == "model.glb" and last.picture and last.picture.name == "it50-0.png"
    assert not list(tmp_path.rglob("*.log"))


def test_a_consumer_that_stops_ends_the_process_which_saves(tmp_path, stand_in):
    work = run(Order("sleep", "x"), tmp_path, pause=0.05)
    until_step(work)
    work.close()  # waits for the process
    assert list(tmp_path.rglob("saved")) and not list(tmp_path.rglob("model.glb"))


def test_cancelling_ends_the_process_and_the_next_one_starts(tmp_path, stand_in):
    queue = JobQueue(tmp_path, pause=0.05)
    first, second = queue.submit(Order("sleep", "x"), "me"), queue.submit(Order("end", "x"), "you")
    until_step(first)
    assert next(second).text == "waiting: 1 before this one"
    assert queue.cancel("me") == 1 and queue.cancel("nobody") == 0
    *_, last = first
    assert (last.text, last.done) == ("cancelled", True) and list(tmp_path.rglob("saved"))
    *_, end = second
    assert end.mesh is not None and "done" in end.text
    assert queue.cancel("me") == 0  # nothing is left of it


def test_runs_go_one_at_a_time_in_their_order(tmp_path):
    active, seen, together = [], [], []

    def work(order, root, pause, cancelled):
        active.append(order.prompt)
        together.append(len(active))
        time.sleep(0.01)
        yield JobState(order.prompt)
        active.remove(order.prompt)
        seen.append(order.prompt)
        yield JobState("done", done=True)

    queue = JobQueue(tmp_path, pause=0.02, work=work)
    waiting = [queue.submit(Order(str(number), "x")) for number in range(6)]
    threads = [threading.Thread(target=lambda told=told: list(told)) for told in reversed(waiting)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert seen == [str(number) for number in range(6)] and set(together) == {1}


def test_one_who_waits_can_leave_and_a_failure_lets_the_next_one_in(tmp_path):
    def fail(order, root, pause, cancelled):
        yield JobState("begun")
        raise OSError("the disk is full")

    queue = JobQueue(tmp_path, pause=0.02, work=fail)
    first, second, third = (queue.submit(Order(name, "x"), name) for name in "abc")
    assert next(first).text == "begun" and "1 before" in next(second).text and "2 before" in next(third).text
    queue.cancel("b")
    assert [told.text for told in second] == ["cancelled"] and "1 before" in next(third).text
    with pytest.raises(OSError, match="full"):
        next(first)
    assert next(third).text == "begun"


def test_the_newest_picture_and_the_gallery(tmp_path):
    for name, pictures in (("a", ("it5-0.png", "it50-0.png")), ("b", ("it9-0.png", "it9-views.png")), ("c", ())):
        (tmp_path / NAME / name / "save").mkdir(parents=True)
        record = json.dumps({"prompt": f"a {name}"}) if name != "b" else "{ broken"
        (tmp_path / NAME / name / "metrics.json").write_text(record)
        for picture in pictures:
            (tmp_path / NAME / name / "save" / picture).write_bytes(b"")
    assert [newest_picture(tmp_path / NAME / name) for name in "abc"] == [
        tmp_path / NAME / "a/save/it50-0.png",
        tmp_path / NAME / "b/save/it9-views.png",
        None,
    ]
    assert sorted(prompt for _, prompt in past_trials(tmp_path)) == ["a a", "b"]


def test_settings_of_the_page_are_checked(tmp_path, capsys):
    assert cli.main(["--web", "port=0"]) == 2
    assert "port=0" in capsys.readouterr().err
    with pytest.raises(ValueError, match="port"):
        PageSettings(port=99999)


def test_without_gradio_the_command_names_what_to_install(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    assert cli.main(["--web"]) == 2
    assert "pip install -r requirements-web.txt" in capsys.readouterr().err


@pytest.fixture
def page_address(tmp_path):
    """The page, served. It is an extra: pip install -r requirements-web.txt && pytest -m slow tests/test_web.py."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    page = serve(PageSettings(port=port, exp_root_dir=str(tmp_path)), SHORT, block=False)
    yield f"http://127.0.0.1:{port}"
    page.close()


STATE = "[...document.querySelectorAll('textarea, input')].map(e => e.value).join('|')"


@pytest.mark.slow
def test_a_browser_goes_from_prompt_to_glb(tmp_path, page_address):
    with browser(tmp_path) as tab:
        tab.open(page_address)
        wait(lambda: "make it" in tab.text(), "the page")
        tab.click("make it")
        wait(lambda: ", done" in tab.run(STATE) or "error" in tab.run(STATE), "the run", 1.0)
        assert ", done" in tab.run(STATE), tab.run(STATE)
        link = "[...document.querySelectorAll('a')].map(a => a.href).find(h => h.endsWith('.glb')) || ''"
        address = wait(lambda: tab.run(link), "the link to the GLB")
        script = "fetch(%s).then(r => r.arrayBuffer()).then(b => String.fromCharCode(...new Uint8Array(b, 0, 4)))"
        assert tab.run(script % json.dumps(address)) == "glTF"
        assert wait(lambda: tab.run("document.querySelectorAll('img').length"), "pictures") >= 1


@pytest.mark.slow
def test_a_browser_cancels_and_one_that_closes_keeps_nobody_waiting(tmp_path, page_address, stand_in):
    def saved():
        return len(list(tmp_path.rglob("saved")))

    with browser(tmp_path / "first") as tab:
        tab.open(page_address)
        wait(lambda: "make it" in tab.text(), "the page")
        tab.click("make it")
        wait(lambda: "step 50" in tab.run(STATE), "the run")
        tab.click("cancel")
        wait(lambda: "cancelled" in tab.run(STATE), "the state to tell of it")
        assert saved() == 1
        tab.click("make it")
        wait(lambda: "step 50" in tab.run(STATE), "the second run")
    wait(lambda: saved() == 2, "the run of a closed page to end")

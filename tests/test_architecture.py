"""ARCHITECTURE.md, checked: what may import what, no questions about another kind's type, one meaning for a name."""

from __future__ import annotations

import ast
import os
import re
import sys
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from types import FrameType, SimpleNamespace

import pytest
import pytorch_lightning as pl
from system_doubles import make_trainer, tiny_data, tiny_system
from tiny_pipelines import embedded

import distill3d
from distill3d.config.files import PROJECT

PACKAGE = Path(distill3d.__file__).parent
GROUND = {"config", "runtime", "types", "camera", "light"}
# rooms that each room may import, beside itself; what is finer than a room is in EXCEPTIONS
MAY_IMPORT = {
    "config": {"runtime"},
    "runtime": {"config", "types"},
    "optim": {"config"},
    "scenes": GROUND,
    "priors": GROUND,
    "guidance": GROUND | {"priors"},
    "data": GROUND | {"scenes"},
    "export": GROUND | {"scenes"},
    "embedded": GROUND | {"scenes", "priors", "guidance", "data", "optim", "evaluation"},
    "evaluation": GROUND | {"scenes", "priors", "data", "sweep"},
    "sweep": GROUND | {"priors", "guidance"},
    "viewer": GROUND | {"evaluation"},
    "systems": GROUND | {"scenes", "priors", "guidance", "data", "optim", "export"},
}
EXCEPTIONS = {
    ("config.schema", "scenes.nerf.field"),  # the names of encodings, which are types within a type
    ("config.validate", "optim.groups"),  # the arguments that an optimiser takes
    ("config.validate", "optim.schedulers"),
    ("embedded.prior_training", "systems.model_training"),  # what all trainings of models share
    ("embedded.judge_training", "systems.model_training"),
    ("evaluation.judges", "embedded.judge"),  # the network of the shipped judge
    ("evaluation.retrieval", "embedded.judge"),
    ("evaluation.samples", "embedded.prior_report"),  # the sampler of the shipped prior
    ("priors.empirical", "data.posed.files"),  # a prior whose weights are a data set
    ("priors.empirical", "data.posed.images"),
    ("priors.empirical", "data.posed.transforms_json"),
    ("scenes.painted_mesh", "data.mesh_file"),  # a scene that starts from a file
    ("scenes.splats.sources", "data.mesh_file"),  # a scene that begins with somebody's mesh
    ("export.preview", "evaluation.metrics"),  # PSNR and SSIM: functions of two pictures
    ("systems.image_to_3d", "evaluation.metrics"),
    ("systems.svg_edit", "evaluation.metrics"),
    ("systems.scene_edit", "evaluation.metrics"),
    ("systems.nerf_reconstruction", "evaluation.metrics"),
}
AXES = re.compile(r"\b(scene|renderer|geometry|material|background|prior|guidance)\b")


def modules() -> dict[str, Path]:
    names = {path: ".".join(path.relative_to(PACKAGE).with_suffix("").parts) for path in PACKAGE.rglob("*.py")}
    return {name.removesuffix(".__init__"): path for path, name in names.items()}


def imported(path: Path) -> Iterator[str]:
    """Modules of the package that a file imports, also inside functions."""
    known = modules()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        names: list[str] = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            names = [f"{node.module}.{alias.name}" for alias in node.names]
        for name in names:
            inner = name.removeprefix("distill3d.")
            if inner != name:
                yield inner if inner in known else inner.rpartition(".")[0]


@pytest.mark.parametrize("room", MAY_IMPORT)
def test_a_room_imports_what_the_drawing_lets_it(room):
    files = {name: path for name, path in modules().items() if name.split(".")[0] == room}
    assert files
    allowed = MAY_IMPORT[room] | {room, ""}
    strange = {
        (name, other)
        for name, path in files.items()
        for other in imported(path)
        if other.split(".")[0] not in allowed and (name, other) not in EXCEPTIONS
    }
    assert strange == set()


def test_every_room_of_the_package_is_in_the_table_and_in_the_document():
    rooms = {path.name for path in PACKAGE.iterdir() if (path / "__init__.py").is_file()}
    assert rooms == {*MAY_IMPORT, "verbs"}
    text = (PROJECT / "ARCHITECTURE.md").read_text(encoding="utf-8")
    assert all(f"    {room}/" in text for room in rooms)


def test_the_exceptions_are_needed():
    known = modules()
    assert {(name, other) for name, other in EXCEPTIONS if other not in set(imported(known[name]))} == set()


def test_the_files_that_the_document_names_exist_and_a_step_is_read_in_ten():
    text = (PROJECT / "ARCHITECTURE.md").read_text(encoding="utf-8")
    links = re.findall(r"\]\(([^)]+)\)", text)
    assert links and [link for link in links if not (PROJECT / link).exists()] == []
    step = text.partition("## One SDS step")[2].partition("## Rooms")[0]
    assert 0 < len(re.findall(r"^\d+\. ", step, re.M)) <= 10


def test_no_room_asks_what_kind_another_axis_is():
    """hasattr, and getattr with something to fall back on: interfaces are declared, with no-op defaults."""
    asked = set()
    for name, path in modules().items():
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if not (isinstance(node, ast.Call) and isinstance(node.func, ast.Name)):
                continue
            is_probe = node.func.id == "hasattr" or (node.func.id == "getattr" and len(node.args) == 3)
            if is_probe and AXES.search(ast.unparse(node.args[0])):
                asked.add(f"{name}: {ast.unparse(node)}")
    assert asked == set()


def test_a_name_means_one_thing():
    where = defaultdict(set)
    for name, path in modules().items():
        for node in ast.parse(path.read_text(encoding="utf-8")).body:
            found = node.name if isinstance(node, ast.ClassDef) else None
            if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name):
                found = node.targets[0].id
            if found and re.fullmatch(r"[A-Z][a-z]\w*", found):
                where[found].add(name)
    assert {name: places for name, places in where.items() if len(places) > 1} == {}


def test_every_file_that_an_sds_step_runs_is_named(tmp_path):
    prior = {"pretrained_model_name_or_path": str(embedded(tmp_path / "prior"))}
    system = tiny_system(
        prompt_processor_type="prompt-processor",
        prompt_processor={"prompt": "a ball", "cache_dir": str(tmp_path / "cache")},
        prior_type="pretrained-diffusion-model",
        prior=prior,
        geometry={"pos_encoding_config": {"otype": "HashGrid"}},
        loss={"lambda_opaque": 1.0},
    )
    ran: set[str] = set()

    def note(frame: FrameType, event: str, _: object) -> None:
        if event == "call" and frame.f_code.co_filename.startswith(f"{PACKAGE}{os.sep}"):
            ran.add(Path(frame.f_code.co_filename).relative_to(PACKAGE).as_posix())

    class Watch(pl.Callback):
        def on_train_batch_start(self, trainer: pl.Trainer, system: object, batch: object, index: int) -> None:
            if index == 1:  # the last one also writes a checkpoint
                sys.setprofile(note)

        def on_train_batch_end(self, *_: object) -> None:
            sys.setprofile(None)

    system.attach(SimpleNamespace(root=tmp_path))
    trainer = make_trainer(tmp_path, 3)
    trainer.callbacks.append(Watch())
    trainer.fit(system, tiny_data())
    text = (PROJECT / "ARCHITECTURE.md").read_text(encoding="utf-8")
    section = text.partition("## One SDS step")[2].partition("\n## ")[0]
    ten = re.findall(r"^\d+\. \[(.+?)\]", section, re.MULTILINE)
    assert len(ten) <= 10 and set(ten) <= ran
    named = [*ten, *re.findall(r"`([\w/]+(?:\.py|/))`", section)]
    assert [path for path in sorted(ran) if not any(f"/{name}" in f"/{path}" for name in named)] == []

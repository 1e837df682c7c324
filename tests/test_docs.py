"""README and docs/: short, with links, configs and settings that exist; the reference has every setting."""

from __future__ import annotations

import contextlib
import dataclasses
import html
import io
import json
import re
import shlex
from functools import cache
from pathlib import Path

import markdown
import pytest

from distill3d.cli import main
from distill3d.config.experiment import Experiment, load
from distill3d.config.files import EMBEDDED_WEIGHTS, PROJECT, find_config
from distill3d.config.reference import configs_page, fields_of, guidances_page, prose, settings_page
from distill3d.config.registry import KINDS, registered
from distill3d.embedded.captions import COLORS, MATERIALS, SYNONYMS
from distill3d.priors.settings import PriorConfig
from distill3d.runtime.word_list import taught_nouns, taught_words

PAGES = [PROJECT / name for name in ("README.md", "CONTRIBUTING.md", "CHANGELOG.md")] + sorted(
    (PROJECT / "docs").glob("*.md")
)
GENERATED = {"settings.md", "configs.md", "guidances.md"}
LINK = re.compile(r"\]\(([^)#\s]+)(?:#[^)]*)?\)")
SETTING = re.compile(r"(?<![\w./-])((?:system|data)\.[a-z_0-9]+(?:\.[a-z_0-9]+)*)=")
CONFIG = re.compile(r"--config (\S+\.yaml)")


SCRIPT = re.compile(r"(?<![\w/])(benchmarks/\w+\.(?:py|sh))((?:\\\n|[^`\n#])*)")
LAUNCH = re.compile(r"(?:python launch\.py|^ *distill3d)((?: (?:\\\n|[^`\n#])*)?)", re.MULTILINE)
FLAG = re.compile(r"(?<=\s)--([a-z][a-z-]*)")
GIVEN = re.compile(r"`([a-z]\w*)=[^`]*`")


def ids(path: Path) -> str:
    return path.name


@cache
def known_settings() -> set[str]:
    names: set[str] = set()
    for kind in KINDS:
        for cls in registered(kind).values():
            own = {setting.name for setting in fields_of(cls.Config)}  # type: ignore[attr-defined]
            where = kind if kind in ("data", "system") else f"system.{kind}"
            names |= {f"{where}.{name}" for name in own}
    return names


def source_of(script: str) -> str:
    """The text of a benchmark, and of those beside it that it imports or starts."""
    text = (PROJECT / "benchmarks" / script).read_text(encoding="utf-8")
    names = re.findall(r"^(?:from|import) (\w+)", text, re.MULTILINE) + re.findall(r"benchmarks/(\w+)\.py", text)
    others = [PROJECT / "benchmarks" / f"{name}.py" for name in names if f"{name}.py" != script]
    return text + "".join(path.read_text(encoding="utf-8") for path in others if path.is_file())


@cache
def launch_options() -> set[str]:
    """What ``--help`` shows."""
    shown = io.StringIO()
    with contextlib.redirect_stdout(shown), contextlib.suppress(SystemExit):
        main(["--help"])
    return set(re.findall(r"--([a-z][a-z-]*)", shown.getvalue()))


def is_known(name: str) -> bool:
    """Whether it is a setting, holds settings, or lies in a setting that is a mapping."""
    known = known_settings()
    return name in known or any(k.startswith(f"{name}.") or name.startswith(f"{k}.") for k in known)


def test_the_readme_is_short_and_its_first_command_makes_an_object():
    text = (PROJECT / "README.md").read_text(encoding="utf-8")
    assert len(text.split()) < 1300
    commands = [line for line in text.splitlines() if line.startswith("    ")]
    assert commands[0].split()[:2] == ["make", "demo"]


@pytest.mark.parametrize("page", PAGES, ids=ids)
def test_links_lead_to_files(page):
    links = [link for link in LINK.findall(page.read_text(encoding="utf-8")) if "://" not in link]
    assert not [link for link in links if not (page.parent / link).exists() and Path(link).name not in GENERATED]


@pytest.mark.parametrize("page", PAGES, ids=ids)
def test_configs_and_settings_that_pages_name_exist(page):
    text = page.read_text(encoding="utf-8")
    own = ("my.yaml", "THEIRS.yaml", "NAME.yaml")
    for name in CONFIG.findall(text):
        if name not in own and not name.startswith(("TRIAL/", "outputs/")):
            assert (PROJECT / name).is_file() or find_config(name, beside=PROJECT / "configs")
    assert not {name for name in SETTING.findall(text) if not is_known(name)}


@pytest.mark.parametrize("page", PAGES, ids=ids)
def test_commands_that_pages_name_have_these_options(page):
    text = page.read_text(encoding="utf-8")
    for script, rest in SCRIPT.findall(text):
        source = source_of(Path(script).name)
        assert not [flag for flag in FLAG.findall(rest) if f'"--{flag}"' not in source], script
    options = launch_options()
    assert not [flag for rest in LAUNCH.findall(text) for flag in FLAG.findall(rest) if flag not in options]


def test_commands_of_real_models_can_be_read_whole():
    """Experiments of the pages on models and splats pass the checks of a launch, but for files of the reader's."""
    commands = []
    for page in ("models.md", "splats.md"):
        for rest in LAUNCH.findall((PROJECT / "docs" / page).read_text(encoding="utf-8")):
            words = shlex.split(rest.replace("\\\n", " "))
            if "--config" in words:
                commands.append((words[words.index("--config") + 1], [word for word in words if "=" in word]))
    assert len(commands) > 12
    for config, settings in commands:
        load(config, settings)


def test_settings_of_the_prior_that_the_page_on_models_gives_exist():
    given = GIVEN.findall((PROJECT / "docs/models.md").read_text(encoding="utf-8"))
    fields = {field.name for field in dataclasses.fields(PriorConfig)}
    assert len(given) > 8 and set(given) <= fields


def test_the_reference_has_every_setting_of_every_type():
    sections = re.split(r"^### ", settings_page(), flags=re.MULTILINE)
    by_name = {section.partition("\n")[0]: section for section in sections[1:]}
    for kind in KINDS:
        for name, cls in registered(kind).items():
            for field in dataclasses.fields(cls.Config):  # type: ignore[attr-defined]
                assert not field.init or f"| `{field.name}" in by_name[name], f"{name}.{field.name}"
    assert {f.name for f in dataclasses.fields(Experiment)} <= set(re.findall(r"\| `(\w+)`", sections[0]))


def test_a_comment_beside_a_field_or_above_it_is_its_explanation():
    @dataclasses.dataclass
    class Inner:
        depth: int = 3  # how deep

    @dataclasses.dataclass
    class Config:
        width: int = 2  # in pixels
        # of both sides:
        # the larger one
        height: int | None = None
        inner: Inner = dataclasses.field(default_factory=Inner)
        plain: float = 1e-3

    shown = {setting.name: (setting.type, setting.default, setting.comment) for setting in fields_of(Config)}
    assert shown == {
        "width": ("int", "2", "in pixels"),
        "height": ("int | None", "None", "of both sides: the larger one"),
        "inner.depth": ("int", "3", "how deep"),
        "plain": ("float", "0.001", ""),
    }


@pytest.mark.parametrize("text", ["c(t) [w (eps_y - eps_0)]", "a*b*c", "`x_y*z*` and _t_ < 2 |s|", "``[a](b)``"])
def test_equations_come_out_of_markdown_as_they_went_in(text):
    shown = re.sub(r"<[^>]*>", "", markdown.markdown(prose(text)))
    assert html.unescape(shown) == text.replace("`", "")


def test_every_config_and_guidance_is_listed():
    page = configs_page()
    paths = [path.relative_to(PROJECT / "configs").as_posix() for path in (PROJECT / "configs").rglob("*.yaml")]
    assert paths and all(f"| `{path}` |" in page for path in paths)
    assert all(f"## {name}\n" in guidances_page() for name in registered("guidance"))


def test_the_page_on_the_embedded_model_has_its_nouns_colours_and_materials():
    page = (PROJECT / "docs/embedded.md").read_text(encoding="utf-8")
    cells = re.findall(r"^\| [a-z ]+ \| (.*) \|$", page, flags=re.MULTILINE)
    entries = [entry for cell in cells for entry in re.findall(r"([^,(]+?)(?: \(([^)]*)\))?(?:, |$)", cell)]
    listed = {noun: set(others.split(", ")) - {""} for noun, others in entries}
    assert listed == {noun: set(SYNONYMS.get(noun, ())) for noun in taught_nouns(EMBEDDED_WEIGHTS)}
    lists = {line.removeprefix("- ") for line in page.splitlines()}
    assert {", ".join(COLORS), ", ".join(MATERIALS)} <= lists
    assert set(COLORS) | set(MATERIALS) <= taught_words(EMBEDDED_WEIGHTS)  # type: ignore[operator]


def test_the_notebook_makes_an_object(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("DISTILL3D_TRIAL", raising=False)
    cells = json.loads((PROJECT / "docs/first_object.ipynb").read_text(encoding="utf-8"))["cells"]
    names: dict[str, object] = {}
    for source in ("".join(cell["source"]) for cell in cells if cell["cell_type"] == "code"):
        exec(source.replace("STEPS = 350", "STEPS = 2"), names)
    assert names["STEPS"] == 2 and names["metrics"]["steps"] == 2  # type: ignore[index]
    assert len(names["mesh"].faces) > 0  # type: ignore[attr-defined]

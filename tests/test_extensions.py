import sys

import pytest

from distill3d.config.check import ConfigError
from distill3d.runtime.extensions import import_extensions


@pytest.fixture(autouse=True)
def folder(tmp_path):
    before = set(sys.modules)
    yield tmp_path / "custom"
    for name in set(sys.modules) - before:
        if name.startswith("distill3d_custom"):
            del sys.modules[name]


def write(path, text=""):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


def test_packages_and_files_are_imported_and_disabled_ones_are_not(folder):
    write(folder / "one" / "__init__.py", "from .part import value")
    write(folder / "one" / "part.py", "value = 1")
    write(folder / "two.py")
    for name in (
        "three_disabled/__init__.py",
        "four_disabled.py",
        ".five/__init__.py",
        "__pycache__/x.py",
        "data/x.yaml",
    ):
        write(folder / name, "raise RuntimeError")
    assert import_extensions([folder]) == ["one", "two"]
    assert sys.modules["distill3d_custom.one"].value == 1


def test_no_folder_is_no_error(folder):
    assert import_extensions([folder]) == []


def test_each_is_imported_once(folder):
    write(folder / "counted.py", "import sys; sys.modules.setdefault('distill3d_custom_count', []).append(1)")
    import_extensions([folder])
    import_extensions([folder, folder])
    assert sys.modules["distill3d_custom_count"] == [1]


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("import a_module_that_is_not_there", "ModuleNotFoundError: No module named 'a_module_that_is_not_there'"),
        ("x = ", "SyntaxError: invalid syntax"),
        ("raise ValueError('mine')", "ValueError: mine"),
    ],
)
def test_an_error_names_the_file_and_stops(folder, text, reason):
    write(folder / "broken.py", text)
    with pytest.raises(ConfigError) as caught:
        import_extensions([folder])
    assert f"extension {folder / 'broken.py'} cannot be imported: {reason}" in str(caught.value)
    assert "broken_disabled" in str(caught.value)
    assert "distill3d_custom.broken" not in sys.modules

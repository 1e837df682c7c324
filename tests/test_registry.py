import subprocess
import sys

import pytest

from distill3d.config.registry import KINDS, ROOMS, UnknownTypeError, find, import_rooms, register, registered


def test_an_unknown_name_gives_the_nearest_and_the_setting():
    with pytest.raises(UnknownTypeError, match=r"^system\.geometry_type='implict-volume' .* 'implicit-volume'\?$"):
        find("geometry", "implict-volume", "system.geometry_type")
    with pytest.raises(UnknownTypeError, match=r"known: .*implicit-volume"):
        find("geometry", "qqq")


def test_a_name_is_registered_once():
    with pytest.raises(ValueError, match="'implicit-volume' is registered twice"):

        @register("geometry", "implicit-volume")
        class Other:
            pass


def test_registering_the_same_class_again_is_no_conflict():
    cls = find("geometry", "implicit-volume")
    assert register("geometry", "implicit-volume")(cls) is cls


def test_an_unknown_kind_is_refused():
    with pytest.raises(ValueError, match="kind 'shape' is unknown"):
        register("shape", "x")  # type: ignore[arg-type]


def test_every_type_has_checked_settings_and_a_line_for_the_list():
    from dataclasses import is_dataclass

    from distill3d.config.listing import first_line

    for kind in KINDS:
        for name, cls in registered(kind).items():
            assert is_dataclass(cls.Config), (kind, name)  # type: ignore[attr-defined]
            assert first_line(cls).endswith("."), (kind, name)


def test_each_type_is_registered_by_what_is_imported_for_its_kind():
    import_rooms()
    for kind in KINDS:
        modules = [cls.__module__ for cls in registered(kind).values() if cls.__module__.startswith("distill3d.")]
        rooms = {f"distill3d.{room}" for room in ROOMS[kind]}
        assert modules and all(rooms & {module, module.rpartition(".")[0]} for module in modules), kind


def test_importing_every_room_leaves_heavy_libraries_alone():
    # what Lightning's torchmetrics imports where it is installed (matplotlib, transformers) is nobody's fault here
    heavy = "diffusers trimesh matplotlib skimage xatlas numba wandb"
    code = (
        "import sys, pytorch_lightning; brought = set(sys.modules); "
        "from distill3d.config.registry import import_rooms; import_rooms(); "
        f"print([name for name in '{heavy}'.split() if name in sys.modules and name not in brought])"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "[]\n"

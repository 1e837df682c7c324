"""What is read from sources is what importing them registers."""

import dataclasses

import pytest

from distill3d.config import registry
from distill3d.config.check import ConfigError
from distill3d.config.declared import declared_types
from distill3d.config.experiment import check_early, load
from distill3d.config.files import PROJECT, SHIPPED_CONFIGS
from distill3d.config.listing import first_line
from distill3d.config.registry import KINDS, registered
from distill3d.runtime.extensions import extension_files, import_extensions

CUSTOM = [PROJECT / "custom"]


@pytest.fixture(autouse=True)
def no_types_of_other_tests(monkeypatch):
    """Of this process, only what the package and custom/ register."""
    registry.import_rooms()
    import_extensions(CUSTOM)
    for kind, types in registry._types.items():
        own = {name: cls for name, cls in types.items() if cls.__module__.startswith("distill3d")}
        monkeypatch.setitem(registry._types, kind, own)


def test_sources_declare_what_imports_register():
    found = declared_types(extension_files(CUSTOM))
    assert found is not None
    for kind in KINDS:
        types = registered(kind)
        assert list(found[kind]) == list(types)
        for name, cls in types.items():
            settings = [field.name for field in dataclasses.fields(cls.Config)]  # type: ignore[attr-defined]
            assert (found[kind][name].summary, list(found[kind][name].settings or {})) == (first_line(cls), settings)


@pytest.mark.parametrize(
    "text",
    ["from .part import *", "register('guidance', NAME)(SDS)", "@register('guidance', NAME)\nclass A: ...", "x ="],
)
def test_an_extension_that_registers_in_another_way_is_left_to_the_import(text, tmp_path):
    path = tmp_path / "own.py"
    path.write_text(text)
    assert declared_types([path]) is None


def test_a_type_whose_settings_are_not_certain_is_left_to_the_whole_check(tmp_path):
    path = tmp_path / "own.py"
    path.write_text("@register('guidance', 'own')\nclass Own:\n    class Config(somewhere.Else): ...")
    found = declared_types([path])
    assert found is not None and found["guidance"]["own"].settings is None
    check_early("dreamfusion", ["system.guidance_type=own", "system.guidance.anything=1"], [path])


@pytest.mark.parametrize(
    "config", sorted(path.relative_to(SHIPPED_CONFIGS) for path in SHIPPED_CONFIGS.rglob("*.yaml"))
)
def test_the_early_check_says_what_the_whole_one_says(config):
    def said(check, *settings):
        try:
            check(config, settings)
        except ConfigError as error:
            return str(error)
        return ""

    assert said(check_early) in ("", said(load))
    for wrong in ("system.nosuch=1", "data.nosuch=1", "system_type=nosuch"):
        early, whole = said(check_early, wrong), said(load, wrong)
        assert early and (early == whole or "missing" in whole)  # the whole check asks for what is missing first


def test_a_setting_of_another_type_is_no_mistake():
    check_early("dreamfusion", ["system.guidance.k=1", "system.guidance_type=sds"], extension_files(CUSTOM))
    check_early("lmc/corrective", ["system.guidance_type=unused"])


def test_types_that_a_program_registers_itself_are_left_to_the_whole_check(monkeypatch):
    monkeypatch.setitem(registry._types["guidance"], "own", object)
    check_early("dreamfusion", ["system.guidance_type=own", "system.guidance.anything=1"])


def test_a_type_that_is_no_name_is_left_to_the_whole_check():
    check_early("dreamfusion", ["system.guidance_type=[sds]"])
    with pytest.raises(ConfigError, match="guidance_type="):
        load("dreamfusion", ["system.guidance_type=[sds]"])

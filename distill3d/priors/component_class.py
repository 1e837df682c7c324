"""Which classes a model's folder may name: code of unknown origin is never reached through a model_index.json.

A library's name is not enough: diffusers has classes that run Python files of the folder they are given. So each
component's class must be one of its own kind, by name and by its bases.
"""

from __future__ import annotations

import importlib
from typing import Any

# where classes may come from
_LIBRARIES = {
    "diffusers": "diffusers",
    "transformers": "transformers",
    "distill3d": "distill3d.embedded.network",
}
# by how a component's name begins: what its class must derive from (module, name)
_BASES: tuple[tuple[str, tuple[tuple[str, str], ...]], ...] = (
    ("scheduler", (("diffusers.schedulers.scheduling_utils", "SchedulerMixin"),)),
    ("tokenizer", (("transformers", "PreTrainedTokenizerBase"),)),
    ("text_encoder", (("transformers", "PreTrainedModel"),)),
    ("image_encoder", (("transformers", "PreTrainedModel"),)),
    ("", (("diffusers", "ModelMixin"),)),
)


def component_class(component: str, entry: Any) -> Any:
    """The class that ``[library, name]`` of a model_index.json means for a component.

    Raises ValueError for an entry of another form, an unknown library, and a class of another kind.
    """
    if not (isinstance(entry, list) and len(entry) == 2 and all(isinstance(word, str) for word in entry)):
        raise ValueError(f"{component} is {str(entry)[:60]!r}, which is not supported; expected [library, class]")
    library, name = entry
    module = _LIBRARIES.get(library)
    if module is None or not name.isidentifier() or name.startswith("_"):
        raise ValueError(
            f"{component} is {library}.{name}, which is not supported; supported libraries: {', '.join(_LIBRARIES)}"
        )
    cls = getattr(importlib.import_module(module), name, None)
    if not isinstance(cls, type):
        raise ValueError(f"{component} is {library}.{name}, which is not supported")
    if library != "distill3d" and not issubclass(cls, _bases(component)):
        raise ValueError(f"{component} is {library}.{name}, which is no class of a {component} and is not loaded")
    if library == "distill3d" and cls.__module__ != module:
        raise ValueError(f"{component} is distill3d.{name}, which is not a network of the embedded prior")
    return cls


def _bases(component: str) -> tuple[type, ...]:
    names = next(bases for prefix, bases in _BASES if component.startswith(prefix))
    return tuple(getattr(importlib.import_module(module), name) for module, name in names)

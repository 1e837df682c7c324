"""Which parts of a model are in memory at once: memory is what large text encoders and networks compete for."""

from __future__ import annotations

import weakref
from typing import Any

import pytest

from distill3d.priors.model_folder import ModelFolder


class InMemory:
    """Which text encoders and networks of a prior are in memory, whenever one more is loaded."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.models: weakref.WeakSet[Any] = weakref.WeakSet()
        self.moments: list[list[str]] = []  # what was there after each load
        load = ModelFolder.load_module

        def counted(folder: ModelFolder, component: str, *args: Any) -> Any:
            model = load(folder, component, *args)
            model.counted_as = component
            self.models.add(model)
            self.moments.append(self.names())
            return model

        monkeypatch.setattr(ModelFolder, "load_module", counted)

    def names(self) -> list[str]:
        return sorted(model.counted_as for model in self.models)

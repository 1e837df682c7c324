"""What all tests share: the same examples of properties each time, and a fixture that counts text encoders."""

import logging
import weakref

import pytest
from hypothesis import HealthCheck, settings

settings.register_profile("distill3d", deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("distill3d")


@pytest.fixture(autouse=True)
def no_earlier_warnings() -> None:
    """What another test was warned of is in no metrics.json of this one."""
    from distill3d.runtime.logs import forget_warnings

    forget_warnings()


@pytest.fixture
def built(monkeypatch: pytest.MonkeyPatch) -> list[weakref.ref]:
    """Every text encoder that is built for embeddings while the test runs."""
    from distill3d.priors import loader

    encoders: list[weakref.ref] = []
    build = loader.load_prompt_encoder

    def load(*args: object) -> object:
        encoder = build(*args)  # type: ignore[arg-type]
        encoders.append(weakref.ref(encoder))
        return encoder

    monkeypatch.setattr(loader, "load_prompt_encoder", load)
    return encoders


@pytest.fixture
def restore_logging():
    """Undo what a run did to the log of the package."""
    root = logging.getLogger("distill3d")
    before = (root.propagate, root.level)
    yield
    for handler in root.handlers[:]:
        root.removeHandler(handler)
        handler.close()
    root.propagate = before[0]
    root.setLevel(before[1])

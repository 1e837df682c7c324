"""torch.compile changes no value, and its failure ends no run. No test needs a compiler."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

import pytest
import torch
from tiny_pipelines import TinyFolders, stable_diffusion

from distill3d.priors.compiled import Compiled, compiled
from distill3d.priors.loader import PriorConfig, PriorError, load_prior, load_prompt_encoder
from distill3d.types import Pass

# one block down and one up are every kind of layer, and a third of the time that torch.compile takes to read them
ONE_BLOCK = {
    "block_out_channels": (8,),
    "down_block_types": ("CrossAttnDownBlock2D",),
    "up_block_types": ("CrossAttnUpBlock2D",),
    "mid_block_type": None,
}


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> TinyFolders:
    root = tmp_path_factory.mktemp("tiny")
    stable_diffusion(root / "stable-diffusion", **ONE_BLOCK)
    return TinyFolders(root)


class Backend:
    """A backend of torch.compile that runs the graphs as they are, or fails as one without a compiler does."""

    def __init__(self, error: str | None = None) -> None:
        self.error, self.compiled, self.runs = error, 0, 0

    def __call__(self, graph: torch.fx.GraphModule, inputs: list[Any]) -> Any:
        self.compiled += 1
        if self.error is not None:
            raise RuntimeError(self.error)

        def run(*args: Any) -> Any:
            self.runs += 1
            return graph.forward(*args)

        return run


@pytest.fixture(autouse=True)
def forget_compiled() -> Any:
    yield
    torch.compiler.reset()


def with_backend(
    monkeypatch: pytest.MonkeyPatch, backend: Callable[..., Any], instead: Callable[..., Any] | None = None
) -> None:
    """torch.compile takes this backend, and another function too: a compiler that fails need not read a network."""
    compile = torch.compile
    monkeypatch.setattr(torch, "compile", lambda function, **_: compile(instead or function, backend=backend))


def evaluate(cfg: PriorConfig) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """x of two images, the gradient of its energy with respect to them, and the denoised x; twice, for the cache."""
    prior = load_prior(cfg, "cpu")
    generator = torch.Generator().manual_seed(0)
    rgb = torch.rand(2, 3, 32, 32, generator=generator, requires_grad=True)
    text = load_prompt_encoder(cfg, "cpu")(["a cat", ""])
    for _ in range(2):
        x = prior.encode(rgb)
        (gradient,) = torch.autograd.grad(x.square().sum(), rgb)
        noise = torch.randn(x.shape, generator=torch.Generator().manual_seed(1))
        x0 = prior.predict([Pass(x.detach() + noise, torch.tensor([100, 900]), text)])[0].x0
    return x.detach(), gradient, x0


@pytest.mark.parametrize(("kind", "parts"), [("stable-diffusion", 2), ("embedded", 1)])
def test_values_and_gradients_are_those_of_uncompiled(
    folders: TinyFolders, kind: str, parts: int, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Of the network, and of a latent model's encoder, which has its checkpoints in the compiled graph."""
    expected = evaluate(folders.config(kind))
    backend = Backend()
    with_backend(monkeypatch, backend)
    with caplog.at_level(logging.WARNING):
        found = evaluate(folders.config(kind, compile=True, vae_checkpointing=True))
    for name, a, b in zip(("x", "gradient", "x0"), found, expected, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-6, msg=lambda text, name=name: f"{name}: {text}")
    assert backend.runs > backend.compiled >= parts
    assert "uncompiled" not in caplog.text


def test_a_compiler_that_fails_is_a_warning_and_no_end(
    folders: TinyFolders, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    expected = evaluate(folders.config("stable-diffusion"))
    backend = Backend("No working C++ compiler found")
    with_backend(monkeypatch, backend, instead=lambda *_, **__: torch.ones(2) + 1)
    with caplog.at_level(logging.WARNING):
        found = evaluate(folders.config("stable-diffusion", compile=True))
    assert all(torch.equal(a, b) for a, b in zip(found, expected, strict=True))
    assert backend.compiled == 2  # once for each part, not once for each call
    warnings = [record.getMessage() for record in caplog.records if "uncompiled" in record.getMessage()]
    assert [message.split(" runs ")[0] for message in warnings] == [
        "system.prior.compile=true: the VAE's encoder",
        "system.prior.compile=true: the network",
    ]
    for message in warnings:
        assert "RuntimeError: No working C++ compiler found" in message and "system.prior.compile=false" in message


def test_a_compiler_that_fails_on_the_backward_pass_alone_ends_no_run(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    from torch._dynamo.backends.common import aot_autograd

    passes: list[str] = []

    def forward(graph: torch.fx.GraphModule, _: list[Any]) -> Any:
        passes.append("forward")
        return graph.forward

    def backward(graph: torch.fx.GraphModule, _: list[Any]) -> Any:
        passes.append("backward")
        raise RuntimeError("out of shared memory")

    with_backend(monkeypatch, aot_autograd(fw_compiler=forward, bw_compiler=backward))
    function, x = Compiled(torch.sin, "the network", "inductor"), torch.ones(2, requires_grad=True)
    with torch.no_grad():
        assert torch.equal(function(x), x.sin()) and passes == ["forward"]
    with caplog.at_level(logging.WARNING):
        for _ in range(2):
            (gradient,) = torch.autograd.grad(function(x).sum(), x)
            assert torch.equal(gradient, x.detach().cos())
    assert passes == ["forward", "forward", "backward"]
    assert caplog.text.count("the network runs uncompiled") == 1 and "out of shared memory" in caplog.text


def test_errors_of_the_function_itself_pass_through() -> None:
    def wrong(x: torch.Tensor) -> torch.Tensor:
        return x.view(3, 5)

    with pytest.raises(RuntimeError, match="shape '\\[3, 5\\]' is invalid") as caught:
        Compiled(wrong, "a function", "eager")(torch.zeros(4))
    assert type(caught.value) is RuntimeError  # as the uncompiled function raises it


def test_the_backend_is_a_setting(folders: TinyFolders) -> None:
    double = compiled(lambda x: 2 * x, "a function", PriorConfig(compile=True, compile_backend="eager"))
    assert torch.equal(double(torch.ones(2)), torch.full((2,), 2.0))
    with pytest.raises(PriorError, match=r"compile_backend='indoctor' is no backend .*inductor"):
        load_prior(folders.config("embedded", compile=True, compile_backend="indoctor"), "cpu")


def test_nothing_is_compiled_unless_asked(folders: TinyFolders, monkeypatch: pytest.MonkeyPatch) -> None:
    backend = Backend("never called")
    with_backend(monkeypatch, backend)
    evaluate(folders.config("stable-diffusion"))
    assert backend.compiled == 0


def test_an_adapter_acts_under_compilation(folders: TinyFolders, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its hooks are set after compilation, so its passes take the network as it is."""
    calls: list[Any] = []
    monkeypatch.setattr(torch, "compile", lambda function, **_: lambda *args, **kw: calls.append(function))
    cfg = folders.config("stable-diffusion")
    text, z = load_prompt_encoder(cfg, "cpu")(["a cat"]), torch.randn(1, 4, 16, 16)
    noises = []
    for compile in (False, True):
        prior = load_prior(folders.config("stable-diffusion", compile=compile), "cpu")
        adapter = prior.make_adapter(rank=2)  # type: ignore[attr-defined]
        with torch.no_grad():
            for parameter in adapter.parameters():
                parameter.fill_(0.1)
        noises.append(prior.predict([Pass(z, torch.tensor([500]), text, adapter)])[0].noise)
    assert calls == [] and torch.equal(*noises)
    with pytest.raises(AttributeError):  # while a pass without one takes the compiled network, here a double
        prior.predict([Pass(z, torch.tensor([500]), text)])
    assert calls == [prior.network]  # type: ignore[attr-defined]

"""Models of the Hub: the cache, revisions, what is fetched, and what the errors say when one is gone or gated."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from tiny_pipelines import TinyFolders

from distill3d.priors.hub import MIRRORS, PriorError
from distill3d.priors.loader import (
    PriorConfig,
    load_prior,
    load_prompt_encoder,
    model_identity,
)

SETTING = r"system\.prior\.pretrained_model_name_or_path"


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> TinyFolders:
    return TinyFolders(tmp_path_factory.mktemp("tiny"))


@pytest.fixture
def offline(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """HF_HUB_OFFLINE=1 with an empty cache of its own."""
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    return tmp_path / "hub"


def cached_snapshot(hub: Path, name: str, folder: Path, revision: str = "main") -> Path:
    commit = "0123456789abcdef0123456789abcdef01234567"
    repository = hub / f"models--{name.replace('/', '--')}"
    (repository / "refs").mkdir(parents=True)
    (repository / "refs" / revision).write_text(commit)
    return Path(shutil.copytree(folder, repository / "snapshots" / commit))


def test_offline_mode_reads_the_cache(folders: TinyFolders, offline: Path) -> None:
    cached_snapshot(offline, "owner/model", folders("stable-diffusion"))
    cfg = PriorConfig("owner/model")
    assert load_prior(cfg, "cpu").identity == model_identity(folders.config("stable-diffusion"))
    assert load_prompt_encoder(cfg, "cpu")(["a cat"]).tokens.shape == (1, 16, 32)


def test_a_revision_is_pinned(folders: TinyFolders, offline: Path) -> None:
    cached_snapshot(offline, "owner/model", folders("stable-diffusion"), revision="v2")
    assert load_prior(PriorConfig("owner/model", revision="v2"), "cpu").identity
    with pytest.raises(PriorError, match="offline mode is on"):
        load_prior(PriorConfig("owner/model"), "cpu")


def test_offline_without_the_model(offline: Path) -> None:
    with pytest.raises(PriorError, match=SETTING + r"='owner/model' cannot be fetched .*offline mode is on"):
        load_prior(PriorConfig("owner/model"), "cpu")


def test_a_partial_snapshot(folders: TinyFolders, offline: Path) -> None:
    snapshot = cached_snapshot(offline, "owner/model", folders("stable-diffusion"))
    (snapshot / "vae/diffusion_pytorch_model.safetensors").unlink()
    with pytest.raises(PriorError, match="vae has no safetensors weights"):
        load_prior(PriorConfig("owner/model"), "cpu")


@pytest.mark.parametrize(
    ("files", "message"),
    [
        (
            ["vae/diffusion_pytorch_model.fp16.safetensors"],
            r"files in fp16, and system\.prior\.variant=null asks for others: set system\.prior\.variant=fp16$",
        ),
        (["vae/diffusion_pytorch_model.bin"], r"pickled weights alone.*use_safetensors=False\)\.save_pretrained"),
        (["unet/diffusion_pytorch_model.safetensors"], "no weights of it"),
        (["vae/diffusion_pytorch_model.safetensors"], "the download or copy is incomplete: fetch it again"),
    ],
)
def test_what_a_repository_has_instead_is_read_from_its_list(
    folders: TinyFolders, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, files: list[str], message: str
) -> None:
    """ "Fetch it again" would fetch nothing, for ever."""
    import huggingface_hub

    copy = Path(shutil.copytree(folders("stable-diffusion"), tmp_path / "copy"))
    (copy / "vae/diffusion_pytorch_model.safetensors").unlink()
    monkeypatch.setattr(huggingface_hub, "snapshot_download", lambda *_, **__: str(copy))
    monkeypatch.setattr(huggingface_hub, "list_repo_files", lambda name, revision: files)
    with pytest.raises(PriorError, match=SETTING + r"='owner/model'.*" + message):
        load_prior(PriorConfig("owner/model"), "cpu")


def hub_error(name: str) -> Exception:
    """An error of huggingface_hub as the Hub would cause it; its constructor wants a whole HTTP response."""
    from huggingface_hub import errors

    error = getattr(errors, name).__new__(getattr(errors, name))
    error.args = ("401 Client Error",)
    return error


@pytest.mark.parametrize(
    ("error", "name", "message"),
    [
        (
            "RepositoryNotFoundError",
            "owner/model",
            r"is not on the Hub \(gone, renamed or private\); check the spelling",
        ),
        ("RepositoryNotFoundError", "runwayml/stable-diffusion-v1-5", "stable-diffusion-v1-5/stable-diffusion-v1-5"),
        ("GatedRepoError", "owner/model", "is gated; accept its licence at https://huggingface.co/owner/model"),
        ("RevisionNotFoundError", "owner/model", r"system\.prior\.revision='abc' does not exist"),
        ("HfHubHTTPError", "owner/model", "cannot be fetched .*check the connection"),
    ],
)
def test_errors_of_the_hub(monkeypatch: pytest.MonkeyPatch, error: str, name: str, message: str) -> None:
    import huggingface_hub

    def refuse(*_args: object, **_settings: object) -> str:
        raise hub_error(error)

    monkeypatch.setattr(huggingface_hub, "snapshot_download", refuse)
    with pytest.raises(PriorError, match=message) as caught:
        load_prior(PriorConfig(name, revision="abc" if error.startswith("Rev") else None), "cpu")
    assert "\n" not in str(caught.value)


def test_every_model_that_left_has_its_mirror_named(monkeypatch: pytest.MonkeyPatch) -> None:
    import huggingface_hub

    def refuse(*_args: object, **_settings: object) -> str:
        raise hub_error("RepositoryNotFoundError")

    monkeypatch.setattr(huggingface_hub, "snapshot_download", refuse)
    for gone, mirror in MIRRORS.items():
        with pytest.raises(PriorError, match=f"the same weights are at {mirror}: set {SETTING}={mirror}"):
            load_prior(PriorConfig(gone), "cpu")


def test_only_the_parts_that_are_needed_are_asked_for(folders: TinyFolders, monkeypatch: pytest.MonkeyPatch) -> None:
    import fnmatch

    import huggingface_hub

    asked: list[str] = []

    def fetch(_name: str, revision: str | None, allow_patterns: list[str]) -> str:
        asked.extend(allow_patterns)
        return str(folders("stable-diffusion"))

    monkeypatch.setattr(huggingface_hub, "snapshot_download", fetch)
    load_prior(PriorConfig("owner/model"), "cpu")
    wanted = lambda file: any(fnmatch.fnmatch(file, pattern) for pattern in asked)  # noqa: E731
    assert wanted("unet/diffusion_pytorch_model-00001-of-00002.safetensors") and wanted("vae/config.json")
    for other in (
        "unet/diffusion_pytorch_model.bin",
        "unet/diffusion_pytorch_model.fp16.safetensors",
        "text_encoder/model.safetensors",
        "v2-1_512-ema-pruned.safetensors",
    ):
        assert not wanted(other), other

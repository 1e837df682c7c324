"""The boundary for other people's files: any damage is one error that names the file and the setting."""

import ast
import os
import re
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from distill3d.cli import is_for_the_user
from distill3d.config.check import ConfigError
from distill3d.data.image_folder import caption_of, image_paths, read_image
from distill3d.runtime import foreign
from distill3d.runtime.foreign import ForeignFileError, finite, open_image, read_json_mapping, read_text, reading


def png_that_claims(width, height):
    """A PNG of a few bytes whose header speaks of many pixels."""

    def chunk(kind, data):
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", zlib.compress(b"\0" * 100)) + chunk(b"IEND", b"")


@pytest.mark.parametrize("error", [KeyError("a"), RecursionError(), MemoryError(), IndexError("x"), AssertionError()])
def test_whatever_a_library_raises_is_told_with_file_setting_and_remedy(error, tmp_path):
    with pytest.raises(ForeignFileError) as caught, reading(tmp_path / "a.x", "a thing", "do this", "data.x"):
        raise error
    message = str(caught.value)
    assert message.startswith(f"data.x={str(tmp_path / 'a.x')!r} cannot be read as a thing: ")
    assert message.endswith("; do this") and is_for_the_user(caught.value)


def test_what_only_a_programmer_understands_is_said_in_words_about_the_file(tmp_path):
    errors = (IndexError("list index out of range"), AssertionError(), AttributeError("'int' object has no attribute"))
    errors += (TypeError("'int' object is not iterable"), ZeroDivisionError("division by zero"), EOFError())
    errors += (OverflowError("too large"), struct.error("unpack requires a buffer of 20 bytes"))
    told = r"as a thing: (it|its|one of its) [\w ,]+( \(.+\))?$"
    for error in errors:
        with pytest.raises(ForeignFileError, match=told) as caught, reading(tmp_path / "a.x", "a thing"):
            raise error
        assert str(error) in str(caught.value)


def test_an_interrupt_is_no_fault_of_a_file(tmp_path):
    with pytest.raises(KeyboardInterrupt), reading(tmp_path, "a thing"):
        raise KeyboardInterrupt


@pytest.mark.parametrize("size", [(20_000, 20_000), (100_000, 100_000), (2**31 - 1, 2**31 - 1)])
def test_images_too_large_for_memory_are_refused_by_their_header(size, tmp_path):
    (tmp_path / "bomb.png").write_bytes(png_that_claims(*size))
    with pytest.raises(ForeignFileError, match=r"bomb\.png"):
        open_image(tmp_path / "bomb.png")


def test_an_image_of_a_hundred_megapixels_is_not_refused_by_pillow(tmp_path):
    (tmp_path / "large.png").write_bytes(png_that_claims(9_000, 11_000))
    with pytest.raises(ForeignFileError, match="cannot be read as an image"):  # it is only truncated
        open_image(tmp_path / "large.png")


def test_a_photograph_is_turned_upright(tmp_path):
    """What EXIF calls orientation 6 lies on its side: its left edge is the upper one."""
    pixels = np.zeros((20, 40, 3), np.uint8)
    pixels[:, :8] = (200, 30, 30)
    exif = Image.Exif()
    exif[274] = 6
    Image.fromarray(pixels).save(tmp_path / "photo.png", exif=exif)
    image = read_image(tmp_path / "photo.png")
    assert image.shape == (3, 40, 20)
    assert image[0, :8].min() > 0.5 > image[0, 9:].max()


@pytest.mark.parametrize("dtype", [np.uint16, np.int32])
def test_grey_of_more_bits_is_scaled_and_not_cut_off(dtype, tmp_path):
    ramp = np.linspace(0, 65535, 64).astype(dtype).reshape(8, 8)
    Image.fromarray(ramp).save(tmp_path / "ramp.tiff")
    grey = np.asarray(open_image(tmp_path / "ramp.tiff"))[..., 0]
    assert np.abs(grey.astype(float) - ramp / 257.0).max() <= 0.51


def test_grey_beyond_its_range_or_not_finite_is_refused(tmp_path):
    for name, values in (("deep", [0.0, 1e5]), ("nan", [0.0, np.nan])):
        Image.fromarray(np.array([values], np.float32)).save(tmp_path / f"{name}.tiff")
        with pytest.raises(ForeignFileError, match=f"{name}.tiff"):
            open_image(tmp_path / f"{name}.tiff")


def test_an_alpha_is_kept_and_transparent_parts_are_white(tmp_path):
    pixels = np.zeros((4, 4, 4), np.uint8)
    pixels[:2] = (10, 20, 30, 255)
    Image.fromarray(pixels).save(tmp_path / "cutout.png")
    assert open_image(tmp_path / "cutout.png").mode == "RGBA"
    assert torch.equal(read_image(tmp_path / "cutout.png")[:, 2:], torch.ones(3, 2, 4))


@pytest.mark.parametrize(
    ("data", "told"),
    [
        ("a cat".encode("utf-16-le"), "holds zero bytes"),
        (b"a\0cat", "holds zero bytes"),
        (b"cat " * 20_000, "is larger than 64 kB, too large for a caption"),
    ],
)
def test_what_is_no_caption_is_told(data, told, tmp_path):
    (tmp_path / "a.txt").write_bytes(data)
    with pytest.raises(ForeignFileError, match=rf"a\.txt .*{told}"):
        caption_of(tmp_path / "a.png")


def test_a_caption_that_is_a_folder_or_leads_nowhere_is_told_and_lines_may_end_as_on_macs(tmp_path):
    (tmp_path / "a.txt").mkdir()
    (tmp_path / "b.txt").symlink_to("gone.txt")
    (tmp_path / "c.txt").write_bytes(b"a\rcat\r\n")
    for name in "ab":
        with pytest.raises(ForeignFileError, match=rf"{name}\.txt "):
            caption_of(tmp_path / f"{name}.png")
    assert caption_of(tmp_path / "c.png") == "a\ncat"


def test_a_folder_of_images_holds_files_alone(tmp_path):
    Image.new("RGB", (4, 4)).save(tmp_path / "a.png")
    (tmp_path / "b.png").mkdir()
    (tmp_path / "._a.png").write_bytes(b"\0\5\x16\7")  # macOS puts such files into archives
    os.mkfifo(tmp_path / "c.png")
    assert image_paths(tmp_path, "data.root") == [tmp_path / "a.png"]


def test_an_image_that_would_grow_beyond_memory_is_refused(tmp_path):
    Image.new("RGB", (1, 30_000)).save(tmp_path / "a.png")
    with pytest.raises(ForeignFileError, match=r"a\.png has 1x30000 pixels, too long .* crop it"):
        read_image(tmp_path / "a.png", 64)


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
def test_captions_are_read_in_the_encodings_that_editors_write(encoding, tmp_path):
    (tmp_path / "a.txt").write_text("ein Käse\r\n", encoding=encoding)
    assert caption_of(tmp_path / "a.png") == "ein Käse"


def test_a_caption_in_another_encoding_is_named(tmp_path):
    (tmp_path / "a.txt").write_bytes("ein Käse".encode("latin-1"))
    with pytest.raises(ForeignFileError, match=r"a\.txt cannot be read as a caption: it is not UTF-8.*save"):
        caption_of(tmp_path / "a.png")


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "cannot be read as JSON"),
        (b"[1]", "must hold a JSON mapping, not a list"),
        (b"[" * 200_000, "nested too deep"),
        (b'{"a": 1', "cannot be read as JSON"),
        (b"\xff\xfe\x00", "cannot be read as JSON"),
        (b'{"a": ' + b"9" * 10_000 + b"}", "cannot be read as JSON"),
    ],
)
def test_json_of_every_damage_is_told(data, message, tmp_path):
    (tmp_path / "a.json").write_bytes(data)
    with pytest.raises(ForeignFileError, match=message):
        read_json_mapping(tmp_path / "a.json", setting="data.x")


def test_a_missing_and_a_too_large_file_are_told(tmp_path, monkeypatch):
    with pytest.raises(ForeignFileError, match=r"gone.json' does not exist; look"):
        read_json_mapping(tmp_path / "gone.json", "look", "data.x")
    monkeypatch.setattr(foreign, "MAX_TEXT_BYTES", 8)
    (tmp_path / "a.txt").write_text("x" * 9)
    with pytest.raises(ForeignFileError, match="too large for text"):
        foreign.read_bytes(tmp_path / "a.txt", "text", limit=8)
    assert read_text(tmp_path / "a.txt") == "x" * 9


@pytest.mark.parametrize("read", [read_text, read_json_mapping, open_image])
@pytest.mark.parametrize("name", ["pipe", "/dev/zero"])
def test_a_pipe_or_a_device_is_refused_before_it_is_waited_for(read, name, tmp_path):
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(ForeignFileError, match="is a pipe or a device; give"):
        read(tmp_path / name)


def test_the_pipe_of_a_shell_is_read():
    """What ``<(command)`` hands over."""
    out, into = os.pipe()
    os.write(into, b"name: x")
    os.close(into)
    assert read_text(Path(f"/dev/fd/{out}")) == "name: x"
    os.close(out)


def test_a_missing_file_that_another_one_names_is_told(tmp_path):
    with (
        pytest.raises(ForeignFileError, match=r"^data.x='a.gltf' needs .*a.bin, which does not exist$"),
        reading("a.gltf", "a mesh", setting="data.x"),
    ):
        (tmp_path / "a.bin").read_bytes()


def test_numbers_are_finite():
    assert finite(3, "x") == 3.0
    for value in (float("nan"), float("inf"), 10**400, True, "3", None, [1]):
        with pytest.raises(ForeignFileError, match=r"^x=.* must be a finite number"):
            finite(value, "x")
    with pytest.raises(ForeignFileError) as caught:
        finite(10**4000, "x")
    assert len(str(caught.value)) < 90


# the boundary itself, what reads the package's own files or those of this run, and what may import nothing
WITHIN = {
    "runtime.foreign",
    "evaluation.report",
    "export.formats.viewer",
    "embedded.mesh_scenes",
    "sweep.plan",
    "sweep.ray_engine",
    "sweep.ray_worker",
    "priors.single_file",  # read within `_reading`, which is `reading` with a remedy
    "sweep.weights",
    "viewer.jobs",
    "embedded.text",
    "data.mesh_file",  # whose `load_mesh_file` is guarded as a whole
}
READERS = {"load", "loads", "open", "load_file", "safe_open", "from_pretrained", "read_text"}
READER = re.compile(
    r"(json|np|torch|trimesh)\.loads?|Image\.open|(.*\.)?(load_file|safe_open)|.+\.(from_pretrained|read_text)"
)


def reads(module, path):
    """Calls that open or parse a file outside of a ``with reading(...)`` and of a ``try``."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    parents = {child: node for node in ast.walk(tree) for child in ast.iter_child_nodes(node)}
    for call in (node for node in ast.walk(tree) if isinstance(node, ast.Call)):
        last = getattr(call.func, "attr", getattr(call.func, "id", ""))
        above, guarded = call, last not in READERS or not READER.fullmatch(ast.unparse(call.func))
        while above in parents and not guarded:
            above = parents[above]
            guarded = isinstance(above, ast.Try)
            guarded |= isinstance(above, ast.With) and "reading(" in ast.unparse(above.items[0])
        if not guarded:
            yield f"{module}:{call.lineno} {ast.unparse(call.func)}"


def test_every_file_from_elsewhere_is_read_through_the_boundary():
    package = Path(foreign.__file__).parents[1]
    paths = {".".join(path.relative_to(package).with_suffix("").parts): path for path in package.rglob("*.py")}
    assert [found for module in sorted(paths.keys() - WITHIN) for found in reads(module, paths[module])] == []


def test_the_home_of_nobody_is_a_path_that_does_not_exist():
    assert foreign.user_path("~nobody-of-that-name/x") == Path("~nobody-of-that-name/x")
    assert foreign.user_path("~/x") == Path.home() / "x"
    package = Path(foreign.__file__).parents[1]
    texts = {path.name: path.read_text(encoding="utf-8") for path in package.rglob("*.py")}
    assert [name for name, text in texts.items() if ".expanduser()" in text] == []


DAMAGED = (b"", b"[1]", b"{", b"\xff\xfe\x00", b'{"steps": "many", "warnings": 3}', b"[" * 100_000, b'{"steps": 1e400}')


@pytest.mark.parametrize("data", DAMAGED)
def test_a_damaged_record_of_an_earlier_run_costs_its_figures_alone(data, tmp_path):
    from distill3d.runtime.summary import summary
    from distill3d.sweep.folder import trial_status
    from distill3d.systems.metrics import read_metrics

    (tmp_path / "metrics.json").write_bytes(data)
    assert summary(tmp_path, "python launch.py") == [f"done: {tmp_path}"]
    assert trial_status(tmp_path) == "open" and read_metrics(tmp_path / "metrics.json") is None


def test_the_files_of_a_judge_are_told_whatever_is_wrong_with_them(tmp_path):
    from distill3d.embedded.judge import FOLDER, load_judge
    from distill3d.evaluation.judges import choose_judge

    whole = {name: (FOLDER / name).read_bytes() for name in ("judge.json", "judge.safetensors")}
    for name, data in (("judge.json", b"[]"), ("judge.json", b'{"words": 3}'), ("judge.safetensors", b"\x08" * 99)):
        for file, content in {**whole, name: data}.items():
            (tmp_path / file).write_bytes(content)
        with pytest.raises(ForeignFileError, match=str(tmp_path)):
            load_judge(tmp_path)
        with pytest.raises(ConfigError, match=r"judge=.* cannot be loaded"):
            choose_judge(str(tmp_path), "embedded")


def test_a_cached_embedding_of_another_shape_counts_as_absent(tmp_path):
    from distill3d.priors.embedding_cache import EmbeddingCache
    from distill3d.runtime.tensor_file import write_tensors
    from distill3d.types import PromptEmbedding

    cache = EmbeddingCache(tmp_path, "x")
    cache.save("a cat", PromptEmbedding(torch.ones(1, 3, 4), torch.ones(1, 3, dtype=torch.bool)))
    assert cache.load("a cat") is not None
    for tensors in ({"tokens": torch.ones(3)}, {"tokens": torch.full((1, 3, 4), torch.nan)}, {"other": torch.ones(1)}):
        write_tensors(cache._path("a cat"), tensors, {})
        assert cache.load("a cat") is None
    cache._path("a cat").write_bytes(b"\xff" * 99)
    assert cache.load("a cat") is None

"""The command line: what is understood, and that a mistake is one line and an exit code."""

import logging
import subprocess
import sys
from types import SimpleNamespace

import pytest

import distill3d
from distill3d import cli
from distill3d.config.check import ConfigError
from distill3d.config.experiment import load
from distill3d.config.files import PROJECT, SHIPPED_CONFIGS, merge, read_layers
from distill3d.config.schema import check_parts
from distill3d.runtime.extensions import import_extensions
from distill3d.runtime.logs import set_up_logging
from distill3d.verbs import Verb, runner, verbs


@pytest.fixture(autouse=True)
def quiet(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("DISTILL3D_DEBUG", raising=False)
    root = logging.getLogger("distill3d")
    before = (root.handlers[:], root.propagate, root.level)
    yield
    root.handlers, root.propagate = before[0], before[1]
    root.setLevel(before[2])


def parse(*arguments):
    return cli.parse(arguments)[0]


def test_no_verb_means_train_and_order_does_not_matter():
    assert parse("--config", "a").verb == "train"
    request = parse("a.b=1", "--export", "c=--x", "--config", "a", "prompt=a -b c")
    assert (request.verb, request.config, request.overrides) == ("export", "a", ("a.b=1", "c=--x", "prompt=a -b c"))


@pytest.mark.parametrize("name", ["train", "validate", "test", "export"])
def test_each_verb_has_a_flag_and_something_to_run(name):
    assert parse("--config", "a", f"--{name}").verb == name
    assert callable(runner(name))
    assert verbs()[name].summary


@pytest.mark.parametrize("error", [MemoryError(), RuntimeError("DefaultCPUAllocator: can't allocate memory")])
def test_too_little_memory_is_told_in_words(error, monkeypatch, caplog):
    def fail(arguments):
        raise error

    monkeypatch.setattr(cli, "_run", fail)
    assert cli.main([]) == 2
    assert "not enough memory; lower" in caplog.text


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "--config is missing"),
        (["--config", "a", "--train", "--export"], "one verb at a time: --train or --export"),
        (["--config", "a", "--trian"], "--trian is not an option; did you mean '--train'?"),
        (["--config", "a", "--data.width=3"], "write settings without dashes: data.width=3"),
        (["--config"], "expected one argument"),
    ],
)
def test_what_cannot_be_understood_is_one_line_and_exit_code_2(arguments, message, capsys):
    with pytest.raises(SystemExit) as caught:
        cli.parse(arguments)
    error = capsys.readouterr().err
    assert caught.value.code == 2
    assert message in error
    assert error.count("\n") == 1


def test_a_verb_may_take_its_own_argument_and_accompany_another(monkeypatch):
    table = {
        **verbs(),
        "evaluate": Verb("evaluate", "x", metavar="TRIAL"),
        "sweep": Verb("sweep", "x", accompanies=("train",), options={"jobs": "x"}),
    }
    monkeypatch.setattr(cli, "verbs", lambda: table)
    request = parse("--evaluate", "outputs/x")
    assert (request.verb, request.argument, request.config) == ("evaluate", "outputs/x", None)
    request = parse("--config", "a", "--train", "--sweep", "--jobs", "2", "seed=0,1")
    assert (request.verb, request.options["jobs"], request.overrides) == ("sweep", "2", ("seed=0,1",))


def failing(error):
    def run(request):
        raise error

    return lambda name: run


@pytest.mark.parametrize(
    ("error", "line"),
    [
        (ConfigError("data.width=0\nmust be positive"), "error: data.width=0 must be positive"),
        (FileNotFoundError(2, "No such file or directory", "a.png"), "error: No such file or directory: a.png"),
        (OSError(28, "No space left on device"), "error: No space left on device"),
    ],
)
def test_a_mistake_is_one_line_without_traceback(error, line, monkeypatch, capsys):
    monkeypatch.setattr(cli, "runner", failing(error))
    monkeypatch.setattr("distill3d.runtime.extensions.PROJECT", PROJECT / "nowhere")
    assert cli.main(["--config", "dreamfusion"]) == 2
    assert capsys.readouterr().err == line + "\n"


def test_the_debug_variable_brings_the_traceback(monkeypatch):
    monkeypatch.setenv("DISTILL3D_DEBUG", "1")
    monkeypatch.setattr(cli, "runner", failing(ConfigError("x")))
    with pytest.raises(ConfigError):
        cli.main(["--config", "dreamfusion"])


def test_defects_keep_their_traceback(monkeypatch):
    monkeypatch.setattr(cli, "runner", failing(RuntimeError("a defect")))
    with pytest.raises(RuntimeError):
        cli.main(["--config", "dreamfusion"])


def test_an_interruption_is_exit_code_130(monkeypatch):
    monkeypatch.setattr(cli, "runner", failing(KeyboardInterrupt()))
    assert cli.main(["--config", "dreamfusion"]) == 130


def test_value_errors_count_as_mistakes_only_where_this_package_raised_them():
    from distill3d.config.schedule import check_schedule

    for action, expected in ((lambda: check_schedule([1]), True), (lambda: int("x"), False)):
        try:
            action()
        except ValueError as error:
            assert cli.is_for_the_user(error) is expected


def test_a_mistake_in_a_config_comes_out_of_main(capsys):
    assert cli.main(["--config", "nowhere"]) == 2
    assert "--config nowhere: no such file" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "answer"),
    [
        (["--help"], "examples:"),
        (["--version"], f"distill3d {distill3d.__version__}"),
        (["--config", "nosuch.yaml", "--train"], "--config nosuch.yaml: no such file"),
        (["--evaluate", "nosuch"], "--evaluate nosuch: no such file or folder"),
        (["--config", "dreamfusion", "nosuch=1"], "nosuch is not a setting"),
    ],
)
def test_what_needs_no_torch_does_not_wait_for_it(arguments, answer):
    code = (
        "import sys\nfrom distill3d import cli\n"
        "try: cli.main(sys.argv[1:])\nexcept SystemExit: pass\n"
        "print([name for name in ('torch', 'numpy', 'pytorch_lightning') if name in sys.modules])"
    )
    command = [sys.executable, "-c", code, *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=True, cwd=PROJECT)
    assert answer in done.stdout + done.stderr
    assert done.stdout.endswith("[]\n")


@pytest.mark.parametrize(
    ("setting", "answer"),
    [
        ("system.guidance.guidance_scal=2", "guidance_scal is not a setting; did you mean 'guidance_scale'?"),
        ("system.guidance_type=sdss", "'sdss' is not a registered guidance; did you mean 'sds'?"),
        ("system.exporter.fnt=glb", "system.exporter.fnt is not a setting; did you mean 'fmt'?"),
    ],
)
def test_a_mistake_within_a_system_does_not_wait_for_lightning(setting, answer):
    code = (
        "import sys\nfrom distill3d import cli\ncode = cli.main(sys.argv[1:])\n"
        "print(code, 'pytorch_lightning' in sys.modules)"
    )
    command = [sys.executable, "-c", code, "--config", "dreamfusion", setting]
    done = subprocess.run(command, capture_output=True, text=True, check=True, cwd=PROJECT)
    assert answer in done.stderr and done.stdout == "2 False\n"


@pytest.mark.parametrize("path", [*SHIPPED_CONFIGS.rglob("*.yaml"), *(PROJECT / "custom").rglob("*.yaml")], ids=str)
def test_every_config_passes_the_check_that_needs_no_lightning(path):
    import_extensions([PROJECT / "custom"])
    check_parts(merge(read_layers(path, ()))[0]["system"])


def test_help_names_the_verbs_and_gives_examples(capsys):
    with pytest.raises(SystemExit):
        cli.main(["--help"])
    out = capsys.readouterr().out
    for part in ("--train", "--validate", "--test", "--export", "--list", "examples:", 'prompt="a pineapple"'):
        assert part in out


def test_launch_is_three_lines():
    assert len((PROJECT / "launch.py").read_text().split("\n")) - 1 == 3


def test_list_prints_every_type_and_config(capsys):
    assert cli.main(["--list"]) == 0
    out = capsys.readouterr().out
    for name in ("system.guidance_type", "  sds ", "  implicit-volume ", "  dense-grid ", "  dreamfusion.yaml "):
        assert name in out
    assert "  sds-pixel-clip " in out
    assert "  60 nouns: hamburger, " in out and out.endswith(" corn cob\n")


def test_messages_are_tidy_lines_on_standard_error(capsys):
    set_up_logging()
    set_up_logging()
    logging.getLogger("distill3d.somewhere").info("a line")
    logging.getLogger("distill3d_custom.mine").warning("of an extension")
    logging.getLogger("distill3d.somewhere").debug("unseen")
    assert capsys.readouterr().err == "a line\nwarning: of an extension\n"


def test_the_gpu_flag_of_threestudio_sets_the_variable(monkeypatch):
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    seen = SimpleNamespace(value=None)

    def run(request):
        import os

        seen.value = os.environ.get("CUDA_VISIBLE_DEVICES")
        return 0

    monkeypatch.setattr(cli, "runner", lambda name: run)
    assert cli.main(["--config", "dreamfusion", "--gpu", "3", "--typecheck"]) == 0
    assert seen.value == "3"
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES")


@pytest.mark.parametrize(
    ("called_as", "expected"),
    [
        ("/usr/bin/distill3d", "distill3d"),
        (r"distill3d.exe", "distill3d"),
        ("/x/distill3d/__main__.py", "python -m distill3d"),
        ("launch.py", "python launch.py"),
    ],
)
def test_help_and_cmd_txt_name_the_command_that_was_called(called_as, expected, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", [called_as])
    with pytest.raises(SystemExit):
        cli.main(["--help"])
    out = capsys.readouterr().out
    assert out.startswith(f"usage: {expected.removeprefix('python ')} ") and f"  {expected} --config" in out
    line = " ".join(parse("--config", "a").argv)
    assert line == ("launch.py" if "launch" in expected else "-m distill3d") + " --config a"


@pytest.mark.parametrize(("flags", "hints"), [([], 1), (["--sweep"], 0)])
def test_a_semicolon_in_a_prompt_separates_only_in_a_sweep(flags, hints, monkeypatch, capsys):
    requests = []
    monkeypatch.setattr(cli, "runner", lambda name: lambda request: requests.append(request) or 0)
    setting = "system.prompt_processor.prompt=a cat; a dog"
    assert cli.main(["--config", "dreamfusion", *flags, setting, "tag=a;b"]) == 0
    assert requests[0].overrides[0] == setting
    assert capsys.readouterr().err.count("prompt is one prompt, semicolon included; with --sweep") == hints
    if not flags:
        assert load("dreamfusion", [setting]).experiment.prompt == "a cat; a dog"


@pytest.mark.parametrize(
    ("text", "file"),
    [("file:a/b.txt", "a/b.txt"), ("file:///b", "/b"), ("b.txt", "b.txt"), ("a file: b.txt", ""), ("a fox", "")],
)
@pytest.mark.parametrize("flags", [[], ["--sweep"]])
def test_a_file_that_is_taken_as_a_prompt_is_told(text, file, flags, monkeypatch, capsys):
    monkeypatch.setattr(cli, "runner", lambda name: lambda request: 0)
    assert cli.main(["--config", "dreamfusion", *flags, f"system.prompt_processor.prompt={text}", "tag=b.txt"]) == 0
    err = capsys.readouterr().err
    assert (f"prompt=@{file} to read a file" in err) == bool(file) and err.count("=@") == bool(file)

"""From a command line to a plan: what is found before the first run, and a sweep that trains for real."""

import json
import logging
import os
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
from system_doubles import TINY_DATA, TINY_SYSTEM, merged

from distill3d import cli
from distill3d.config.check import ConfigError
from distill3d.config.files import PROJECT
from distill3d.config.yaml_text import dump_yaml
from distill3d.evaluation.collect import collect
from distill3d.sweep.folder import SweepFolder
from distill3d.sweep.ledger import Ledger
from distill3d.sweep.plan import make_plan, write_plan
from distill3d.sweep.slurm import slurm_script

PROMPT = "system.prompt_processor.prompt"
EXPORTER = {"resolution": 24, "mode": "vertex", "faces": 500, "viewer": False, "preview": False, "threshold": 1.0}
CONFIG = {
    "name": "tiny",
    "data": TINY_DATA,
    "system": merged(
        TINY_SYSTEM,
        {
            "prompt_processor": {"prompt": "a ball"},
            "exporter": EXPORTER,
            "contact_views": 2,
            "loggers": {"tensorboard": {"enable": False}},
        },
    ),
    "trainer": {"max_steps": 2, "enable_progress_bar": False, "accelerator": "cpu"},
}


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("DISTILL3D_TRIAL", raising=False)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    Path("tiny.yaml").write_text(dump_yaml(CONFIG))
    root = logging.getLogger("distill3d")
    before = (root.handlers[:], root.propagate, root.level)
    yield tmp_path
    root.handlers, root.propagate = before[0], before[1]
    root.setLevel(before[2])


def test_the_id_of_a_run_is_its_configuration_and_not_its_place():
    plan = make_plan("tiny", ["seed=0,1", f"{PROMPT}=a fox; a hat"])
    assert [run.case["seed"] + run.case[PROMPT] for run in plan.runs] == ["0a fox", "0a hat", "1a fox", "1a hat"]
    assert plan.folder.root.parent == Path("outputs/tiny/sweeps")
    moved = make_plan("tiny", ["seed=0,1", f"{PROMPT}=a fox; a hat", "exp_root_dir=elsewhere", "tag=x", "name=y"])
    assert [run.id for run in moved.runs] == [run.id for run in plan.runs]
    assert moved.folder.root.name == plan.folder.root.name
    other = make_plan("tiny", ["seed=0,1", f"{PROMPT}=a fox; a hat", "trainer.max_steps=3"])
    assert not {run.id for run in other.runs} & {run.id for run in plan.runs}


def test_a_block_in_the_yaml_is_a_sweep_and_cannot_be_trained_by_accident(capsys):
    Path("many.yaml").write_text(dump_yaml({"base": "tiny.yaml", "sweep": {"grid": {"seed": [0, 1]}}}))
    assert [run.case for run in make_plan("many", []).runs] == [{"seed": "0"}, {"seed": "1"}]
    assert cli.main(["--config", "many", "--train"]) == 2
    assert "this config describes many runs; add --sweep" in capsys.readouterr().err


def test_what_is_shared_is_kept_in_one_file_beside_the_ledger():
    plan = make_plan("tiny", ["seed=0,1", "trainer.max_steps=7", f"{PROMPT}=a cat: sitting # there"])
    write_plan(plan)
    write_plan(plan)
    assert len(list(Ledger(plan.folder.ledger).records())) == 2
    again = make_plan(plan.folder.config, ["seed=0,1"])
    assert [run.id for run in again.runs] == [run.id for run in plan.runs]


def test_settings_that_do_not_apply_make_no_second_run(caplog):
    root = logging.getLogger("distill3d")
    root.propagate = True
    arguments = ["system.guidance_type=sds,csd", "system.guidance.jacobian=true,false"]
    plan = make_plan("tiny", arguments)
    assert len(plan.runs) == 3
    assert "is the same run as" in caplog.text


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["seed=0,"], "value 2 of 2 is empty"),
        (["sed=0,1"], "sed is not a setting; did you mean 'seed'?"),
        (["system.guidance.guidance_scale=1,x"], "system.guidance.guidance_scale"),
        (["seed=0,1,x"], "expected an integer"),
        (["seed=0,0"], "listed twice"),
        (["seed=0"], "no setting has several values"),
        (["seed=0,1", "resume=nowhere.ckpt"], "resume"),
        (["seed=0,1", "--jobs", "0"], "--jobs 0: expected a whole number from 1 on"),
        (["seed=0,1", "--engine", "spark"], "--engine spark: choose local or ray"),
        (["seed=0,1", "--emit", "pbs"], "--emit pbs: choose slurm"),
    ],
)
def test_mistakes_are_found_before_the_first_run(arguments, message, capsys):
    assert cli.main(["--config", "tiny", "--train", "--sweep", *arguments]) == 2
    assert message in capsys.readouterr().err
    assert not Path("outputs").exists()


def test_a_dry_run_lists_and_writes_nothing(capsys):
    assert cli.main(["--config", "tiny", "--sweep", "--dry-run", "seed=0:2:1"]) == 0
    out = capsys.readouterr().out
    assert out.count("open") == 3
    assert "3 runs in outputs/tiny/sweeps/" in out
    assert not Path("outputs").exists()


def test_slurm_gets_a_job_array_that_bash_understands():
    assert cli.main(["--config", "tiny", "--sweep", "--emit", "slurm", "--jobs", "4", "seed=0,1,2"]) == 0
    (script,) = Path("outputs/tiny/sweeps").glob("*/sweep.slurm")
    text = script.read_text()
    assert "#SBATCH --array=0-2%4" in text
    subprocess.run(["bash", "-n", str(script)], check=True)
    fake = slurm_script(SweepFolder(script.parent), ["a", "b"], python="echo")
    done = subprocess.run(["bash", "-c", fake], capture_output=True, text=True, env={"SLURM_ARRAY_TASK_ID": "1"})
    assert done.stdout.split()[-1] == "b"


def test_the_paths_of_a_job_array_may_hold_whatever_a_shell_acts_upon(tmp_path, monkeypatch):
    root = tmp_path / 'o\'r "q" $(touch ran) `touch ran` ; touch ran %x'
    root.mkdir()
    monkeypatch.chdir(root)
    text = slurm_script(SweepFolder(root / "a sweep's"), ["a", "b"], python="echo")
    environment = {"SLURM_ARRAY_TASK_ID": "1", "PATH": os.environ["PATH"]}
    done = subprocess.run(["bash", "-c", text], capture_output=True, text=True, env=environment, check=True)
    assert done.stdout == f"-m distill3d.sweep.child {root}/a sweep's b\n"
    assert not list(root.iterdir()) and done.stderr == ""
    options = dict(
        shlex.split(line, posix=True)[1].split("=", 1) for line in text.splitlines() if line[:9] == "#SBATCH -"
    )
    assert options["--output"] == str(root).replace("%", "%%") + "/a sweep's/logs/slurm-%a.txt"
    assert options["--job-name"].startswith("sweep-a")
    with pytest.raises(ConfigError, match="line break"):
        slurm_script(SweepFolder(root / "two\nlines"), ["a"])


def test_a_moved_sweep_goes_on_and_is_collected_where_it_lies(tmp_path):
    plan = make_plan("tiny", ["seed=0,1", f"{PROMPT}=a fox"])
    write_plan(plan)
    trial = plan.folder.trial(plan.runs[0].id)
    trial.mkdir(parents=True)
    (trial / "metrics.json").write_text('{"finished": true}')
    Path("outputs").rename("moved")
    moved = make_plan("tiny", ["seed=0,1", f"{PROMPT}=a fox", "exp_root_dir=moved"])
    assert [moved.folder.status(run.id) for run in moved.runs] == ["done", "open"]
    entries = collect(moved.folder.root)
    assert [(entry.prompt, entry.seed, entry.status) for entry in entries] == [
        ("a fox", 0, "done"),
        ("a fox", 1, "open"),
    ]


def test_another_configuration_under_one_name_is_refused():
    write_plan(make_plan("tiny", ["seed=0,1"], "mine"))
    with pytest.raises(ConfigError, match="was begun with another configuration"):
        write_plan(make_plan("tiny", ["seed=0,1", "trainer.max_steps=3"], "mine"))


def test_a_sweep_trains_for_real_and_writes_its_report():
    tiny = Path(__file__).with_name("sweep_tiny_launch.py")
    code = (
        "import sys; sys.path[:0] = sys.argv[1:3]; import system_doubles\n"
        "from pathlib import Path\n"
        "from distill3d.evaluation.evaluation import evaluate_folder\n"
        "from distill3d.sweep.local import LocalEngine\n"
        "from distill3d.sweep.loop import Sweep\n"
        "from distill3d.sweep.plan import make_plan\n"
        "plan = make_plan('tiny', ['system.guidance_type=sds,csd', 'system.prompt_processor.prompt=a red ball'])\n"
        "outcome = Sweep(plan, LocalEngine(1), launch=Path(sys.argv[3])).run()\n"
        "assert outcome.done == 2, outcome\n"
        "print(evaluate_folder(plan.folder.root, ['views=2', 'size=16', 'samples=0', 'judge=none', 'resamples=100']))\n"
    )
    command = [sys.executable, "-c", code, str(tiny.parent), str(PROJECT), str(tiny)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    content = json.loads((Path(done.stdout.strip()) / "evaluation.json").read_text())
    assert [run["settings"]["system.guidance_type"] for run in content["runs"]] == ["sds", "csd"]
    assert [run["status"] for run in content["runs"]] == ["done", "done"]
    assert all(run["figures"]["saturation"] is not None for run in content["runs"])

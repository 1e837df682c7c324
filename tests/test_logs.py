"""What a user sees on the terminal."""

from __future__ import annotations

import os
import subprocess
import sys

LIGHTNING = """
from distill3d.runtime.device import choose_accelerator
import pytorch_lightning as pl
choose_accelerator("auto")
for _ in range(2):
    pl.Trainer(logger=False, enable_checkpointing=False, enable_model_summary=False, accelerator="cpu", devices=1)
"""
OTHERS = """
import logging
logging.getLogger("some.library").info("chatter")
logging.getLogger("some.library").warning("something is wrong")
set_up_logging({verbose})
logging.getLogger("distill3d.run").info("once")
"""


def terminal(code: str, verbose: bool = False, local_rank: str = "0") -> list[str]:
    code = f"from distill3d.runtime.logs import set_up_logging\nset_up_logging({verbose})\n" + code.format(
        verbose=verbose
    )
    environment = {**os.environ, "LOCAL_RANK": local_rank}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, env=environment)
    assert done.stdout == ""
    return done.stderr.splitlines()


def test_of_the_device_there_is_one_line_and_lightning_adds_none():
    (line,) = terminal(LIGHTNING)
    assert line.startswith("device: ")


def test_of_libraries_warnings_are_shown_and_of_ours_every_message_once():
    assert terminal(OTHERS) == ["warning: something is wrong", "once"]


def test_with_verbose_libraries_speak():
    assert terminal(OTHERS, verbose=True) == ["chatter", "warning: something is wrong", "once"]


def test_of_several_processes_one_tells_the_story():
    assert terminal(OTHERS, local_rank="1") == []


DETAILS = """
import logging
logging.getLogger("distill3d.export.exporter").info("how")
logging.getLogger("distill3d.export.exporter").warning("take care")
logging.getLogger("distill3d.run").info("what")
logging.getLogger("distill3d.run").debug("deep")
"""


def test_details_are_shown_with_verbose_alone():
    assert terminal(DETAILS) == ["warning: take care", "what"]
    assert terminal(DETAILS, verbose=True) == ["how", "warning: take care", "what", "deep"]


def test_the_trials_log_has_the_details(tmp_path):
    path = tmp_path / "log.txt"
    code = f"from pathlib import Path\nfrom distill3d.runtime.logs import log_to_file\nlog_to_file(Path({str(path)!r}))"
    terminal(code + DETAILS)
    messages = [line.split(": ")[-1] for line in path.read_text().splitlines()]
    assert messages == ["how", "take care", "what", "deep"]


LIBRARIES = """
import logging, warnings
from distill3d.runtime.logs import warnings_shown
warnings.warn("from Python")
logging.getLogger("distill3d.priors.x").warning("word %s", "unknown")
logging.getLogger("distill3d.priors.x").warning("word %s", "unknown")
logging.getLogger("transformers.x").warning("of a library")
logging.getLogger("distill3d.run").error("no warning")
print_kept = [text.partition(" (")[0] for text in warnings_shown()]
set_up_logging(False)
assert print_kept == ["from Python", "word unknown", "of a library"] and warnings_shown() == [], print_kept
"""


def test_warnings_are_kept_once_each_whoever_gave_them():
    assert terminal(LIBRARIES)[0].startswith("warning: from Python (")

"""Stands in for launch.py in tests of sweeps: a run of no time that leaves what a run leaves.

FAKE_SECONDS makes it last, FAKE_GATE until that file exists; FAKE_FAIL names values of x that fail (``2``: always,
``2:once``: the first time); FAKE_DIVERGE names those that diverge. Each start is a line in starts.txt of the sweep's
folder.
"""

from __future__ import annotations

import json
import os
import sys
import time
from pathlib import Path

settings = dict(argument.split("=", 1) for argument in sys.argv[1:] if "=" in argument)
root = Path(settings["exp_root_dir"])
trial = root / settings["name"] / settings["tag"]
trial.mkdir(parents=True)
seed = settings.get("seed", "")
with (root / "starts.txt").open("a") as file:
    file.write(f"{settings['tag']} {os.getpid()}\n")
time.sleep(float(os.environ.get("FAKE_SECONDS", "0")))
while "FAKE_GATE" in os.environ and not Path(os.environ["FAKE_GATE"]).exists():
    time.sleep(0.05)
fails = os.environ.get("FAKE_FAIL", "").split(",")
before = root / "attempts" / f"{settings['tag']}-1"
if seed in fails or (f"{seed}:once" in fails and not before.exists()):
    sys.exit(f"seed {seed} cannot be trained")
metrics = {"finished": True, "steps": 1, "seconds_total": 1.5, "diverged": seed in os.environ.get("FAKE_DIVERGE", "")}
partial = trial / "metrics.json.partial"
partial.write_text(json.dumps(metrics))
partial.replace(trial / "metrics.json")

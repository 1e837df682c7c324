"""A sweep as a Slurm job array: one script, one task for each open run."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Sequence
from pathlib import Path

from distill3d.config.check import ConfigError
from distill3d.config.files import PROJECT
from distill3d.runtime.names import safe_name
from distill3d.sweep.folder import SweepFolder


def slurm_script(folder: SweepFolder, run_ids: Sequence[str], jobs: int | None = None, python: str = "") -> str:
    """The text of the script. ``jobs`` limits how many run at once. Resources are the user's to add.

    Raises ConfigError for a folder whose name has lines: what follows the first would be a command of the script.
    """
    for path in (folder.root.resolve(), Path.cwd(), PROJECT):
        if set("\r\n") & set(str(path)):
            raise ConfigError(f"--emit slurm: {str(path)!r} has a line break in its name; choose another exp_root_dir")
    root, limit = folder.root.resolve(), f"%{jobs}" if jobs else ""
    ids = " ".join(run_ids)
    child = f"{shlex.quote(python or sys.executable)} -m distill3d.sweep.child {shlex.quote(str(root))}"
    return f"""#!/bin/bash
#SBATCH --job-name={shlex.quote("sweep-" + safe_name(folder.root.name))}
#SBATCH --array=0-{len(run_ids) - 1}{limit}
#SBATCH --output={shlex.quote(str(root).replace("%", "%%") + "/logs/slurm-%a.txt")}
#SBATCH --signal=B:TERM@60
# Add what your cluster asks for, such as:
#   #SBATCH --time=01:00:00
#   #SBATCH --gres=gpu:1
runs=({ids})
export OMP_NUM_THREADS="${{SLURM_CPUS_PER_TASK:-1}}"
cd {shlex.quote(str(Path.cwd()))} || exit 1
export PYTHONPATH={shlex.quote(str(PROJECT))}"${{PYTHONPATH:+:$PYTHONPATH}}"
exec {child} "${{runs[$SLURM_ARRAY_TASK_ID]}}"
"""


def write_slurm(folder: SweepFolder, run_ids: Sequence[str], jobs: int | None = None) -> Path:
    """Write sweep.slurm into the sweep's folder, and return its path."""
    from distill3d.runtime.files import write_atomically

    (folder.root / "logs").mkdir(parents=True, exist_ok=True)
    path = folder.root / "sweep.slurm"
    write_atomically(path, slurm_script(folder, run_ids, jobs))
    return path

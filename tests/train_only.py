"""A program that trains an experiment and does nothing after: ``python train_only.py CONFIG key=value ...``.

A file of its own, because Lightning's ddp strategy starts the same program once more for each further device.
"""

from __future__ import annotations

import sys

from distill3d import run
from distill3d.verbs import Request

if __name__ == "__main__":
    prepared = run.prepare(Request("train", sys.argv[1], tuple(sys.argv[2:])))
    prepared.trainer.fit(prepared.system, datamodule=prepared.data)

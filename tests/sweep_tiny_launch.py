"""launch.py with the closed-form prior of the tests, so that a sweep trains for real within seconds."""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

import system_doubles  # noqa: F401  registers its types

from distill3d.cli import main

raise SystemExit(main())

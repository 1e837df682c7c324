"""``python -m distill3d``: the same as the command ``distill3d``, and as launch.py of a checkout."""

from distill3d.cli import main

if __name__ == "__main__":
    raise SystemExit(main())

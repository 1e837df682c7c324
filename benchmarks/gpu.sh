#!/usr/bin/env bash
# All that is worth measuring on a machine with a GPU, in at most seven minutes, into one folder:
#   OUT=outputs/gpu benchmarks/gpu.sh
# Run it again after an interruption: what is measured stays. The same on a CPU, in little: --device cpu --tiny
set -eu
cd "$(dirname "$0")/.."
python=${PYTHON:-python}
[ -n "${PYTHON:-}" ] || [ ! -x .venv/bin/python ] || python=.venv/bin/python
exec "$python" benchmarks/gpu.py --out "${OUT:-outputs/gpu}" "$@"

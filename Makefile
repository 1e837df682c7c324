# Thin on purpose: an environment in .venv, then pip, launch.py and pytest.

PYTHON ?= python3
PROMPT ?= a hamburger
BIN := .venv/bin
export PROMPT

.PHONY: install install-dev demo test test-slow lint bench clean

install: .venv/installed
install-dev: .venv/installed-dev

demo: .venv/installed
	$(BIN)/python launch.py --config dreamfusion-lmc.yaml --train system.prompt_processor.prompt="$$PROMPT"

test: .venv/installed-dev
	$(BIN)/python -m pytest

test-slow: .venv/installed-dev
	$(BIN)/python -m pytest -m slow

lint: .venv/installed-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/pyright --pythonpath $(BIN)/python

bench: .venv/installed
	$(BIN)/python benchmarks/step.py

clean:
	rm -rf .venv .pytest_cache .ruff_cache build dist *.egg-info

.venv/bin/python:
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or newer is needed: make PYTHON=python3.11")'
	$(PYTHON) -m venv .venv

.venv/installed: .venv/bin/python requirements.txt pyproject.toml
	$(BIN)/python -m pip install -r requirements.txt
	$(BIN)/python -m pip install --no-deps -e .
	touch $@

.venv/installed-dev: .venv/installed requirements-dev.txt requirements-ray.txt
	$(BIN)/python -m pip install -r requirements-dev.txt
	touch $@

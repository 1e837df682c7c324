# An environment in .venv, then pip, launch.py and pytest.

PYTHON ?= python3
PROMPT ?= a hamburger
JOBS ?= 2
TORCH_INDEX ?= https://download.pytorch.org/whl/cpu
BIN := .venv/bin
export PROMPT

.PHONY: install install-dev demo test test-slow lint docs bench results clean

install: .venv/installed
install-dev: .venv/installed-dev

demo: .venv/installed
	$(BIN)/python launch.py --config dreamfusion-lmc.yaml --train system.prompt_processor.prompt="$$PROMPT"

# the tests of a file run in one process, JOBS files at once
test: .venv/installed-dev
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n $(JOBS) --dist loadfile

test-slow: .venv/installed-dev
	$(BIN)/python -m pytest -m slow

lint: .venv/installed-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/pyright --pythonpath $(BIN)/python

docs: .venv/installed-dev
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict --site-dir build/docs

bench: .venv/installed
	$(BIN)/python benchmarks/step.py

# the benchmarks' tables and pictures anew; resumes: make results ASSETS=MESHES
results: .venv/installed-dev
	$(BIN)/python benchmarks/results.py --assets "$(ASSETS)"

clean:
	rm -rf .venv .pytest_cache .ruff_cache build dist *.egg-info

.venv/bin/python:
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or newer is needed: make PYTHON=python3.11")'
	$(PYTHON) -m venv .venv

# before a command of pip, which says nothing while it unpacks: every 5 s the size of .venv, where it has grown
WATCHED = size=; trap 'kill $$watch 2>/dev/null' EXIT INT TERM; \
	while sleep 5 && kill -0 $$$$; do \
		now=$$(du -sh .venv | cut -f1); [ "$$now" = "$${size:-$$now}" ] || echo "  unpacking: .venv has $$now"; size=$$now; \
	done 2>/dev/null & watch=$$!;

# torch's CUDA build takes gigabytes: without an NVIDIA GPU the CPU build comes first, and pip then finds torch installed
.venv/installed: .venv/bin/python requirements.txt pyproject.toml
	@if [ -n "$(TORCH_INDEX)" ] && [ "$$(uname)" = Linux ] && ! command -v nvidia-smi >/dev/null; then \
		echo "torch for the CPU and the packages of requirements.txt go into .venv, once: 500 MB to fetch, 2 GB on the disk"; \
		$(WATCHED) $(BIN)/python -m pip install --no-deps --retries 0 --timeout 10 --index-url "$(TORCH_INDEX)" \
			"$$(grep '^torch==' requirements.txt)" || echo "$(TORCH_INDEX) is out of reach: pip chooses torch's build"; \
	else \
		echo "torch and the packages of requirements.txt go into .venv, once: 2 GB on the disk, with its CUDA build 6 GB"; \
	fi
	@$(WATCHED) $(BIN)/python -m pip install -r requirements.txt
	@$(WATCHED) $(BIN)/python -m pip install --no-deps -e .
	touch $@

.venv/installed-dev: .venv/installed requirements-dev.txt requirements-ray.txt requirements-viewer.txt
	$(BIN)/python -m pip install -r requirements-dev.txt
	touch $@

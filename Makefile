# Every target works from a fresh clone: it makes .venv first if there is none.
PYTHON ?= python3
BIN := .venv/bin
READY := .venv/.ready

# Threads that wait without spinning: beside another busy process, training is about six times faster so.
export OMP_WAIT_POLICY ?= passive

.DEFAULT_GOAL := help
.PHONY: help setup test lint demo bench clean

help:  ## this list
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## /  make \1\t/' | expand -t 20

setup: $(READY)  ## create .venv with the locked packages and the command `codec`; quick when it is there already

$(READY): pyproject.toml requirements.lock
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and f"Python 3.11 or newer is needed, $(PYTHON) is {sys.version.split()[0]}: make PYTHON=python3.11 ...")'
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --constraint requirements.lock --editable '.[dev]'
	@$(BIN)/python -W ignore -c 'from codec.entropy.coder import default_coder; default_coder()'
	@touch $(READY)

test: lint  ## lint, then the whole test suite
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest --numprocesses auto

lint: $(READY)  ## ruff: rules and formatting
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

demo: $(READY)  ## train a codec on packaged photographs for some minutes and compare its files with JPEG and WebP
	$(BIN)/python -m experiments.demo

bench: $(READY)  ## images/s in training, megapixels/s in coding, split into network, tables and coder
	$(BIN)/python -m experiments.bench

clean:  ## remove .venv and caches; runs and results stay
	rm -rf .venv .pytest_cache .ruff_cache *.egg-info
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

# make train      install what is needed, train the quickstart, evaluate it, draw its fits and write its report
# make smoke      train, evaluate and draw in seconds
# make check      are the meta-gradients right, and second order?
# make test       format, lint, types and tests, in a few minutes
# make test-full  the same with every combination of the axes, for longer
# make results    train and evaluate every method, for hours
# make soak       attack the program and its files, in half an hour: nothing may be lost, crash or change
# make bench      time the engines against other libraries, in a quarter of an hour
# make docs       write the generated pages and figures: RESULTS.md, configs/README.md, sections of others
# make format     put the code in shape
# make clean      remove the environment and caches

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt

.PHONY: help install install-dev train smoke check test test-full results soak bench docs format clean
.DEFAULT_GOAL := help

help:
	@sed -n 's/^# //p' Makefile

install: $(VENV)/.installed
install-dev: $(VENV)/.installed-dev

$(VENV)/.installed: pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "maml needs Python 3.11 or newer; give one with: make PYTHON=python3.12 ..." >&2; exit 1; }
	@echo "installing into $(VENV): PyTorch alone is some hundred megabytes, with CUDA some gigabytes; this takes minutes"
	$(PYTHON) -m venv $(VENV)
	$(PIP) -e .
	@touch $@

$(VENV)/.installed-dev: $(VENV)/.installed
	$(PIP) -e '.[dev]'
	@touch $@

train: install
	@run=$$($(BIN)/maml train --config configs/quickstart.yaml) && \
	  $(BIN)/maml eval --checkpoint $$run && \
	  echo "run: $$run" && \
	  printf 'fit plot: ' && $(BIN)/maml plot --checkpoint $$run --kind fit && \
	  printf 'report, for a browser: ' && $(BIN)/maml report $$run --tasks 1000

smoke: install
	@run=$$($(BIN)/maml train --config configs/smoke.yaml) && \
	  $(BIN)/maml eval --checkpoint $$run --tasks 500 && \
	  $(BIN)/maml plot --checkpoint $$run --tasks 500

check: install
	@$(BIN)/maml check

test: install-dev
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/python -m pytest -n auto --dist worksteal

test-full: export MAML_FULL_TESTS := 1
test-full: test

results: install
	@OMP_NUM_THREADS=1 $(BIN)/python -m maml_cli.dev.results

soak: install-dev
	@OMP_NUM_THREADS=1 $(BIN)/python -m maml_cli.dev.soak

bench: install
	$(PIP) -e '.[bench]'
	@$(BIN)/python -m maml_cli.dev.benchmark

docs: install
	@$(BIN)/python -m maml_cli.dev.generated_docs

format: install-dev
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

clean:
	rm -rf $(VENV) .mypy_cache .ruff_cache .pytest_cache .hypothesis

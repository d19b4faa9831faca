# Two commands are all that a newcomer needs: `make demo` and `make test`.
PYTHON ?= python3
BIN := .venv/bin

# Packages are installed without bytecode, and compiled as they are imported. Where that were switched
# off, each of the many processes that the tests start would compile all that it imports.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: demo test test-long lint install bench-peers clean

# `make demo EXIT=1` stops after the answers instead of staying up.
demo: install
	@$(BIN)/refdesk demo $(if $(EXIT),--exit)

# Files in their order: by number of tests, the slow files of a few tests would come last, and one
# worker would end long after the other. A third worker on two cores works while others wait.
test: .venv/tested lint
	@$(BIN)/refdesk models pull default
	@$(BIN)/python -m pytest -m "not long" -n 3 --dist loadfile --no-loadscope-reorder

# The long forms of the fault, fuzz and quality runs: about an hour.
test-long: .venv/tested
	@$(BIN)/refdesk models pull default
	@$(BIN)/python -m pytest

lint: .venv/tested
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy services shared
	@$(BIN)/lint-imports

install: .venv/installed

PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check --no-compile

.venv/bin/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
	  || { echo 'error: refdesk needs Python 3.11 or later; name one with PYTHON=…'; exit 1; }
	@$(PYTHON) -m venv .venv

.venv/installed: pyproject.toml | .venv/bin/python
	@echo 'installing refdesk into .venv (about a minute)…'
	@$(PIP) --editable .
	@touch $@

# PyTorch is pinned here because an open range pulls gigabytes of CUDA libraries.
.venv/tested: pyproject.toml | .venv/bin/python
	@echo 'installing refdesk and what its tests need, PyTorch among it (about three minutes)…'
	@$(PIP) torch==2.13.0 --editable '.[test]'
	@touch .venv/installed $@

# What refdesk is measured against (docs/benchmarks.md), each with what it needs in its own folder.
bench-peers: .venv/tested .bench/fastembed/installed .bench/infinity/installed \
  .bench/search/installed .bench/litellm/installed

.bench/%/installed: tests/bench/peers/%.txt
	@$(PYTHON) -m venv $(@D)
	@$(@D)/bin/python -m pip install --quiet --disable-pip-version-check --no-compile -r $<
	@touch $@

clean:
	rm -rf .venv .bench .demo build *.egg-info

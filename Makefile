# Two commands are all that a newcomer needs: `make demo` and `make test`.
PYTHON ?= python3
BIN := .venv/bin

.PHONY: demo test test-long lint install clean

# `make demo EXIT=1` stops after the answers instead of staying up.
demo: install
	@$(BIN)/refdesk demo $(if $(EXIT),--exit)

test: .venv/tested lint
	@$(BIN)/refdesk models pull default
	@$(BIN)/python -m pytest -m "not long"

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

.venv/installed: pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
	  || { echo 'error: refdesk needs Python 3.11 or later; name one with PYTHON=…'; exit 1; }
	@test -x $(BIN)/python || $(PYTHON) -m venv .venv
	@echo 'installing refdesk into .venv (about a minute)…'
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable .
	@touch $@

# PyTorch is pinned here because an open range pulls gigabytes of CUDA libraries.
.venv/tested: .venv/installed
	@echo 'installing what the tests need, PyTorch among it (about two minutes)…'
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check \
	  torch==2.13.0 --editable '.[test]'
	@touch $@

clean:
	rm -rf .venv .demo build *.egg-info

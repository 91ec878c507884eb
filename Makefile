# Needs Python >= 3.11 with venv and pip, git and make; `peers` needs apt.
# Everything else comes into .venv, which is made when it is first needed and
# made up to date when pyproject.toml changes.

PYTHON ?= python3
ARGS   ?=
VENV   := .venv
PY     := $(VENV)/bin/python
STAMP  := $(VENV)/.stamp
DOCS   := $(VENV)/.stamp-docs

.PHONY: help venv run test test-long lint fuzz bench docs dist peers ci-peers clean

help:
	@echo 'make run         the server with its development defaults (ARGS=... for more arguments)'
	@echo 'make test        lint, types, import contracts, and every test that is not long'
	@echo 'make test-long   the long tests: kill, load, fuzz'
	@echo 'make lint        ruff, mypy and the import contracts alone'
	@echo 'make fuzz        the fuzz harnesses (ARGS=... is passed on)'
	@echo 'make bench       the benchmarks (ARGS=... is passed on)'
	@echo 'make dist        wheel and source distribution, into dist'
	@echo 'make docs        the manual, into docs/_build/html'
	@echo 'make peers       installs the Debian programs that the peer tests talk to (root)'
	@echo 'make clean       removes .venv and everything generated'

venv: $(STAMP)

$(STAMP): pyproject.toml
	@echo 'Installing what mailfront needs into $(VENV); that may take a minute.'
	@test -x $(PY) || $(PYTHON) -m venv $(VENV)
	@$(PY) -m pip install --quiet --disable-pip-version-check --upgrade 'pip>=25.1'
	@$(PY) -m pip install --quiet --group dev --editable '.[all]'
	@touch $@

$(DOCS): $(STAMP)
	@$(PY) -m pip install --quiet --group docs
	@touch $@

run: $(STAMP)
	@exec $(VENV)/bin/mailfront serve $(ARGS)

lint: $(STAMP)
	@$(PY) -m ruff check
	@$(PY) -m mypy
	@PYTHONPATH=src $(VENV)/bin/lint-imports

# pytest is the last thing that runs, so that its closing line is the last line. Most tests wait for a peer more than
# they compute: two at once, each file in one of them.
test: $(STAMP) ci-peers lint
	@$(PY) -m pytest -m 'not long' -n 2 --dist loadfile $(ARGS)

test-long: $(STAMP)
	@$(PY) -m pytest -m long $(ARGS)

fuzz: $(STAMP)
	@$(PY) fuzz/run.py $(ARGS)

bench: $(STAMP)
	@$(PY) tests/benchmarks/bench.py $(ARGS)

docs: $(DOCS)
	@$(PY) -m sphinx --quiet --fail-on-warning --keep-going -b html docs docs/_build/html
	@echo 'The manual is in docs/_build/html/index.html'

dist: $(STAMP)
	@$(PY) -m pip install --quiet --group dist
	@$(PY) -m build --outdir dist . >/dev/null
	@ls dist

peers:
	@sh tests/peers/install.sh

# Only a CI run as root on Debian installs packages on its own.
ci-peers:
	@if [ -n "$$CI" ] && [ "$$(id -u)" = 0 ] && [ -e /etc/debian_version ]; then sh tests/peers/install.sh; fi

clean:
	rm -rf $(VENV) docs/_build build dist .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache .benchmarks

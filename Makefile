# Two commands on a fresh machine: `make search` and `make test`. Both make their own virtual environment first.
#
#   make search PYTHON=python3.13   with another Python
#   make test CONSTRAINTS=          with the newest packages there are, not those that the project is tested with

PYTHON ?= python3
CONSTRAINTS ?= constraints.txt
VENV := .venv
BIN := $(VENV)/bin
PIP = $(BIN)/python -m pip install --disable-pip-version-check $(CONSTRAINTS:%=--constraint %) --editable

.PHONY: search test lint types unit pages site clean

search: $(VENV)/installed
	$(BIN)/autoranger search --task digits

test: lint types unit

lint: $(VENV)/tested
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

# Pyright finds no errors either; it needs Node: npx pyright --pythonpath .venv/bin/python
types: $(VENV)/tested
	$(BIN)/mypy

unit: $(VENV)/tested
	OMP_NUM_THREADS=1 $(BIN)/pytest --numprocesses auto

# What is made from the components: they become the project's own, and are asked for a reference (tests/references.py).
pages: $(VENV)/installed
	$(BIN)/autoranger components --markdown > components/README.md
	$(BIN)/autoranger components --stub > components/optimizer/ranger21.pyi

# The documentation. `mkdocs serve` shows it while it is written.
site: $(VENV)/tested
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict

$(VENV)/installed: pyproject.toml setup.py $(CONSTRAINTS) | $(BIN)/python
	$(PIP) .
	@touch $@
	@$(activate)

$(VENV)/tested: pyproject.toml setup.py $(CONSTRAINTS) | $(BIN)/python
	$(PIP) '.[test]'
	@touch $(VENV)/installed $@
	@$(activate)

activate = echo "Installed in $(VENV). To use it in this shell: source $(BIN)/activate"

# An environment that could only be made by half is removed: the next call would take it for one.
$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo \
	"autoranger needs Python 3.11 or newer, which '$(PYTHON)' is not; name one: make search PYTHON=python3.13" >&2; exit 1; }
	@$(PYTHON) -c 'import ensurepip, venv' || { echo \
	"'$(PYTHON)' cannot make virtual environments; on Debian or Ubuntu: sudo apt install python3-venv" >&2; exit 1; }
	$(PYTHON) -m venv --clear $(VENV) || { rm -rf $(VENV); exit 1; }
	@echo "Packages come next, once. From the package index torch has CUDA on Linux: 3 GB to download, 6 GB on disk. Without a"
	@echo "GPU torch for the CPU does, with which all is 0.4 GB and 1.3 GB; for that, stop this and run"
	@echo "    PIP_EXTRA_INDEX_URL=https://download.pytorch.org/whl/cpu make search"

clean:
	rm -rf $(VENV) build dist site *.egg-info src/*.egg-info

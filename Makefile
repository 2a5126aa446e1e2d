# Two commands on a fresh machine: `make search` and `make test`. Both make their own virtual environment first.
#
#   make search PYTHON=python3.13   with another Python
#   make test CONSTRAINTS=          with the newest packages there are, not those that the project is tested with

PYTHON ?= python3
CONSTRAINTS ?= constraints.txt
VENV := .venv
BIN := $(VENV)/bin
PIP = $(BIN)/python -m pip install --disable-pip-version-check $(CONSTRAINTS:%=--constraint %) --editable

.PHONY: search test lint types unit clean

search: $(VENV)/installed
	$(BIN)/autoranger search --task digits

test: lint types unit

lint: $(VENV)/tested
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(VENV)/tested
	$(BIN)/mypy

unit: $(VENV)/tested
	$(BIN)/pytest

$(VENV)/installed: pyproject.toml setup.py $(CONSTRAINTS) | $(BIN)/python
	@$(announce)
	$(PIP) .
	@touch $@
	@echo "Installed in $(VENV). To use it in this shell: source $(BIN)/activate"

$(VENV)/tested: pyproject.toml setup.py $(CONSTRAINTS) | $(BIN)/python
	@$(announce)
	$(PIP) '.[test]'
	@touch $(VENV)/installed $@

# A half-made environment would pass for one the next time, so it goes.
$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo \
	"autoranger needs Python 3.11 or newer, and $(PYTHON) is none; name another: make search PYTHON=python3.13" >&2; exit 1; }
	@$(PYTHON) -c 'import ensurepip, venv' || { echo \
	"$(PYTHON) cannot make virtual environments; on Debian or Ubuntu: sudo apt install python3-venv" >&2; exit 1; }
	$(PYTHON) -m venv --clear $(VENV) || { rm -rf $(VENV); exit 1; }

define announce
echo "Installing packages into $(VENV), which takes minutes where torch is not at hand. What is downloaded: 0.3 GB with a"; \
echo "torch for the CPU; 3 GB (7 GB on disk) with CUDA, which the package index has for Linux. Without a GPU, spare it:"; \
echo "    PIP_EXTRA_INDEX_URL=https://download.pytorch.org/whl/cpu make search"
endef

clean:
	rm -rf $(VENV) build *.egg-info src/*.egg-info

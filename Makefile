# Two commands on a fresh machine: `make search` and `make test`. Both make their own virtual environment first.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin

.PHONY: search test lint types unit clean

search: $(VENV)/installed
	$(BIN)/autoranger search --task digits

test: lint types unit

lint: $(VENV)/tested
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

# The folders components/ and search/ live inside the package only once installed; the type checker needs a tree of it.
types: $(VENV)/tested
	rm -rf build/types && mkdir -p build/types/autoranger
	cp -r autoranger/. build/types/autoranger
	cp -r components search build/types/autoranger
	MYPYPATH=build/types $(BIN)/mypy -p autoranger

unit: $(VENV)/tested
	$(BIN)/pytest

$(VENV)/installed: pyproject.toml constraints.txt
	test -d $(VENV) || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable .
	touch $@

$(VENV)/tested: $(VENV)/installed
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[test]'
	touch $@

clean:
	rm -rf $(VENV) build *.egg-info

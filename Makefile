# Everything runs in .venv, which the first target that needs it builds.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin

.PHONY: demo reproduce test test-all mutants lint types bench docs notebooks address clean

demo: $(VENV)/experiments  ## Train SGD, SAM, PUGD and RTS-PUGD on handwritten digits: table and plot
	$(BIN)/python -m experiments demo

reproduce: $(VENV)/experiments  ## Measure a number of the README again: make reproduce NUMBER=pugd
	$(BIN)/python -m experiments reproduce $(NUMBER)

test: $(VENV)/dev  ## All tests but those marked slow, with programs that are compiled quickly; some minutes
	PUGD_COMPILE=quickly $(BIN)/python -m pytest -n 2 --dist loadgroup -m 'not slow'

test-all: $(VENV)/dev  ## Every test, with programs that are compiled as users have them; twenty minutes or so
	$(BIN)/python -m pytest -n 2 --dist loadgroup

mutants: $(VENV)/dev  ## Small wrong edits, each of which a test must detect; a quarter of an hour
	$(BIN)/python tests/mutants.py

lint: $(VENV)/dev  ## Style and formatting
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(VENV)/dev  ## Static types
	$(BIN)/pyright

bench: $(VENV)/experiments  ## Step costs, compared with a lower bound and other implementations
	$(BIN)/python -m experiments bench

docs: $(VENV)/dev  ## The documentation, in site/; no network needed
	$(BIN)/mkdocs build --config-file docs/mkdocs.yml

notebooks: $(VENV)/dev  ## Run every notebook in place; takes some minutes
	$(BIN)/python .github/run_notebooks.py

address:  ## Set the address of the repository: make address TO=account/repository
	$(PYTHON) .github/set_address.py '$(TO)'

clean:
	rm -rf $(VENV) .cache build dist site

$(VENV)/experiments: pyproject.toml
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --editable '.[experiments]'
	touch $@

$(VENV)/dev: pyproject.toml
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --editable '.[dev]'
	touch $@

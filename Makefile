# Campus Bridge. `make` alone shows this help.
SHELL := /bin/sh
PY := .venv/bin/python

.PHONY: help run test coverage check bench soak setup setup-run format clean

help: ## Show what can be made
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-10s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

run: setup-run ## Set everything up and watch a day of webhooks pass through the bridge (Ctrl-C ends it)
	@$(PY) -m bridge.main demo

test: setup ## Set up what the tests need, and run all of them with the checks
	@./scripts/check
	@$(PY) -m pytest -n 3 -q

coverage: setup ## Run all tests and show what they do not reach (twice as long)
	@$(PY) -m pytest -n 3 --cov --cov-report=term:skip-covered -q

check: setup ## Only the checks: ruff, mypy, import-linter
	@./scripts/check

bench: setup ## Measure accepting and end to end against a bare Flask application; prints ratios
	@$(PY) bench/run.py

soak: setup ## Kill every process of a running demo ten times over, and account for every delivery
	@$(PY) -m pytest -q tests/soak

format: setup ## Format the code
	@$(PY) -m ruff format . && $(PY) -m ruff check --fix .

setup: ## Install everything that developing and testing need (as root also Debian's packages)
	@./scripts/setup dev

setup-run:
	@./scripts/setup run

clean: ## Remove the environment and all data
	rm -rf .venv data

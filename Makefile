# The one list of what a developer runs. `make` alone explains it.
#
# The tools live in .venv, made from uv.lock by a pinned uv (in .uv, so that a sync does not touch it). Needed beforehand:
# python3 (3.11 or newer, or PYTHON=...), make, git.

SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:

PYTHON ?= python3
UV_VERSION := 0.13.9

# Wheels only: a missing wheel is an error, not five minutes of compiling. Our own packages have nothing to compile.
# --inexact: what `demo` added stays when `test` syncs.
SYNC := .uv/bin/uv sync --frozen --inexact --no-build --no-binary-package antiphon --no-binary-package antiphon-client
LOCKED := uv.lock pyproject.toml clients/python/pyproject.toml

export UV_PYTHON_DOWNLOADS := never
# An active environment of somebody else's is not where we install to.
unexport VIRTUAL_ENV

TEST_DIRS := $(wildcard tests/unit tests/contract tests/integration tests/conformance clients/python/tests)

.PHONY: help
help: ## This list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-12s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

.PHONY: demo
demo: .venv/.synced-demo ## A session with a real model in this terminal and on a page
	.venv/bin/antiphon demo

.PHONY: test
test: .venv/.synced ## Unit, contract, integration and conformance tests; T="-k name" chooses
	.venv/bin/pytest -n 3 --dist loadfile $(TEST_DIRS) $(T)

.PHONY: lint
lint: .venv/.synced ## Format, lint rules, direction of imports, lock file
	.venv/bin/ruff format --check .
	.venv/bin/ruff check .
	.venv/bin/lint-imports --no-logo
	.uv/bin/uv lock --check

.PHONY: types
types: .venv/.synced ## mypy, strict
	.venv/bin/mypy

.PHONY: behaviours
behaviours: .venv/.synced .venv/.synced-demo ## What Antiphon must be seen to do, on real processes; B="B01 B19" chooses
	.venv/bin/python -m tests.behaviours $(B)

.PHONY: http
http: .venv/.synced-http ## What the OpenAPI document allows and forbids, sent to a real gateway by schemathesis
	.venv/bin/pytest tests/openapi --timeout 300 $(T)

.PHONY: browser
browser: .venv/.synced-browser ## The page in real Chromium, its fold in Node; needs both
	@command -v node >/dev/null || { echo "node is missing: apt-get install nodejs" >&2; exit 1; }
	@command -v chromium >/dev/null || { echo "chromium is missing: apt-get install chromium" >&2; exit 1; }
	node --test tests/browser/
	.venv/bin/pytest tests/browser $(T)

.PHONY: bench
bench: .venv/.synced ## Benchmarks; not a test, nothing fails for being slow
	.venv/bin/antiphon bench latency publish

.PHONY: ci
ci: ## All that must hold before a change is accepted
	.ci/run

.PHONY: format
format: .venv/.synced ## Format the code and apply the safe fixes of the lint rules
	.venv/bin/ruff check --fix-only .
	.venv/bin/ruff format .

.PHONY: env
env: .venv/.synced ## Make or update .venv

.PHONY: clean
clean: ## Remove .venv and all caches
	rm -rf .venv .uv .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache .coverage .coverage.* htmlcov

.venv/.synced: $(LOCKED) .uv/.ready-$(UV_VERSION)
	tools/venv "$(PYTHON)"
	$(SYNC) --extra embedded --group dev
	@touch $@

.venv/.synced-browser: .venv/.synced
	$(SYNC) --extra embedded --group dev --group browser
	@touch $@

.venv/.synced-http: .venv/.synced
	$(SYNC) --extra embedded --group dev --group http
	@touch $@

.venv/.synced-demo: .venv/.synced
	$(SYNC) --extra embedded --extra local --group dev
	tools/openmp
	@touch $@

.uv/.ready-$(UV_VERSION):
	tools/bootstrap "$(PYTHON)" $(UV_VERSION)
	@touch $@

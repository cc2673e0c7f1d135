# The targets are the only commands that CI and people need. `make help` lists them.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
RUNTIME := $(VENV)/.runtime-installed
DEV := $(VENV)/.dev-installed
AUDIT := .venv-audit
GENERATORS := .venv-generators
CLIENTS := .venv-clients
RAY := .venv-ray
PYTEST := $(BIN)/python -m pytest -q
# Tests also wait for servers and clocks, so one worker more than there are cores; above 8 memory
# is what counts. docs/testing.md says what a group of tests is.
WORKERS := $(shell $(PYTHON) -c "import os; print(min(8, len(os.sched_getaffinity(0)) + 1 if hasattr(os, 'sched_getaffinity') else os.cpu_count() + 1))")
PARALLEL := --numprocesses $(WORKERS) --dist loadscope
QUICK := not system and not browser

# Each worker, and each process that a test starts, would compile again what it imports.
unexport PYTHONDONTWRITEBYTECODE

.DEFAULT_GOAL := help
.PHONY: help serve install test coverage check test-random test-system test-browser fuzz lint
.PHONY: conformance removal-check format lock docs eval bench soak clean audit generators-check clients-check deploy-check image-check ray-check screenshots

help:  ## List the targets.
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## /\1|/' | awk -F'|' '{printf "  make %-12s %s\n", $$1, $$2}'

serve: $(RUNTIME)  ## Start the service; HOST and PORT are understood.
	@exec $(BIN)/app serve $(if $(HOST),--host $(HOST)) $(if $(PORT),--port $(PORT))

install: $(RUNTIME)  ## Make .venv and install what the service needs.

test: $(DEV)  ## Run the tests (minutes; no network needed once installed).
	@$(PYTEST) $(PARALLEL) -m "$(QUICK)" $(ORDER)

coverage: $(DEV)  ## Run the same tests, hold coverage to its floors.
	@$(PYTEST) $(PARALLEL) -m "$(QUICK)" $(ORDER) --cov --cov-report=term --cov-report=json:.coverage.json
	@$(BIN)/python scripts/check_coverage.py

check: lint test  ## What one runs before a commit: lint and tests.

test-random: ORDER = -p randomly
test-random: test  ## Run the tests in random order; the seed is in the first lines.

test-system: $(DEV)  ## Run the proofs with real processes, signals and load.
	@$(PYTEST) $(PARALLEL) -m "system and not alone" --timeout 600
	@$(PYTEST) -m "system and alone" --timeout 600

fuzz: $(DEV)  ## Explore the property tests with fresh seeds for SECONDS (30).
	@$(BIN)/python scripts/fuzz.py $(if $(SECONDS),--seconds $(SECONDS))

conformance: $(DEV)  ## Serve tiny models of every kind, hold them against their libraries; writes docs/models.md.
	@$(BIN)/python scripts/conformance.py $(KINDS)

test-browser: $(DEV)  ## Try the page in a real browser (Debian's Chromium).
	@PYTHONPATH=tests $(BIN)/python scripts/chromium.py
	@$(PYTEST) $(PARALLEL) -m browser

removal-check: $(DEV)  ## Take each feature and task out of a copy (NAMES for some): lint, types, core tests, /predict.
	@PYTHONPATH=.:tests $(BIN)/python scripts/removal_check.py --workers $(WORKERS) $(NAMES)

screenshots: $(DEV)  ## Take docs/images/ anew, from the real page with the real models.
	@PYTHONPATH=tests $(BIN)/python scripts/chromium.py
	@PYTHONPATH=tests $(BIN)/python scripts/screenshots.py

lint: $(DEV)  ## Run ruff, codespell, mypy --strict, import-linter and the pins check.
	@$(BIN)/ruff check .
	@$(BIN)/codespell
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy
	@$(BIN)/lint-imports
	@$(BIN)/python scripts/lock.py --check

format: $(DEV)  ## Let ruff reformat the code.
	@$(BIN)/ruff format .
	@$(BIN)/ruff check --fix .

lock: $(DEV)  ## Resolve the ranges of pyproject.toml into requirements*.txt.
	@$(BIN)/python scripts/lock.py

audit: $(AUDIT)/.installed  ## Look for known vulnerabilities of the pins, and for unsafe code.
	@$(AUDIT)/bin/python scripts/audit.py

deploy-check: $(DEV)  ## Check deploy/: cfn-lint, botocore's models, kustomize, promtool, and each file against the others.
	@$(BIN)/python scripts/check_deploy.py
	@$(BIN)/python scripts/check_kubernetes.py
	@$(BIN)/python scripts/check_monitoring.py

generators-check: $(DEV) $(GENERATORS)/.installed  ## Make clients from the OpenAPI document with seven generators, and call with four.
	@PYTHONPATH=.:tests $(BIN)/python scripts/generators_check.py --venv $(GENERATORS) $(NAMES)

clients-check: $(DEV)  ## Run what docs/clients.md says of each client against the real service (NAMES for some).
	@PYTHONPATH=.:tests $(BIN)/python scripts/clients_check.py --environments $(CLIENTS) --python $(PYTHON) $(NAMES)

image-check: $(DEV)  ## Build the images and run them hardened, as root; BASE_IMAGE is understood.
	@PYTHONPATH=.:tests $(BIN)/python scripts/image_check.py $(if $(BASE_IMAGE),--base $(BASE_IMAGE)) $(if $(SCRATCH),--scratch $(SCRATCH))

ray-check: $(RUNTIME) $(RAY)/.installed  ## Run the service on a local Ray: two replicas, streams, killed ones; prints figures.
	@PYTHONPATH=. $(RAY)/bin/python scripts/ray_check.py --models $(RAY)/models --converter $(BIN)/app

docs: $(RUNTIME)  ## Write the tables of docs/ and .env.example from the code.
	@$(BIN)/python scripts/document.py

eval: $(RUNTIME)  ## Print how good the default classifiers are, of texts and of names, from the committed files.
	@$(BIN)/python scripts/eval_sentiment.py --check
	@$(BIN)/python scripts/eval_ner.py --check

bench: $(DEV)  ## Measure against the peers (two hours); writes benchmarks/RESULTS*.md.
	@PYTHONPATH=. $(BIN)/python benchmarks/run.py
	@PYTHONPATH=. $(BIN)/python benchmarks/chat.py

soak: $(DEV)  ## Ten minutes of mixed lengths: memory must stay flat.
	@PYTHONPATH=. $(BIN)/python benchmarks/soak.py

clean:  ## Remove .venv and caches. Keeps data/.
	rm -rf $(VENV) $(AUDIT) $(GENERATORS) $(CLIENTS) $(RAY) .mypy_cache .ruff_cache .pytest_cache .import_linter_cache .hypothesis .coverage .coverage.*

$(RUNTIME): requirements.txt requirements-models.txt pyproject.toml scripts/install.py
	@$(PYTHON) scripts/install.py --venv $(VENV) runtime
	@touch $@

$(DEV): $(RUNTIME) requirements-dev.txt
	@$(PYTHON) scripts/install.py --venv $(VENV) dev
	@touch $@

$(GENERATORS)/.installed: pyproject.toml scripts/install.py scripts/generators/package.json
	@$(PYTHON) scripts/install.py --venv $(GENERATORS) generators
	@touch $@

$(RAY)/.installed: pyproject.toml requirements-api.txt scripts/install.py
	@$(PYTHON) scripts/install.py --venv $(RAY) ray
	@touch $@

$(AUDIT)/.installed: pyproject.toml scripts/install.py
	@$(PYTHON) scripts/install.py --venv $(AUDIT) audit
	@touch $@

# Everything runs inside .venv, which the first target that needs it creates. PYTHON chooses the interpreter.
PYTHON ?= python3.11
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
# Where version managers keep interpreters whose plain name leads nowhere.
MANAGED := $(HOME)/.pyenv/versions $(HOME)/.local/share/uv/python
works = $(shell $(1) -c 'print(1)' 2>/dev/null)
find = $(firstword $(foreach p,python$(1) $(wildcard $(MANAGED:%=%/*$(1).*/bin/python$(1))),$(if $(call works,$(p)),$(p))))

# Resonate's own servers in memory, with which a store is tested: one needs a newer Python, one Node.
RESONATE := .venv-resonate
RESONATE_PYTHON := resonate-sdk==0.8.1
NEWER = $(or $(call find,3.13),$(call find,3.12))
RESONATE_NODE := @resonatehq/sdk@0.11.5
NPM = $(shell command -v npm)

# What is bounded by control groups.
GROUPS := tests/unit/kernels/test_groups.py tests/unit/kernels/test_unified_groups.py \
	tests/acceptance/sandbox/test_control_groups.py tests/acceptance/providers/test_shell_groups.py \
	tests/acceptance/linger/test_sandboxed.py

# What e2e has on top of the suite: a JupyterLab, and a driver for the browser, which is the system's.
CHROMIUM = $(firstword $(shell command -v chromium || command -v chromium-browser))

# nbclient's own tests, which its source distribution has: those of the version that is installed.
NBCLIENT := $(VENV)/nbclient-tests
NBCLIENT_VERSION = $(shell $(BIN)/python -c 'import nbclient; print(nbclient.__version__)')

# So many processes share the suite: it waits more than it computes. A file's tests stay together.
JOBS ?= 2

.PHONY: demo test test-all chaos soak attacks vm e2e check format bench clean

demo: $(STAMP)
	$(BIN)/capsule run docs/examples/tour.py
	$(BIN)/capsule run docs/examples/tour.ipynb

test: $(STAMP) $(RESONATE)/.python $(RESONATE)/.node $(NBCLIENT)/.fetched
	$(BIN)/python -m pytest --numprocesses $(JOBS) --dist loadfile

# Minutes each, so not part of the suite.
chaos: $(STAMP)
	$(BIN)/python -m pytest tests/chaos

soak: $(STAMP)
	$(BIN)/python -m pytest --capture=no tests/soak

# From within sandboxed sessions, as root (if it is root who runs it) and as an ordinary user; `make test` has a part of it.
attacks: $(STAMP)
	$(BIN)/python -m tests.acceptance.sandbox.attacks.runner --level landlock namespaces none

# In a virtual machine whose control groups are all of version 2: as root, and as an ordinary user who was given one.
vm: $(STAMP)
	tests/vm/boot $(BIN)/python -m pytest -p no:cacheprovider $(GROUPS)
	tests/vm/boot tests/vm/as-ordinary $(BIN)/python -m pytest -p no:cacheprovider $(GROUPS)

# In a real browser; how the pages looked is in tests/e2e/screenshots.
e2e: $(VENV)/.e2e
	$(if $(CHROMIUM),,@echo "There is no Chromium, in which JupyterLab is tested. On Debian: apt-get install chromium"; exit 1)
	$(BIN)/python -m pytest tests/e2e

check: $(STAMP)
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy capsule protocol/capsule_protocol kernels/capsule_kernels pool/capsule_pool bridge/capsule_bridge bench/capsule_bench tests
	$(BIN)/lint-imports

format: $(STAMP)
	$(BIN)/ruff check --fix
	$(BIN)/ruff format

bench: $(STAMP)
	$(BIN)/capsule-bench execute

# The suite on every interpreter that is installed; each has an environment of its own.
test-all: test test-3.12 test-3.13

test-3.%:
	$(if $(call find,3.$*),$(MAKE) test PYTHON=$(call find,3.$*) VENV=.venv-3.$*,@echo "Python 3.$* is not installed: nothing was tested on it")

$(STAMP): pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[dev]'
	touch $(STAMP)

$(VENV)/.e2e: $(STAMP)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[e2e]'
	touch $@

# Without a stamp it is tried again the next time; what is missing is said, and the tests go on without it.
$(RESONATE)/.python:
	@$(if $(NEWER),$(NEWER) -m venv $(RESONATE) \
		&& $(RESONATE)/bin/python -m pip install --quiet --disable-pip-version-check $(RESONATE_PYTHON) && touch $@,false) \
		|| echo "Python 3.12 or the network is missing: no tests with Resonate's server in Python"

$(RESONATE)/.node:
	@$(if $(NPM),mkdir -p $(RESONATE) \
		&& $(NPM) install --silent --no-fund --no-audit --prefix $(RESONATE) $(RESONATE_NODE) && touch $@,false) \
		|| echo "npm or the network is missing: no tests with Resonate's server in Node"

$(NBCLIENT)/.fetched: $(STAMP)
	@rm -rf $(NBCLIENT) && mkdir $(NBCLIENT) \
		&& $(BIN)/python -m pip download --quiet --disable-pip-version-check --no-deps --no-binary nbclient \
			--dest $(NBCLIENT) nbclient==$(NBCLIENT_VERSION) \
		&& tar -xzf $(NBCLIENT)/nbclient-*.tar.gz --strip-components=1 -C $(NBCLIENT) && touch $@ \
		|| echo "The network is missing: no tests of nbclient's own"

clean:
	rm -rf $(VENV) .venv-* build *.egg-info .mypy_cache .ruff_cache .pytest_cache

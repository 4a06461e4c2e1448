# make demo: raw text to Table 3 in minutes. make test: linters and all tests. make quick: linters and the fast tests.
PYTHON ?= python3
VENV ?= .venv
ARTIFACTS ?= artifacts
BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed

.PHONY: demo test quick lint install clean faults fuzz benchmarks docs release-check

install: $(INSTALLED)

$(INSTALLED): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "mapnet needs Python 3.11 or newer, but $(PYTHON) is $$($(PYTHON) --version 2>&1): make PYTHON=python3.11"; exit 1; }
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev]'
	@touch $@

demo: $(INSTALLED)
	$(BIN)/mapnet run --recipe demo --artifacts $(ARTIFACTS)

test: lint $(INSTALLED)
	$(BIN)/python -m pytest -n 2 --dist worksteal

quick: lint $(INSTALLED)
	$(BIN)/python -m pytest -n 2 --dist worksteal -m "not slow"

lint: $(INSTALLED)
	$(BIN)/ruff check mapnet_cli tests
	$(BIN)/ruff format --check mapnet_cli tests
	$(BIN)/mypy

# Fault tests: twenty SIGKILLs each in the whole run, corpora, pretraining and grids; then every operation on files with
# every fault, and every kind of damage. `make test` runs a slice of them.
faults: $(INSTALLED)
	TRIALS=0 $(BIN)/python -m pytest -n 2 tests/faults/test_io.py tests/faults/test_damage.py tests/faults/test_bounds.py
	KILLS=20 $(BIN)/python -m pytest tests/e2e tests/faults tests/jobs/test_ray_corpus.py -k kill

# Damaged and odd input for all readers of users' files: 10,000 examples of each kind, half an hour; `make test` runs 300.
# Then 100,000 of each kind that the code's branches guide (atheris; Linux only), forty minutes.
READERS := test_text_files test_binary_files test_json_of_any_form test_csv_of_any_form test_tables test_configs \
	test_records_of_mapnet test_saved_data_sets test_models
fuzz: $(INSTALLED)
	FUZZ=10000 $(BIN)/python -m pytest -n 2 tests/fuzz
	FUZZ=10000 $(BIN)/python -m pytest -n 2 tests/prepare_corpus -k any_
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[fuzz]'
	for test in $(READERS); do $(BIN)/python -m tests.fuzz.guided $$test 100000 || exit 1; done

# Comparisons with standard implementations; each prints a JSON object as its last line.
benchmarks: $(INSTALLED)
	$(BIN)/python -m tests.benchmarks.pretrain
	$(BIN)/python -m tests.benchmarks.pretrain --size base --steps 1 --only mapnet --only masked
	$(BIN)/python -m tests.benchmarks.overhead
	$(BIN)/python -m tests.benchmarks.loading
	$(BIN)/python -m tests.benchmarks.finetune
	$(BIN)/python -m tests.benchmarks.finetune --size base --examples 64 --only mapnet --only bfloat16
	$(BIN)/python -m tests.benchmarks.engine
	$(BIN)/python -m tests.benchmarks.grid

# The documentation as a site, in build/site.
docs: $(INSTALLED)
	$(BIN)/mkdocs build --strict

# Builds sdist and wheel into build/release/dist, checks them, and runs the wheel in an empty environment of PYTHON:
# a tiny run from text to a report.
RELEASE := $(CURDIR)/build/release
TINY := --set corpus.vocab_size=300 --set pretrain.steps=10 --set pretrain.warmup_steps=2 --set 'finetune.tasks=["RTE"]' \
	--set 'finetune.seeds=[1]' --set 'finetune.milestones=[1.0]' --set finetune.epochs=1 --set finetune.max_train_examples=64

release-check:
	rm -rf $(RELEASE)
	$(PYTHON) -m venv $(RELEASE)/tools
	$(RELEASE)/tools/bin/python -m pip install --quiet --disable-pip-version-check -c constraints.txt build twine
	$(RELEASE)/tools/bin/python -m build --outdir $(RELEASE)/dist
	$(RELEASE)/tools/bin/twine check --strict $(RELEASE)/dist/*
	$(PYTHON) -m venv $(RELEASE)/venv
	$(RELEASE)/venv/bin/python -m pip install --quiet --disable-pip-version-check -c constraints.txt $(RELEASE)/dist/*.whl
	cd $(RELEASE) && venv/bin/python -m pip check && venv/bin/mapnet --version && venv/bin/mapnet run --recipe demo $(TINY)

clean:
	rm -rf $(VENV) build *.egg-info .mypy_cache .ruff_cache .pytest_cache

# Two commands matter: `make demo` and `make test`. Each sets up what it needs from a bare machine with Python 3.11.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
CPU_VENV := .venv-cpu
CPU_BIN := $(CPU_VENV)/bin
RIVALS_VENV := .venv-rivals
RIVALS_BIN := $(RIVALS_VENV)/bin
PIP_QUIETLY := install --quiet --disable-pip-version-check
PIP_OPTIONS := $(PIP_QUIETLY) -c constraints.txt
PIP_INSTALL := -m pip $(PIP_OPTIONS)
DEMO := demo-output
export ORT_DISABLE_TELEMETRY = 1

.PHONY: demo test test-fast prove-archives check format bench bench-rivals clean

demo: $(VENV)/.ready ## train on the sample posts, export, score a second file
	@rm -rf $(DEMO)
	$(BIN)/edgewren train ridge examples/town_posts_train.csv --label-column bias --encoder minilm --test examples/town_posts_test.csv --output $(DEMO)/model
	$(BIN)/edgewren export $(DEMO)/model --output $(DEMO)/bundle
	$(BIN)/edgewren score examples/town_posts_new.csv --model $(DEMO)/bundle --output $(DEMO)/scored.csv
	@$(BIN)/python examples/show_scored.py $(DEMO)/scored.csv

test: check $(VENV)/.ready $(CPU_VENV)/.ready ## everything: checks, then all tests
	$(BIN)/python -m pytest

test-fast: $(VENV)/.ready ## tests without real models and fresh environments
	$(BIN)/python -m pytest -m "not slow"

prove-archives: $(VENV)/.ready ## every failing operation, death, power cut and SIGKILL while an archive is scored; half an hour
	$(BIN)/python -m pytest tests/archive -m "proof or not proof"

check: $(VENV)/.ready ## formatting, lint, types
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy

format: $(VENV)/.ready ## apply formatting and safe lint fixes
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

bench: $(VENV)/.ready ## throughput beside the stacks that users would otherwise take
	$(BIN)/python benchmarks/throughput.py

bench-rivals: $(RIVALS_VENV)/.ready ## the same for fourteen stacks, in an environment of their own; half an hour
	$(RIVALS_BIN)/python benchmarks/rivals.py

# torch comes first and alone: a plain resolve could take a newer build with gigabytes of CUDA.
$(VENV)/.ready: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python $(PIP_INSTALL) torch
	$(BIN)/python $(PIP_INSTALL) -e ".[dev]"
	@touch $@

# What an app developer has: the built wheel with [cpu], nothing else. A test looks inside.
$(CPU_VENV)/.ready: pyproject.toml constraints.txt $(VENV)/.ready $(shell find runtime train export -name '*.py')
	rm -rf $(CPU_VENV) dist
	$(BIN)/python -m build --quiet --wheel --outdir dist .
	$(PYTHON) -m venv --without-pip $(CPU_VENV)
	$(BIN)/python -m pip --python $(CPU_BIN)/python $(PIP_OPTIONS) "$$(ls dist/*.whl)[cpu]"
	@touch $@

$(RIVALS_VENV)/.ready: benchmarks/requirements.txt
	$(PYTHON) -m venv $(RIVALS_VENV)
	$(RIVALS_BIN)/python -m pip $(PIP_QUIETLY) -c benchmarks/requirements.txt torch
	$(RIVALS_BIN)/python -m pip $(PIP_QUIETLY) -r benchmarks/requirements.txt
	$(RIVALS_BIN)/python -m pip $(PIP_QUIETLY) --no-deps -e .
	@touch $@

clean:
	rm -rf $(VENV) $(CPU_VENV) $(RIVALS_VENV) $(DEMO) dist .pytest_cache .mypy_cache .ruff_cache .hypothesis

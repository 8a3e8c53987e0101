# Two commands matter: `make demo` and `make test`. Each sets up what it needs from a bare machine with Python 3.11.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
CPU_VENV := .venv-cpu
CPU_BIN := $(CPU_VENV)/bin
SCALE_VENV := .venv-scale
SCALE_BIN := $(SCALE_VENV)/bin
RIVALS_VENV := .venv-rivals
RIVALS_BIN := $(RIVALS_VENV)/bin
PIP_QUIETLY := install --quiet --disable-pip-version-check
PIP_OPTIONS := $(PIP_QUIETLY) -c constraints.txt
PIP_INSTALL := -m pip $(PIP_OPTIONS)
DEMO := demo-output
DATA ?= ../shared/data
BUNDLES ?= artifacts
TRAINED_ON = $(DATA)/media_bias_train.csv --label-column bias --encoder minilm --test $(DATA)/media_bias_test.csv
export ORT_DISABLE_TELEMETRY = 1

.PHONY: demo demo-train artifacts test test-fast test-scale test-versions test-oldest test-newest prove-archives check format bench bench-rivals fuzz-bundles bench-load clean

demo: $(CPU_VENV)/.ready ## score a shipped file with the default inside the wheel and with a larger bundle; needs no more than edgewren[cpu]
	@rm -rf $(DEMO) && mkdir $(DEMO)
	$(CPU_BIN)/edgewren score examples/town_posts_new.csv --output $(DEMO)/scored_by_the_default.csv
	@$(CPU_BIN)/python examples/show_scored.py $(DEMO)/scored_by_the_default.csv
	@if [ -d $(BUNDLES)/media-bias-ridge ]; then \
	  set -x; $(CPU_BIN)/edgewren score examples/town_posts_new.csv --model $(BUNDLES)/media-bias-ridge --output $(DEMO)/scored.csv; \
	  { set +x; } 2>/dev/null; $(CPU_BIN)/python examples/show_scored.py $(DEMO)/scored.csv; \
	else echo "skipped: $(BUNDLES)/media-bias-ridge is not there. 'make artifacts' builds it, 'make demo-train' a model of its own."; fi

demo-train: $(VENV)/.ready ## train on the sample posts, export, score a second file
	@rm -rf $(DEMO)
	$(BIN)/edgewren train ridge examples/town_posts_train.csv --label-column bias --encoder minilm --test examples/town_posts_test.csv --output $(DEMO)/model
	$(BIN)/edgewren export $(DEMO)/model --output $(DEMO)/bundle
	$(BIN)/edgewren score examples/town_posts_new.csv --model $(DEMO)/bundle --output $(DEMO)/scored.csv
	@$(BIN)/python examples/show_scored.py $(DEMO)/scored.csv

artifacts: $(VENV)/.ready ## train and export the default bundles from DATA; see artifacts/README.md
	$(BIN)/edgewren train ridge $(TRAINED_ON) --exits auto --output build/media-bias-ridge --force
	$(BIN)/edgewren export build/media-bias-ridge --precision int8 --notes artifacts/notes-ridge.md --output $(BUNDLES)/media-bias-ridge --force
	$(BIN)/edgewren train lora $(TRAINED_ON) --exits auto --output build/media-bias-lora --force
	$(BIN)/edgewren export build/media-bias-lora --precision int8 --notes artifacts/notes-lora.md --output $(BUNDLES)/media-bias-lora --force

test: check $(VENV)/.ready $(CPU_VENV)/.ready ## everything: checks, then all tests
	$(BIN)/python -m pytest

test-fast: $(VENV)/.ready ## tests without real models and fresh environments
	$(BIN)/python -m pytest -m "not slow"

test-scale: $(SCALE_VENV)/.ready ## Ray with two workers and Spark local[2], workers killed at random; needs Java 17
	$(SCALE_BIN)/python -m pytest tests/scale -m scale

test-versions: test-oldest test-newest ## the fast tests with the oldest versions that pyproject.toml admits, and with newer ones than constraints.txt

test-oldest test-newest: test-%: .venv-%/.ready
	.venv-$*/bin/python -m pytest -m "not slow" tests/runtime tests/archive tests/train tests/export

prove-archives: $(VENV)/.ready ## failing operations, deaths, power cuts, kills while archives are scored
	$(BIN)/python -m pytest tests/archive -m "proof or not proof"

check: $(VENV)/.ready ## formatting, lint, types
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy

format: $(VENV)/.ready ## apply formatting and safe lint fixes
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

bench: $(VENV)/.ready ## throughput beside the stacks that users would otherwise take
	$(BIN)/python benchmarks/rivals.py --only edgewren-int8 edgewren-fp32 sentence-transformers transformers-pipeline

bench-rivals: $(RIVALS_VENV)/.ready ## the same for all stacks, in an environment of their own; about eighteen minutes
	$(RIVALS_BIN)/python benchmarks/rivals.py $(OPTIONS)

# torch comes first and alone: a plain resolve could take a newer build with gigabytes of CUDA.
$(VENV)/.ready: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python $(PIP_INSTALL) torch
	$(BIN)/python $(PIP_INSTALL) -e ".[dev]"
	@touch $@

# What an app developer has: the built wheel with [cpu], nothing else (pip leaves when it is done). A test looks inside.
# All that the wheel holds: code, the web page, the default bundle.
SHIPPED := README.md LICENSE $(shell find runtime train export -type f -not -path '*/__pycache__/*')
$(CPU_VENV)/.ready: pyproject.toml constraints.txt $(SHIPPED)
	rm -rf $(CPU_VENV) dist
	$(PYTHON) -m venv $(CPU_VENV)
	$(CPU_BIN)/python -m pip wheel --quiet --disable-pip-version-check --no-deps --wheel-dir dist .
	$(CPU_BIN)/python $(PIP_INSTALL) "$$(ls dist/*.whl)[cpu]"
	$(CPU_BIN)/python -m pip uninstall --quiet --yes setuptools pip
	@touch $@

FUZZ_CASES ?= 50000
fuzz-bundles: $(VENV)/.ready ## mutated bundles through the loader, in processes of their own; FUZZ_SEED=1 for others
	EDGEWREN_FUZZ_CASES=$(FUZZ_CASES) EDGEWREN_FUZZ_SEED=$(or $(FUZZ_SEED),0) $(BIN)/python -m pytest -s tests/export/test_bundle_fuzzing.py

bench-load: $(VENV)/.ready ## time to load BUNDLE, with and without the checks
	$(BIN)/python benchmarks/load_time.py $(BUNDLE)

# Ray and Spark are large and nobody else's need, so they are not in .venv. onnx makes the tests' own models.
$(SCALE_VENV)/.ready: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(SCALE_VENV)
	$(SCALE_BIN)/python $(PIP_INSTALL) -e ".[cpu,ray,spark]" pytest onnx
	@touch $@

.venv-oldest/.ready .venv-newest/.ready: .venv-%/.ready: pyproject.toml tests/versions/%.txt
	$(PYTHON) -m venv .venv-$*
	.venv-$*/bin/python -m pip $(PIP_QUIETLY) -c tests/versions/$*.txt torch
	.venv-$*/bin/python -m pip $(PIP_QUIETLY) -c tests/versions/$*.txt -e ".[all,serve]" pytest hypothesis httpx gunicorn
	@touch $@

$(RIVALS_VENV)/.ready: benchmarks/requirements.txt
	$(PYTHON) -m venv $(RIVALS_VENV)
	$(RIVALS_BIN)/python -m pip $(PIP_QUIETLY) -c benchmarks/requirements.txt torch
	$(RIVALS_BIN)/python -m pip $(PIP_QUIETLY) -r benchmarks/requirements.txt
	$(RIVALS_BIN)/python -m pip $(PIP_QUIETLY) --no-deps -e .
	@touch $@

clean:
	rm -rf $(VENV) $(CPU_VENV) $(SCALE_VENV) $(RIVALS_VENV) .venv-oldest .venv-newest $(DEMO) dist .pytest_cache .mypy_cache .ruff_cache .hypothesis

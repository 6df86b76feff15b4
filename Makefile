# Everything runs in .venv, made with $(PYTHON) and kept at the versions in constraints.txt.
PYTHON ?= python3
# Arguments for pytest: two processes, for most of the time goes into compiling. A file stays in one of them, as its
# tests share what they have compiled; and files go in order of
# their names, of which the last ones are quick, so that both processes end together.
PYTEST_ARGS ?= -n 2 --dist loadfile --no-loadscope-reorder

VENV := .venv
BIN := $(VENV)/bin
# A module is compiled when it is first imported, which most of those installed never are: half of the installation's
# time. So the compiled modules have to be kept, also where the environment says not to.
PIP_INSTALL := $(BIN)/python -m pip install --quiet --disable-pip-version-check --no-compile -c constraints.txt
export PYTHONDONTWRITEBYTECODE :=

.NOTPARALLEL:
.PHONY: help demo docs notebook test test-quick test-all lint format bench bench-quick stress stress-long clean distclean

help:
	@echo 'make demo       distil CartPole into two examples, then train fresh learners on them'
	@echo 'make test       lint, check types and run the tests'
	@echo 'make test-quick the same without the slow tests'
	@echo 'make test-all   the same with the thorough tests (every case of a kind), PyTorch, and the site'
	@echo 'make lint       check style and types only'
	@echo 'make format     rewrite the sources in the project style'
	@echo 'make docs       build the documentation into site/, without a network'
	@echo 'make notebook   execute the notebook in docs again, in place'
	@echo 'make bench      measure the speed of everything and write docs/performance.md; bench-quick: a part of it'
	@echo 'make stress     mutate 100,000 files, kill 60 runs, fill up disks: half an hour'
	@echo 'make stress-long run every outer loop for an hour, side by side'
	@echo 'make clean      remove caches and build products'
	@echo 'make distclean  the same, and .venv'
	@echo
	@echo 'The first run installs into .venv; choose the interpreter with PYTHON=python3.12'

$(BIN)/pip:
	@$(PYTHON) -c 'import sys; sys.exit("floppy needs Python 3.11 or newer: set PYTHON=..." if sys.version_info < (3, 11) else 0)'
	$(PYTHON) -m venv $(VENV)

$(VENV)/.installed: pyproject.toml constraints.txt | $(BIN)/pip
	$(PIP_INSTALL) -e .
	@touch $@

# The development install includes the plain one, so it stamps both.
$(VENV)/.installed-dev: pyproject.toml constraints.txt | $(BIN)/pip
	$(PIP_INSTALL) -e '.[dev]'
	@touch $(VENV)/.installed $@

# The site takes dozens of packages that nothing else needs.
$(VENV)/.installed-docs: $(VENV)/.installed-dev
	$(PIP_INSTALL) -e '.[dev,docs]'
	@touch $@

# PyTorch is larger than all others together.
$(VENV)/.installed-whole: $(VENV)/.installed-docs
	$(PIP_INSTALL) -e '.[dev,docs,sb3,torch]'
	@touch $@

demo: $(VENV)/.installed
	$(BIN)/floppy distill cartpole --examples 2 --evaluate-every 10 --out runs/demo --overwrite
	$(BIN)/floppy evaluate runs/demo/dataset.safetensors --distribution lambda --learners 100 --episodes 20

# Material for MkDocs announces in a warning what its makers do next.
docs: $(VENV)/.installed-docs
	NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs build --quiet --clean
	@echo 'The documentation is in site/index.html'

notebook: $(VENV)/.installed-docs
	cd docs/notebooks && ../../$(BIN)/python -m nbconvert --to notebook --execute --inplace first-steps.ipynb

# pytest comes last, so that its summary ends the output.
test: lint
	$(BIN)/python -m pytest $(PYTEST_ARGS) -m 'not thorough'

test-quick: lint
	$(BIN)/python -m pytest $(PYTEST_ARGS) -m 'not slow and not thorough'

test-all: $(VENV)/.installed-whole lint
	$(BIN)/python -m pytest $(PYTEST_ARGS)

lint: $(VENV)/.installed-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

format: $(VENV)/.installed-dev
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

# Not part of the tests: half an hour. The tables are docs/results/stress/.
STRESS := docs/results/stress
stress: $(VENV)/.installed-dev
	$(BIN)/python tests/stress/fuzz.py --count 100000 --out $(STRESS)/fuzz.csv
	$(BIN)/python tests/stress/kills.py --kills 60 --out $(STRESS)/kills.csv
	$(BIN)/python tests/stress/full_disk.py --out $(STRESS)/full_disk.csv
	$(BIN)/python tests/stress/partners.py --out $(STRESS)/partners.csv
	$(BIN)/python tests/stress/devices.py --out $(STRESS)/devices.csv
	$(BIN)/python tests/stress/budget.py --minutes 2 --out $(STRESS)/budget.csv
	$(BIN)/python tests/stress/page.py

stress-long: $(VENV)/.installed-dev
	$(BIN)/python tests/stress/long.py --minutes 60 --out $(STRESS)/long.csv
	$(BIN)/python tests/stress/page.py

# On an idle machine: it takes a quarter of an hour, and writes docs/performance.json and the table of its page.
bench: $(VENV)/.installed-dev
	$(BIN)/python benchmarks/bench.py

bench-quick: $(VENV)/.installed-dev
	$(BIN)/python benchmarks/bench.py --quick

clean:
	rm -rf build dist site .pytest_cache .mypy_cache .ruff_cache src/*.egg-info
	find src tests scripts benchmarks -type d -name __pycache__ -prune -exec rm -rf {} +

distclean: clean
	rm -rf $(VENV)

# Two commands set everything up on a machine with Python ≥ 3.11 and a package index: `make demo` and `make test`.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
NUMERICAL := $(addprefix tests/engine/,arrays recovery sketches steering models evaluation/test_metrics.py) \
	$(addprefix tests/plugins/,test_rise.py test_gradients.py)
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt

.PHONY: demo test coverage test-slow test-benchmarks test-isa test-gpu fuzz lint types tree bench compare clean

demo: $(READY)  ## the whole job on an embedded corpus, in minutes
	$(BIN)/headwater demo

test: $(READY)  ## the suite, without what is marked slow or gpu
	$(BIN)/python -m pytest -n 2 --dist loadfile -m "not slow and not gpu"

coverage: $(READY)  ## the suite again, with the branches of the package that it leaves out
	$(BIN)/python -m pytest -n 2 --dist loadfile -m "not slow and not gpu" --cov=store --cov=engine --cov=plugins \
		--cov-branch --cov-report=term-missing:skip-covered

test-slow: $(READY)  ## what takes minutes
	$(BIN)/python -m pytest -n 2 -m "slow and not gpu" --ignore tests/end_to_end/test_benchmarks.py

test-benchmarks: $(READY)  ## every benchmark script, in a short form
	$(BIN)/python -m pytest -n 2 -m "slow and not gpu" tests/end_to_end/test_benchmarks.py

test-isa: $(READY)  ## the numerical tests under each instruction set that the processor has
	.ci/isa $(NUMERICAL)

test-gpu: $(READY)  ## what needs CUDA
	$(BIN)/python -m pytest -m gpu

FUZZ ?=
fuzz: $(READY)  ## damaged files, kills, hostile inputs and tiny budgets, an hour; FUZZ="--only kills --seed 7 --count 1" runs one case
	PYTHONPATH=tests $(BIN)/python -m fuzz $(FUZZ)

lint: $(READY)  ## style and formatting
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(READY)  ## the package under its own name: mypy knows nothing of package-dir
	mkdir -p build/types && ln -sfn ../.. build/types/headwater
	MYPYPATH=build/types $(BIN)/mypy -p headwater.store -p headwater.engine -p headwater.plugins -m headwater.cli

tree: $(READY)  ## the tree in ARCHITECTURE.md, the reference of the Python API and the guides' notebooks
	$(BIN)/python tests/tree.py
	PYTHONPATH=tests $(BIN)/python tests/api_page.py
	$(BIN)/python tests/notebooks.py

bench: $(READY)  ## every benchmark, long; see examples/benchmarks/README.md
	$(PIP) -e '.[bench]'
	for script in backdoor token_boundary large_vocabulary real_corpora bounded_memory ingest_cost beside_bergson recall \
			sign_kernels scan_speed small_heads head_curvature digits_subsets text_subsets curation artifact_cost \
			choice_speed recovery_speed steering_digits steering steering_cost; do \
		$(BIN)/python examples/benchmarks/$$script.py || exit 1; done

compare: $(READY)  ## every installed method on the same tasks, in one table; resumes
	$(PIP) -e '.[baselines,truth,plot]'
	$(BIN)/python examples/benchmarks/compare.py

$(READY): pyproject.toml constraints.txt
	$(PYTHON) -c 'import sys; sys.exit("headwater needs Python 3.11 or newer: make PYTHON=python3.11") if sys.version_info < (3, 11) else 0'
	$(PYTHON) -m venv $(VENV)
	$(PIP) torch
	$(PIP) -e '.[dev]'
	touch $(READY)

clean:  ## the environment and everything built
	rm -rf $(VENV) build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis

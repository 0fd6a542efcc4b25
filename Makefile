# Each target sets up .venv by itself when needed. PYTHON=... chooses the interpreter.
PYTHON ?= python3
BIN := .venv/bin
SCALE ?= quick

.DEFAULT_GOAL := help
.PHONY: help setup reproduce paper test lab site bench notebooks clean

help:
	@echo "make reproduce   fetch the data, train at quick scale, write tables and figures"
	@echo "make paper       the same at the paper's scale (hours; resumable)"
	@echo "make test        unit and contract tests, notebooks, lint, types"
	@echo "make lab         open the notebooks in JupyterLab"
	@echo "make site        all notebooks and pages as a web site, in build/site/html"
	@echo "make bench       timings against torch and the peer package"
	@echo "make notebooks   execute the stored notebooks anew at smoke scale"
	@echo "make clean       remove .venv and what smoke and quick scale wrote"

setup: .venv/ready

.venv/ready: pyproject.toml
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet --upgrade pip
	$(BIN)/pip install --quiet --editable ".[suite,dev]"
	touch $@

# freed memory stays with the process: glibc would give large blocks back after each step and get
# them anew page by page
reproduce paper lab: export MALLOC_TRIM_THRESHOLD_ = 1000000000
reproduce paper lab: export MALLOC_MMAP_THRESHOLD_ = 1000000000

reproduce: setup
	$(BIN)/bregman run --scale quick

paper: setup
	$(BIN)/bregman run --scale paper

test: setup
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/pytest

lab: setup
	$(BIN)/jupyter lab --notebook-dir notebooks

site: .venv/site
	$(BIN)/python scripts/build_site.py

.venv/site: .venv/ready
	$(BIN)/pip install --quiet --editable ".[suite,dev,site]"
	touch $@

bench: setup
	$(BIN)/python benchmarks/run.py

# the runs first, so that no progress bar ends up in a notebook
notebooks: setup
	$(BIN)/bregman run --scale smoke --no-notebooks
	$(BIN)/jupyter nbconvert --log-level=WARN --to notebook --execute --inplace \
	  --ExecutePreprocessor.record_timing=False notebooks/[0-9]*.ipynb

clean:
	rm -rf .venv results/smoke results/quick figures/smoke figures/quick

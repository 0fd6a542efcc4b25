# Each target sets up .venv by itself when needed. uv makes it where it is there, else pip.
#   make test PYTHON=python3.12    another interpreter
#   make test PINNED=1             the versions of constraints.txt
#   make test UV=                  pip, even where uv is there
#   make test TORCH=cpu            torch without CUDA, where the platform has such wheels
PYTHON ?= python3
PINNED ?=
TORCH ?=
BIN := .venv/bin
UV := $(shell command -v uv 2>/dev/null)
PIP := $(if $(UV),uv pip install --quiet --python $(BIN)/python,$(BIN)/pip install --quiet)
TESTED := $(shell sed -n 's/^torch==//p' constraints.txt)
# two processes of one thread each
PYTEST := $(BIN)/pytest -n 2 --dist worksteal

.DEFAULT_GOAL := help
.PHONY: help setup reproduce paper figures test test-more attack lab site bench notebooks pages clean

help:
	@echo "make setup       make .venv and install everything into it; each target does it when needed"
	@echo "make reproduce   fetch the data, train at quick scale, write tables and figures"
	@echo "make figures     draw the figures and tables of the stored runs anew, without training"
	@echo "make test        lint, types, unit and contract tests, notebooks"
	@echo "make test-more   what takes long, or needs more"
	@echo "make attack      kill, cut and fill what makes and keeps the runs, for some minutes"
	@echo "make lab         open the notebooks in JupyterLab"
	@echo "make paper       train at the paper's scale (hours; resumable)"
	@echo "make notebooks   execute the stored notebooks anew"
	@echo "make pages       write README and docs/ anew from what was measured"
	@echo "make site        all notebooks and pages as a web site, in build/site/html"
	@echo "make bench       timings against torch and the peer package"
	@echo "make clean       remove .venv and what smoke and quick scale wrote"

setup: .venv/ready

.venv/ready: pyproject.toml constraints.txt
	$(if $(UV),uv venv --quiet --seed --allow-existing --python $(PYTHON) .venv,$(PYTHON) -m venv .venv)
ifeq ($(TORCH),cpu)
	$(PIP) $(if $(UV),--torch-backend cpu "torch==$(TESTED)","torch==$(TESTED)+cpu") \
	  || echo "no torch without CUDA is to be had here: the default one is taken"
endif
	$(PIP) $(if $(PINNED),--constraint constraints.txt) --editable ".[suite,dev]"
	touch $@

# freed memory stays with the process: glibc would give large blocks back after each step and get
# them anew page by page
reproduce paper lab: export MALLOC_TRIM_THRESHOLD_ = 1000000000
reproduce paper lab: export MALLOC_MMAP_THRESHOLD_ = 1000000000

reproduce: setup
	$(BIN)/bregman run --scale quick

paper: setup
	$(BIN)/bregman run --scale paper

figures: setup
	$(BIN)/bregman figures --scale paper

test: setup
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(PYTEST) -m "not more and not attack"

test-more: .venv/more
	$(PYTEST) -m more

.venv/more: .venv/ready
	$(PIP) --editable ".[suite,dev,loops,site]"
	touch $@

attack: setup
	$(BIN)/pytest -m attack tests/suite/test_attack.py

# scripts/jupyter_server_config.py: where it opens, and what a saved notebook keeps
lab: export JUPYTER_CONFIG_PATH := scripts
lab: setup
	$(BIN)/jupyter lab

site: .venv/site
	$(BIN)/python scripts/build_site.py

.venv/site: .venv/ready
	$(BIN)/pip install --quiet --editable ".[suite,dev,site]"
	touch $@

bench: setup
	$(BIN)/python benchmarks/run.py

pages: setup
	$(BIN)/python -m bregman.suite.pages

notebooks: setup
	$(BIN)/jupyter nbconvert --log-level=WARN --to notebook --execute --inplace \
	  --ExecutePreprocessor.record_timing=False notebooks/[0-9]*.ipynb
	$(BIN)/python scripts/clean_notebooks.py notebooks/[0-9]*.ipynb || true  # 1: it changed some

clean:
	rm -rf .venv results/smoke results/quick figures/smoke figures/quick

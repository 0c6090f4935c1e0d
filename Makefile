# SPDX-License-Identifier: Apache-2.0
# `make demo` and `make test` set themselves up: they need only Python 3.11 to 3.13, make and g++.
# Programs are started by the environment's Python, as their own first lines cannot name every path.
VENV := .venv
BIN := $(VENV)/bin
PY := $(BIN)/python
READY := $(VENV)/.ready
BOARD_VENV := .venv-board
BOARD_READY := $(BOARD_VENV)/.ready
BOARD_PY := $(BOARD_VENV)/bin/python
DOCS_VENV := .venv-docs
DOCS_READY := $(DOCS_VENV)/.ready
HOST_VENV := .venv310
# Processes that run tests; the tests of a module stay together, as they share expensive results.
JOBS ?= $(shell nproc 2>/dev/null || echo 2)
SPREAD = -n $(JOBS) --dist loadscope

.PHONY: help setup demo test test-fast built test-unit test-host310 test-board test-rtl test-slow board-bundles soak lint bench docs wheel ablation pretrained clean

help:
	@echo "make setup       .venv with pinned versions; PYTHON=... chooses the interpreter"
	@echo "make demo        train the mini model, run it on every backend, and write demo/report.html"
	@echo "make test-fast   contract, reference, lint and types: at most two minutes"
	@echo "make test        lint and types, then these four: about a quarter of an hour"
	@echo "  make test-unit     pytest on the packages and the C simulation"
	@echo "  make test-host310  the host package on Python 3.10, if that is installed"
	@echo "  make test-board    driver, demo and notebook on the simulated board, with pynq 4.0, and 3.0 on Python 3.10"
	@echo "  make test-rtl      every operator in SystemVerilog with Verilator, and the proofs"
	@echo "make test-slow   the tests marked slow"
	@echo "make lint        ruff, mypy and the layers of imports"
	@echo "make built       the C++ that many tests share"
	@echo "make board-bundles  the C simulation, and .venv-board with pynq, for the simulated board"
	@echo "make soak        10,000 frames on the simulated board, with faults (3 minutes)"
	@echo "make bench       speed, as ratios within one run"
	@echo "make docs        the guides and the API reference as a site: build/docs/index.html"
	@echo "make wheel       both packages as wheels in dist, for pip install dist/*.whl"
	@echo "make ablation    routing modes against single-task and dense models (about an hour)"
	@echo "make pretrained  train the packaged model again (75 minutes)"
	@echo "make clean       remove build/, demo/ and caches, and keep the environments"

setup: $(READY)

# PYTHON=... names another interpreter than the one that is found.
ENVIRONMENT = PYTHON='$(subst ','\'',$(PYTHON))' ./environment.sh

$(READY): pyproject.toml host/pyproject.toml requirements.lock
	@$(ENVIRONMENT) $(VENV) --constraint requirements.lock --editable host --editable '.[dev]'

# pynq in an environment of its own, for the simulated board.
$(BOARD_READY): requirements-board.txt host/pyproject.toml | $(READY)
	@$(ENVIRONMENT) $(BOARD_VENV) --requirement requirements-board.txt --editable host

# Lint uses one core, and so does a build.
test: $(READY) $(BOARD_READY)
	@$(MAKE) --no-print-directory -j 2 --output-sync=target lint built
	@$(MAKE) --no-print-directory test-unit test-host310 test-board test-rtl
	@cat build/python310_*.txt

# Tests that fail first after a change of the contract or the arithmetic; they need neither g++ nor training.
test-fast: lint
	$(PY) -m pytest $(SPREAD) tests/contract tests/golden

# The C++ that many tests share.
built: $(READY)
	@$(MAKE) --no-print-directory -C hls ops csim

# One of these tests runs the simulated board in the environment that has pynq.
test-unit: built $(BOARD_READY)
	$(PY) -m pytest -m "not slow" $(SPREAD)

test-host310: board-bundles
	@tests/python310.sh $(HOST_VENV) $(JOBS) host tests/contract tests/golden tests/host

# Bundles for the tests of the board are made in .venv, which has edge_moe; they take seconds.
board-bundles: $(READY) $(BOARD_READY)
	@$(MAKE) --no-print-directory -C hls csim
	$(PY) tests/board/make_bundles.py

test-board: board-bundles
	$(BOARD_PY) -m pytest $(SPREAD) --timeout=120 tests/board
	@tests/python310.sh $(HOST_VENV) $(JOBS) board --timeout=120 tests/board

# tests/sim/verilog has kernels as hand-written Verilog, in place of an HLS tool's output.
test-rtl: $(READY)
	$(MAKE) --no-print-directory -C sim
	$(MAKE) --no-print-directory -C sim DUT=hls RTL=../tests/sim/verilog
	$(MAKE) --no-print-directory -C rtl formal

soak: board-bundles
	$(BOARD_PY) board/zcu104/soak.py --frames 10000

test-slow: built $(BOARD_READY)
	$(PY) -m pytest -m slow

lint: $(READY)
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(PY) -m mypy
	$(PY) $(BIN)/lint-imports --no-logo --cache-dir build/import_linter

# edge-moe, with all that it needs outside its package, and edge-moe-host, which it depends on.
wheel: $(READY)
	rm -rf dist
	$(PY) -m pip wheel --quiet --no-deps --no-build-isolation --wheel-dir dist . ./host
	@ls dist/*.whl

clean:
	rm -rf build demo dist .pytest_cache .mypy_cache .ruff_cache

# One thread for training and one process for rendering: the same numbers and similar times everywhere.
DEMO_ENV := OMP_NUM_THREADS=1

# An interrupted step resumes; a finished one is kept until `make clean`.
# If the environment of the simulated board cannot be made, the demo goes on without it.
demo: $(READY)
	@$(MAKE) --no-print-directory $(BOARD_READY) || echo "$(BOARD_VENV) could not be set up (see above)."
	$(DEMO_ENV) $(PY) -m edge_moe demo --out demo

$(DOCS_READY): requirements-docs.txt
	@$(ENVIRONMENT) $(DOCS_VENV) --requirement requirements-docs.txt

# With --quiet, --strict would not fail on warnings.
docs: $(DOCS_READY)
	NO_MKDOCS_2_WARNING=1 $(DOCS_VENV)/bin/python -m mkdocs build --strict
	$(DOCS_VENV)/bin/python docs/tools/check_site.py build/docs
	@echo "open build/docs/index.html"

bench: $(READY)
	OMP_NUM_THREADS=1 $(PY) -m edge_moe bench

ablation: $(READY)
	$(PY) -m edge_moe ablate mini --out runs/ablation --seeds 3

# The dense model is first, as it trains faster; its FFNs then start the experts (75 minutes on two cores).
# A stage that was interrupted is continued with --resume (edge-moe train --help).
TRAIN_ON_TWO := OMP_NUM_THREADS=1 $(PY) -m torch.distributed.run --nproc-per-node 2 -m edge_moe train
pretrained: $(READY)
	$(TRAIN_ON_TWO) m3vit_tiny_cityscapes_dense --out runs/pretrained_dense
	$(TRAIN_ON_TWO) m3vit_tiny_cityscapes --init runs/pretrained_dense/last.pt --out runs/pretrained \
	  --set train.epochs=4 --set train.lr=4e-4 --set train.warmup_steps=50
	$(PY) -m edge_moe slim runs/pretrained/best.pt model/edge_moe/pretrained/m3vit_tiny_cityscapes.pt
	$(PY) -m edge_moe eval pretrained --json docs/results/pretrained.json --usage docs/results/pretrained_usage.png

# SPDX-License-Identifier: Apache-2.0
# `make demo` and `make test` set themselves up: they need only Python 3.11, make and g++.
PYTHON ?= python3.11
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
BOARD_VENV := .venv-board
BOARD_READY := $(BOARD_VENV)/.ready
BOARD_BIN := $(BOARD_VENV)/bin
DOCS_VENV := .venv-docs
DOCS_READY := $(DOCS_VENV)/.ready
HOST_VENV := .venv310
# Processes that run tests; the tests of a module stay together, as they share expensive results.
JOBS ?= $(shell nproc 2>/dev/null || echo 2)
SPREAD = -n $(JOBS) --dist loadscope

.PHONY: help setup demo test test-fast built test-unit test-host310 test-board test-rtl test-slow board-bundles soak lint bench docs ablation pretrained clean

help:
	@echo "make setup       .venv with pinned versions"
	@echo "make demo        train the mini model, run it on every backend, and write demo/report.html"
	@echo "make test-fast   contract, reference, lint and types: at most two minutes"
	@echo "make test        lint and types, then these four: at most 15 minutes"
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
	@echo "make docs        the guides and the API reference as a site in build/docs"
	@echo "make ablation    routing modes against single-task and dense models (about an hour)"
	@echo "make pretrained  train the packaged model again (75 minutes)"
	@echo "make clean       remove build/, demo/ and caches, and keep the environments"

setup: $(READY)

$(READY): pyproject.toml requirements.lock requirements-headers.txt
	@command -v $(PYTHON) >/dev/null || { echo "Python 3.11 is needed and '$(PYTHON)' was not found: install it or say make PYTHON=..."; exit 1; }
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --constraint requirements.lock --editable '.[dev]'
	$(BIN)/pip install --quiet --no-deps --requirement requirements-headers.txt
	@touch $@

# pynq in an environment of its own, for the simulated board.
$(BOARD_READY): requirements-board.txt host/pyproject.toml | $(READY)
	$(PYTHON) -m venv $(BOARD_VENV)
	$(BOARD_VENV)/bin/pip install --quiet --requirement requirements-board.txt
	$(BOARD_VENV)/bin/pip install --quiet --no-deps --editable host
	@touch $@

# Lint uses one core, and so does a build.
test: $(READY) $(BOARD_READY)
	@$(MAKE) --no-print-directory -j 2 --output-sync=target lint built
	@$(MAKE) --no-print-directory test-unit test-host310 test-board test-rtl
	@cat build/python310_*.txt

# Tests that fail first after a change of the contract or the arithmetic; they need neither g++ nor training.
test-fast: lint
	$(BIN)/pytest $(SPREAD) tests/contract tests/golden

# The C++ that many tests share.
built: $(READY)
	@$(MAKE) --no-print-directory -C hls ops csim

# One of these tests runs the simulated board in the environment that has pynq.
test-unit: built $(BOARD_READY)
	$(BIN)/pytest -m "not slow" $(SPREAD)

test-host310: board-bundles
	@tests/python310.sh $(HOST_VENV) $(JOBS) host tests/contract tests/golden tests/host

# Bundles for the tests of the board are made in .venv, which has edge_moe; they take seconds.
board-bundles: $(READY) $(BOARD_READY)
	@$(MAKE) --no-print-directory -C hls csim
	$(BIN)/python tests/board/make_bundles.py

test-board: board-bundles
	$(BOARD_BIN)/pytest $(SPREAD) --timeout=120 tests/board
	@tests/python310.sh $(HOST_VENV) $(JOBS) board --timeout=120 tests/board

# tests/sim/verilog has kernels as hand-written Verilog, in place of an HLS tool's output.
test-rtl: $(READY)
	$(MAKE) --no-print-directory -C sim
	$(MAKE) --no-print-directory -C sim DUT=hls RTL=../tests/sim/verilog
	$(MAKE) --no-print-directory -C rtl formal

soak: board-bundles
	$(BOARD_BIN)/python board/zcu104/soak.py --frames 10000

test-slow: $(READY)
	$(BIN)/pytest -m slow

lint: $(READY)
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy
	$(BIN)/lint-imports --no-logo --cache-dir build/import_linter

clean:
	rm -rf build demo .pytest_cache .mypy_cache .ruff_cache

# One thread for training and one process for rendering: the same numbers and similar times everywhere.
DEMO_ENV := OMP_NUM_THREADS=1

# An interrupted step resumes; a finished one is kept until `make clean`.
# If the environment of the simulated board cannot be made, the demo goes on without it.
demo: $(READY)
	@$(MAKE) --no-print-directory $(BOARD_READY) || echo "$(BOARD_VENV) could not be set up (see above)."
	$(DEMO_ENV) $(BIN)/edge-moe demo --out demo

$(DOCS_READY): requirements-docs.txt
	$(PYTHON) -m venv $(DOCS_VENV)
	$(DOCS_VENV)/bin/pip install --quiet --requirement requirements-docs.txt
	@touch $@

# With --quiet, --strict would not fail on warnings.
docs: $(DOCS_READY)
	NO_MKDOCS_2_WARNING=1 $(DOCS_VENV)/bin/mkdocs build --strict
	$(DOCS_VENV)/bin/python docs/tools/check_site.py build/docs

bench: $(READY)
	OMP_NUM_THREADS=1 $(BIN)/edge-moe bench

ablation: $(READY)
	$(BIN)/edge-moe ablate mini --out runs/ablation --seeds 3

# The dense model is first, as it trains faster; its FFNs then start the experts (75 minutes on two cores).
# A stage that was interrupted is continued with --resume (edge-moe train --help).
TRAIN_ON_TWO := OMP_NUM_THREADS=1 $(BIN)/torchrun --nproc-per-node 2 -m edge_moe train
pretrained: $(READY)
	$(TRAIN_ON_TWO) m3vit_tiny_cityscapes_dense --out runs/pretrained_dense
	$(TRAIN_ON_TWO) m3vit_tiny_cityscapes --init runs/pretrained_dense/last.pt --out runs/pretrained \
	  --set train.epochs=4 --set train.lr=4e-4 --set train.warmup_steps=50
	$(BIN)/edge-moe slim runs/pretrained/best.pt model/edge_moe/pretrained/m3vit_tiny_cityscapes.pt
	$(BIN)/edge-moe eval pretrained --json docs/results/pretrained.json --usage docs/results/pretrained_usage.png

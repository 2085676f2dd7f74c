# Everything installs into .venv; nothing else on the machine is touched.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check
# Compiling all of it takes pip a minute. On all cores it takes half of that, and it has to be done: where Python may not
# write bytecode (PYTHONDONTWRITEBYTECODE, read-only installations), each of a run's processes would compile it again.
PIP_OPTIONS := --quiet --no-compile
COMPILE = @$(BIN)/python -m compileall -q -q -j 0 $(VENV)/lib pipeline jobs || true # some packages hold files for other versions

.PHONY: help setup demo test test-fast test-faults soak fuzz lint bench bench-gpu bench-heads bench-memory bench-overhead bench-plan bench-scale clean

help:  ## List the targets.
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 12

$(VENV)/.installed: pyproject.toml
	@echo "Installing into $(VENV) (about a minute) ..."
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@$(PIP) install $(PIP_OPTIONS) --editable .
	$(COMPILE)
	@touch $@

$(VENV)/.installed-dev: $(VENV)/.installed
	@$(PIP) install $(PIP_OPTIONS) --editable '.[dev]'
	$(COMPILE)
	@touch $@

setup: $(VENV)/.installed-dev  ## Install the package and what its development needs.

demo: $(VENV)/.installed  ## Embed, train and validate on bundled images: no download, no GPU.
	@$(BIN)/python -m jobs.demo

test: setup  ## Run all tests but the long ones that inject faults.
	$(BIN)/python -m pytest -m "not (faults and slow)"

test-fast: setup  ## Run the tests that need no Ray cluster and no ResNet: seconds.
	$(BIN)/python -m pytest -m "not slow" --ignore tests/integration --ignore tests/jobs

test-faults: setup  ## Run the tests that inject faults: processes, nodes and stores that fail.
	$(BIN)/python -m pytest -m faults

soak: setup  ## Kill processes of ten runs at random until each is done, and check that nothing is lost or done twice.
	$(BIN)/python -m tests.soak

fuzz: setup  ## Feed 50,000 damaged image files to the decoder, and check that only pixels and rejects come out.
	$(BIN)/python -m tests.fuzz_images

lint: setup  ## Check style, types and the direction of imports.
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

$(VENV)/.installed-bench: $(VENV)/.installed
	@$(PIP) install $(PIP_OPTIONS) --editable '.[bench]'
	$(COMPILE)
	@touch $@

bench: $(VENV)/.installed-bench  ## Measure images/s against a notebook loop, a bare loop, Ray Data's recipe and Daft.
	$(BIN)/python -m benchmarks.embed

bench-gpu: $(VENV)/.installed-bench  ## Measure images/s on a CUDA device: the network, and from files to a table.
	$(BIN)/python -m benchmarks.gpu

bench-heads: setup  ## Measure how long heads take to train, against a notebook's loop and scikit-learn.
	$(BIN)/python -m benchmarks.heads

bench-memory: $(VENV)/.installed-bench  ## Measure whether a run's memory grows with the number of images.
	$(BIN)/python -m benchmarks.memory

bench-overhead: $(VENV)/.installed-bench  ## Measure what an image costs besides decoding and the model.
	$(BIN)/python -m benchmarks.overhead

bench-plan: setup  ## Measure listing, planning and reading small files, local and over the S3 protocol.
	$(BIN)/python -m benchmarks.plan

bench-scale: $(VENV)/.installed-bench  ## Simulate up to 64 accelerators on this machine: what the framework itself costs.
	$(BIN)/python -m benchmarks.scale

clean:  ## Remove the environment and everything that was made.
	rm -rf $(VENV) out build *.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis

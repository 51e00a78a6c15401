# Two commands do all the set-up: `make demo` trains a BERT, `make test` passes the tests.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt
RUN ?= runs/demo

.PHONY: demo test book lint bench refresh clean

$(VENV)/installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(PIP) --editable ".[test,book]"
	touch $@

$(VENV)/installed-bench: $(VENV)/installed
	$(PIP) --editable ".[bench]"
	touch $@

# Raw text to a working BERT, on the documentation installed on this machine. A run that was stopped goes on.
demo: $(VENV)/installed
	@if [ -f $(RUN)/config.toml ]; then $(BIN)/bertkeras pretrain --resume $(RUN); \
	else $(BIN)/bertkeras pretrain --output $(RUN); fi
	$(BIN)/bertkeras fill-mask $(RUN) --top-k 3 \
	  "Returns the number of [MASK] in the array." "This [MASK] is deprecated." "A [MASK] of integers."

test: lint
	$(BIN)/python -m pytest --cov --cov-report=term:skip-covered --cov-fail-under=92
	$(BIN)/python -m pytest --nbval-lax --nbval-current-env --nbval-cell-timeout=300 -p no:cacheprovider book

lint: $(VENV)/installed
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

book: $(VENV)/installed
	$(BIN)/python book/build.py

# Execute the chapters again and store their outputs.
refresh: $(VENV)/installed
	$(BIN)/python book/refresh.py

bench: $(VENV)/installed-bench
	$(BIN)/python -m benchmarks.pretraining_step

clean:
	rm -rf $(VENV) book/_build .pytest_cache .mypy_cache .ruff_cache

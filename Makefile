# Set-up, tests and the demonstration; README.md says what they do.

PYTHON ?= python3
BIN := .venv/bin
WORKDIR ?= runs/photos
DEMO_FLAGS ?=

.PHONY: install demo test lint

install: .venv/installed

# uv where it is there, else venv and pip.
.venv/installed: requirements.txt pyproject.toml
	if command -v uv >/dev/null; then \
	  uv venv --quiet --allow-existing --python $(PYTHON) .venv && \
	  uv pip install --quiet --python $(BIN)/python -e '.[dev]'; \
	else \
	  $(PYTHON) -m venv .venv && $(BIN)/python -m pip install --quiet -e '.[dev]'; \
	fi
	touch $@

demo: install
	$(BIN)/python train.py --config=configs/photos.py:lasers \
	  --workdir=$(WORKDIR) $(DEMO_FLAGS)
	@$(BIN)/python evaluate.py --workdir=$(WORKDIR)
	@echo $(WORKDIR)/results.png

test: install
	$(BIN)/python -m pytest -q -n 2 --dist loadfile

lint: install
	$(BIN)/ruff check .

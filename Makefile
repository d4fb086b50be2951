# Two commands do everything: `make demo` and `make test`. Both set up what they need.

PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
OUT ?= demo-output

.PHONY: help demo test lint bench bench-slides clean

help:
	@echo "make demo    install, then sample slide + shipped model -> heatmap, in $(OUT)/ and a window"
	@echo "make test    install, then all that CI checks: lint, types, imports, tests"
	@echo "make lint    ruff, mypy and import-linter alone"
	@echo "make bench   the engine's speed as ratios, appended to benchmarks/RESULTS.md"
	@echo "make bench-slides  reading and the window on a gigapixel slide, appended likewise"
	@echo "make clean   remove $(VENV) and what tests and builds leave behind"

# --- set-up ----------------------------------------------------------------------------------

$(READY): pyproject.toml constraints.txt
	@command -v $(PYTHON) >/dev/null || { echo "Python 3.11 or newer is needed, and '$(PYTHON)' was not found: install it, or say PYTHON=/path/to/python3." >&2; exit 2; }
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "Python 3.11 or newer is needed, and '$(PYTHON)' is older: say PYTHON=/path/to/python3.11." >&2; exit 2; }
	@$(PYTHON) -c 'import venv, ensurepip' 2>/dev/null || { echo "Python's venv is missing: install your system's package for it (python3-venv on Debian)." >&2; exit 2; }
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade "pip>=25.1"
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable ".[train]" --group dev
	@touch $@

# --- what people do ----------------------------------------------------------------------------

# Without a screen the window is drawn on Xvfb, photographed and closed.
demo: $(READY)
	@if [ -n "$$DISPLAY$$WAYLAND_DISPLAY" ] || [ "$$(uname -s)" != Linux ]; then \
		$(BIN)/histomil demo -o $(OUT); \
	else \
		tools/with-display.sh $(BIN)/histomil demo -o $(OUT) --no-window; \
	fi

test: lint
	tools/with-display.sh $(BIN)/python -m pytest --numprocesses 2 --dist loadfile --no-loadscope-reorder

lint: $(READY)
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy
	$(BIN)/lint-imports

bench: $(READY)
	$(BIN)/histomil bench --region all --results benchmarks/RESULTS.md

# The screen is so wide that the canvas between the docks has 1280 x 800 px.
bench-slides: $(READY)
	XVFB_SCREEN=2100x1100 tools/with-display.sh $(BIN)/histomil bench slides --results benchmarks/RESULTS.md

clean:
	rm -rf $(VENV) $(OUT) dist build .pytest_cache .mypy_cache .ruff_cache .import_linter_cache .hypothesis

# Two commands are enough: `make app` and `make test`. Each sets up .venv by itself.
PYTHON ?= python3
HOST ?= 127.0.0.1
PORT ?= 8501
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
UV_VERSION := 0.13.9
UV := $(VENV)/uv-$(UV_VERSION)/bin/uv
UPGRADE ?=

.PHONY: app test check format browser lock clean

# The stamp makes the second call start at once; a changed dependency list refreshes the environment. The lock is given
# as constraints, not installed: a machine without CUDA can keep to torch's CPU wheel and none of CUDA's packages.
$(STAMP): requirements.txt requirements.lock pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "scDrugMap needs Python 3.11 or newer; try: make PYTHON=python3.12 $(MAKECMDGOALS)"; exit 2; }
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint requirements.lock --editable '.[dev]'
	touch $@

app: $(STAMP)
	$(BIN)/scdrugmap app --host $(HOST) --port $(PORT)

check: $(STAMP)
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/codespell

test: check browser
	$(BIN)/python -m pytest --numprocesses 2 --dist loadfile

browser:
	@scripts/ensure_browser.sh

format: $(STAMP)
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

# uv reads metadata only and keeps every locked version that still fits; UPGRADE=--upgrade takes the newest ones, and
# UPGRADE='--upgrade-package NAME' one of them. uv has an environment of its own, so that a lock can be mended by itself.
lock: $(UV)
	$(UV) pip compile --quiet --universal --python-version 3.11 --no-python-downloads --all-extras pyproject.toml \
		--no-annotate --custom-compile-command 'make lock' $(UPGRADE) --output-file requirements.lock

$(UV):
	$(PYTHON) -m venv $(VENV)/uv-$(UV_VERSION)
	$(VENV)/uv-$(UV_VERSION)/bin/python -m pip install --quiet --disable-pip-version-check uv==$(UV_VERSION)

clean:
	rm -rf $(VENV)

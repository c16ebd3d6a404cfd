# Everything a person does with this project: `make` lists it. Two virtual environments are kept under .venv/:
# `serve` (numpy, onnxruntime and small libraries; no torch) and `dev` (everything). Each is made once and
# brought up to date when pyproject.toml changes.

PYTHON ?= python3
EXTRA ?= cpu
HOST ?= 127.0.0.1
PORT ?= 8765

serve_venv := .venv/serve
dev_venv := .venv/dev
serve_ready := $(serve_venv)/.ready-$(EXTRA)
dev_ready := $(dev_venv)/.ready

.DEFAULT_GOAL := help
.PHONY: help demo serve test lint format bench clean
.DELETE_ON_ERROR:

help: ## list what can be made
	@awk -F ':.*## ' '/^[a-z]+:.*## /{printf "  make %-8s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

demo: $(serve_ready) ## one sentence in its two readings, through a real server, with live captions
	@$(serve_venv)/bin/python -m cnerta.streamer.run_demo

serve: $(serve_ready) ## run the server (HOST=127.0.0.1 PORT=8765 ARGS="--bundle DIR …")
	@$(serve_venv)/bin/cnerta-serve --host $(HOST) --port $(PORT) $(ARGS)

test: lint ## lint, type-check and test (ARGS="-k name" for some of the tests)
	$(dev_venv)/bin/pytest $(ARGS)

lint: $(dev_ready) ## ruff and mypy
	$(dev_venv)/bin/ruff check .
	$(dev_venv)/bin/ruff format --check .
	$(dev_venv)/bin/mypy

format: $(dev_ready) ## let ruff rewrite what it can
	$(dev_venv)/bin/ruff check --fix .
	$(dev_venv)/bin/ruff format .

bench: $(dev_ready) ## measure a live server under load (ARGS="--sessions 1,10,25 …")
	$(dev_venv)/bin/python tests/benchmarks/live.py $(ARGS)

include train/model.mk

clean: ## remove the virtual environments and caches
	rm -rf .venv build dist .mypy_cache .ruff_cache .pytest_cache .hypothesis

# Debian and Ubuntu split the venv module off; everything else that is needed comes with the wheels.
define check_python
@$(PYTHON) -c 'import sys; v = sys.version_info[:3]; v >= (3, 11) or sys.exit("expected Python 3.11 or newer, got %d.%d.%d from $(PYTHON): name another one, as in make PYTHON=python3.12 …" % v)'
@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || { echo "expected $(PYTHON) to have the venv module, got none: on Debian and Ubuntu, apt-get install python3-venv" >&2; exit 1; }
endef

# The stamp is written last, so an installation that was cut off is done again.
$(serve_ready): pyproject.toml
	$(check_python)
	@echo "Installing the serving dependencies into $(serve_venv) (no torch; about 200 MB) …"
	$(PYTHON) -m venv --clear $(serve_venv)
	$(serve_venv)/bin/python -m pip install --quiet --disable-pip-version-check -e '.[$(EXTRA)]'
	@touch $@

$(dev_ready): pyproject.toml
	$(check_python)
	@echo "Installing everything for development into $(dev_venv) (with torch; several GB) …"
	$(PYTHON) -m venv --clear $(dev_venv)
	$(dev_venv)/bin/python -m pip install --quiet --disable-pip-version-check -e '.[cpu,train,dev]'
	@touch $@

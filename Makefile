# Everything runs in a virtual environment in this checkout; nothing is installed outside it. Each target is safe to repeat.
PYTHON ?= python3.11
CORES ?= $(shell nproc)
VENV := .venv
STAMP := $(VENV)/.installed
PIP := $(VENV)/bin/python -m pip --quiet --disable-pip-version-check
TORCH := $(shell sed -n "s/^\(torch==[0-9.]*\).*/\1/p" constraints.txt)

.PHONY: help install reproduce test lint notebooks clean

help:
	@echo "make reproduce   run every notebook at scale 'quick' and print the table of claims"
	@echo "make test        run all tests"
	@echo "make lint        ruff and mypy"
	@echo "make notebooks   reproduce, then put the executed notebooks in place of the committed ones"
	@echo "make install     only set up the environment, which the others do first"
	@echo "make clean       delete the environment; results, which may have taken hours, stay"

install: $(STAMP)

$(STAMP): pyproject.toml constraints.txt checksums.txt
	@command -v $(PYTHON) > /dev/null || { echo "$(PYTHON) is not there: install Python 3.11 to 3.13, or name one: make PYTHON=python3.12 ..."; exit 1; }
	@$(PYTHON) -c "import ensurepip" 2> /dev/null || { echo "$(PYTHON) cannot make virtual environments: apt install python3-venv"; exit 1; }
	test -x $(VENV)/bin/python || $(PYTHON) -m venv $(VENV)
	@# PyTorch has several builds of one version: the one that pip prefers here is fetched and compared.
	sed -n '/^$(TORCH)/,/[0-9a-f]$$/p' checksums.txt > $(VENV)/torch.txt
	sed '/^# Beyond the extra test/,$$d' checksums.txt > $(VENV)/requirements.txt
	$(VENV)/bin/python -m pip list --format=freeze | grep -q '^$(TORCH)' || { \
	  $(PIP) download --no-deps --dest $(VENV)/torch '$(TORCH)' && \
	  $(PIP) install --no-deps --require-hashes --no-index --find-links $(VENV)/torch -r $(VENV)/torch.txt; }
	rm -rf $(VENV)/torch
	$(PIP) install --no-deps --require-hashes -r $(VENV)/requirements.txt
	$(PIP) install --no-build-isolation -c constraints.txt -e '.[test]'
	touch $@

reproduce: $(STAMP)
	$(VENV)/bin/python -m sscl_experiments reproduce --scale quick --cores $(CORES)

notebooks: $(STAMP)
	$(VENV)/bin/python -m sscl_experiments reproduce --scale quick --cores $(CORES) --publish

test: $(STAMP)
	$(VENV)/bin/python -m pytest -n $(CORES) --dist loadgroup --no-loadscope-reorder

lint: $(STAMP)
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/mypy

clean:
	rm -rf $(VENV)

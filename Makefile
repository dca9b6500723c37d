# Everything runs in a virtual environment in this checkout; nothing is installed outside it. Each target is safe to repeat.
PYTHON ?= python3.11
CORES ?= $(shell nproc)
VENV := .venv
STAMP := $(VENV)/.installed
PIP = $(VENV)/bin/python -m pip install --quiet --disable-pip-version-check

.PHONY: help install reproduce test lint notebooks clean

help:
	@echo "make reproduce   run every notebook at scale 'quick' and print the table of claims"
	@echo "make test        run all tests"
	@echo "make lint        ruff and mypy"
	@echo "make notebooks   reproduce, then put the executed notebooks in place of the committed ones"
	@echo "make clean       delete the environment and the results"

install: $(STAMP)

$(STAMP): pyproject.toml constraints.txt
	@command -v $(PYTHON) > /dev/null || { echo "$(PYTHON) is not there: install Python 3.11 to 3.13, or name one: make PYTHON=python3.12 ..."; exit 1; }
	@$(PYTHON) -c "import ensurepip" 2> /dev/null || { echo "$(PYTHON) cannot make virtual environments: apt install python3-venv"; exit 1; }
	test -x $(VENV)/bin/python || $(PYTHON) -m venv $(VENV)
	sed '/^# Beyond the extra test/,$$d' constraints.txt > $(VENV)/requirements.txt
	$(PIP) --no-deps --require-hashes -r $(VENV)/requirements.txt
	$(PIP) --no-build-isolation -c $(VENV)/requirements.txt -e '.[test]'
	touch $@

reproduce: $(STAMP)
	$(VENV)/bin/python -m sscl_experiments reproduce --scale quick --cores $(CORES)

notebooks: $(STAMP)
	$(VENV)/bin/python -m sscl_experiments reproduce --scale quick --cores $(CORES) --publish

test: $(STAMP)
	$(VENV)/bin/python -m pytest -n $(CORES) --dist loadgroup

lint: $(STAMP)
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/mypy

clean:
	rm -rf $(VENV) results

# make demo     the whole job on the emoji that come with the package, in minutes on a laptop
# make test     the tests; make test-slow those that take longer
#               (a browser opens the report where there is one: apt-get install chromium)
# make faults   all the kills, refused writes and lost processes of docs/reliability.md
# make lint     ruff and mypy
#
# Each makes the virtual environment .venv when there is none. For a GPU or another build of torch, make your own
# environment instead: pip install -e '.[test]'

PYTHON ?= python3
VENV ?= .venv
PIP_INSTALL = $(VENV)/bin/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt
OFFLINE = HF_HUB_OFFLINE=1

.PHONY: demo test test-slow faults lint clean

demo: $(VENV)/.installed-demo
	$(OFFLINE) $(VENV)/bin/wscl-embed demo --output runs/demo --overwrite

test: $(VENV)/.installed-test
	$(OFFLINE) $(VENV)/bin/python -m pytest -m "not slow" --numprocesses 2

test-slow: $(VENV)/.installed-test
	$(OFFLINE) $(VENV)/bin/python -m pytest -m slow

faults: $(VENV)/.installed-test
	$(OFFLINE) $(VENV)/bin/python -m pytest tests/faults tests/test_store_kill.py

lint: $(VENV)/.installed-test
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/mypy

$(VENV)/bin/python:
	$(PYTHON) -m venv $(VENV)

$(VENV)/.installed-%: pyproject.toml constraints.txt | $(VENV)/bin/python
	$(PIP_INSTALL) --editable '.[$*]'
	touch $@

clean:
	rm -rf $(VENV) runs

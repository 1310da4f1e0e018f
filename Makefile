# make demo     the whole job on the emoji that come with the package, in minutes on a laptop
# make test     the tests; make test-slow those that take longer
#               (a browser opens the report where there is one: apt-get install chromium)
# make faults   all the kills, refused writes and lost processes of docs/reliability.md
# make lint     ruff and mypy
#
# make docs     the documentation as a site in site/
# make fuzz     a minute for each kind of input (FUZZ_SECONDS=3600 make fuzz)
# make audit    the known vulnerabilities of what is pinned, where the advisories can be had
# make lock     renew the lock with hashes; make install-locked installs from it (Python 3.11, Linux, x86-64)
# make release  sdist, wheel and a bill of materials (CycloneDX) in dist/
# make test-minimum  the tests on the oldest versions pyproject.toml allows, in .venv-minimum (5 GB)
#
# Each makes the virtual environment .venv when there is none. For a GPU or another build of torch, make your own
# environment instead: pip install -e '.[test]'

PYTHON ?= python3
VENV ?= .venv
CONSTRAINTS ?= constraints.txt
PIP_INSTALL = $(VENV)/bin/python -m pip install --quiet --disable-pip-version-check --constraint $(CONSTRAINTS)
OFFLINE = HF_HUB_OFFLINE=1
FUZZ_SECONDS ?= 60
FUZZ_TARGETS = metadata tags images parquet hdf5
LOCK = release/linux-x86_64-python3.11.txt
LOCKED_EXTRAS = captions,demo,onnx,plots,search,tensorboard

.PHONY: demo test test-slow faults lint docs fuzz audit lock install-locked release test-minimum clean

demo: $(VENV)/.installed-demo
	$(OFFLINE) $(VENV)/bin/wscl-embed demo --output runs/demo --overwrite

test: $(VENV)/.installed-test
	$(OFFLINE) $(VENV)/bin/python -m pytest -m "not slow" --numprocesses 2 --dist worksteal

test-slow: $(VENV)/.installed-test
	$(OFFLINE) $(VENV)/bin/python -m pytest -m slow

faults: $(VENV)/.installed-test
	$(OFFLINE) $(VENV)/bin/python -m pytest tests/faults tests/test_store_kill.py

lint: $(VENV)/.installed-test
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/mypy

docs: $(VENV)/.installed-docs
	NO_MKDOCS_2_WARNING=1 $(VENV)/bin/python -m mkdocs build --strict --site-dir site

fuzz: $(VENV)/.installed-fuzz
	set -e; for target in $(FUZZ_TARGETS); do \
	  $(VENV)/bin/python -m fuzz.$$target -max_total_time=$(FUZZ_SECONDS); done

audit: $(VENV)/.installed-release
	$(VENV)/bin/python -m release.audit

lock: | $(VENV)/bin/python
	$(PIP_INSTALL) --dry-run --ignore-installed --report $(VENV)/report.json '.[$(LOCKED_EXTRAS)]'
	$(VENV)/bin/python -m release.lock < $(VENV)/report.json > $(LOCK)

install-locked: | $(VENV)/bin/python
	$(VENV)/bin/python -m pip install --disable-pip-version-check --require-hashes --requirement $(LOCK)
	$(VENV)/bin/python -m pip install --disable-pip-version-check --no-deps .

release: $(VENV)/.installed-release
	rm -rf dist
	$(VENV)/bin/python -m release.audit
	$(VENV)/bin/python -m build --outdir dist
	$(VENV)/bin/cyclonedx-py requirements $(LOCK) --pyproject pyproject.toml --mc-type library \
	  --output-reproducible --of JSON --output-file dist/wscl-embed.cdx.json

test-minimum:
	$(MAKE) test VENV=.venv-minimum CONSTRAINTS=release/minimum.txt

$(VENV)/bin/python:
	$(PYTHON) -m venv $(VENV)

$(VENV)/.installed-%: pyproject.toml constraints.txt | $(VENV)/bin/python
	$(PIP_INSTALL) --editable '.[$*]'
	touch $@

clean:
	rm -rf $(VENV) runs

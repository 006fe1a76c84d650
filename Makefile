# make book   make the book; prints where it lies
# make test   everything that must hold
# make lab    the chapters in JupyterLab
# make clean  remove the environment and all that was built
PYTHON ?= python3
VENV := .venv
# Tests that run at a time, each on one thread; tests/parallel.py says how they are divided.
WORKERS ?= 2
BIN := $(VENV)/bin
# An environment is current when it was made from this pyproject.toml; its stamp is named after the contents.
SUM := $(shell cksum < pyproject.toml | cut -d' ' -f1)
READER := $(VENV)/.reader-$(SUM)
TESTER := $(VENV)/.tester-$(SUM)

.PHONY: book test lab clean
book: $(READER)
	$(BIN)/invertnb build

test: $(TESTER)
	$(BIN)/invertnb build
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n $(WORKERS)

lab: $(READER)
	$(BIN)/jupyter lab book

clean:
	rm -rf $(VENV) _build

$(VENV)/.made:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "invertnb needs Python 3.11 or newer; name one with: make PYTHON=/path/to/python" >&2; exit 1; }
	$(PYTHON) -m venv --clear $(VENV)
	touch $@

$(READER): $(VENV)/.made
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable .
	touch $@

$(TESTER): $(VENV)/.made
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[test]'
	touch $(READER) $@

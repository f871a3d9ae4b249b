# Everything runs in a virtual environment of its own, which the first target builds.
#
#   make demo      sign a compiled object and load it into the kernel model
#   make test      all tests
#   make conformance  build 130 real objects with the reference tool too, and compare every byte
#   make vm        objects, scenarios, skeletons, leaks and load times on real kernels under QEMU
#                  (SERIES=6.18,7.3 names some)
#   make fuzz      COUNT damaged inputs, then MINUTES guided by coverage (docs/fuzzing.md)
#   make bench     speed beside the reference tool, openssl and plain Python, in the same run
#   make cost      CPU time and memory of the worst inputs at n, 2n, 4n and 10n; fails if not linear
#   make objects   fetch real tools' objects from Debian's libbpf-tools (used by tests and demo)

PYTHON ?= python3
SERIES ?= 6.12,6.17,6.18,6.19,7.0,7.1,7.2,7.3
COUNT ?= 300000
SEED ?= 1
MINUTES ?= 30
VENV := .venv
BIN := $(VENV)/bin

.PHONY: demo test lint format objects conformance vm fuzz bench cost clean

demo: $(VENV)/ready
	$(BIN)/python -m examples.demo

test: $(VENV)/ready
	$(BIN)/python -m pytest -n auto

lint: $(VENV)/ready
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy

format: $(VENV)/ready
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

objects: build/objects/.complete

fuzz: $(VENV)/ready
	$(BIN)/python -m tests.fuzz mutate --count $(COUNT) --seed $(SEED)
	@if $(BIN)/python -c 'import atheris' 2>/dev/null; then \
		$(BIN)/python -m tests.fuzz guided --minutes $(MINUTES); \
	else echo "without atheris (pip install 'bpfseal[fuzz]') nothing is guided by coverage"; fi

bench: $(VENV)/ready build/objects/.complete
	$(BIN)/python benchmarks/batch_sign.py build
	$(BIN)/python benchmarks/verify_rate.py
	$(BIN)/python benchmarks/interpreter.py

cost: $(VENV)/ready
	$(BIN)/python benchmarks/cost.py --check

conformance: $(VENV)/ready
	@command -v apt-get >/dev/null && command -v dpkg-deb >/dev/null || \
		{ echo "make conformance needs apt-get and dpkg-deb (a Debian machine)" >&2; exit 1; }
	$(BIN)/python scripts/compare_reference.py build

vm: $(VENV)/ready build/objects/.complete
	BPFSEAL_VM_SERIES=$(SERIES) \
		$(BIN)/python -m pytest -s -m vm tests/vm

build/objects/.complete: scripts/fetch_objects.py scripts/debian.py
	@command -v apt-get >/dev/null && command -v dpkg-deb >/dev/null || \
		{ echo "make objects needs apt-get and dpkg-deb (a Debian machine)" >&2; exit 1; }
	$(PYTHON) scripts/fetch_objects.py build/objects
	touch $@

$(VENV)/ready: pyproject.toml
	@$(PYTHON) -c 'import sys, venv, ensurepip; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || \
		{ echo "bpfseal needs Python 3.11 or later with venv (Debian: apt install python3-venv)" >&2; exit 1; }
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[dev]'
	touch $@

clean:
	rm -rf $(VENV) build .mypy_cache .ruff_cache .pytest_cache .hypothesis

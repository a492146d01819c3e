# Needs only make and Python 3.11 or later; everything else goes to .venv.

PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed

# What pytest is given besides pyproject.toml: make test PYTEST_ARGS="-x -k store"
# Three processes for two cores: many tests wait for others, or for the disk.
PYTEST_ARGS ?= -n 3 --dist worksteal
# The tests start many processes, each of which would compile all modules anew.
unexport PYTHONDONTWRITEBYTECODE
# How long to simulate, or to soak, in seconds; or one seed.
SECONDS ?= 600
SEED ?=
# Which troubles the soak has, and whether each of them alone: EACH=1
TROUBLES ?=
EACH ?=
# The page that quotes what bench-peers and bench-load find.
PEERS := docs/explanation/peers.md
# How long to visit the example site before its pictures are taken.
MINUTES ?= 20

.DEFAULT_GOAL := help
.NOTPARALLEL:  # pytest's closing lines come last
.PHONY: help demo test lint format typecheck pytest coverage test-all conformance \
	simulate soak bench bench-large bench-peers bench-load docs messages screenshots \
	install system-deps bench-deps clean

help:  ## Show this list
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) \
		| awk -F ':.*## ' '{printf "  %-14s %s\n", $$1, $$2}'

demo: $(STAMP)  ## Load the example site and serve it
	$(BIN)/python manage.py demo

test: lint typecheck pytest  ## Everything that CI checks: lint, types, tests

lint: $(STAMP)  ## ruff, rules and format
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

format: $(STAMP)  ## Let ruff mend what it can
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

typecheck: $(STAMP)  ## mypy, strict
	$(BIN)/mypy

pytest: $(STAMP)  ## The tests, in random order
	$(BIN)/python -m pytest $(PYTEST_ARGS)

coverage: $(STAMP)  ## The tests with coverage, and its floor: takes twice as long
	$(BIN)/python -m pytest --cov --cov-report=term $(PYTEST_ARGS)

test-all:  ## The tests on every supported Django
	.ci/test-all

conformance: $(STAMP)  ## Django's own tests of the ORM and of caches, on ours
	$(BIN)/python -m tests.caches.django_suite
	$(BIN)/python -m tests.conformance

simulate: $(STAMP)  ## The protocol's simulator: SECONDS=600 SEED=
	$(BIN)/python -m tests.simulation --seconds $(SECONDS) $(if $(SEED),--seed $(SEED))

soak: $(STAMP)  ## Bad days for hosts: SECONDS=600 SEED= TROUBLES="kill disk" EACH=1
	$(BIN)/python -m tests.faults --seconds $(SECONDS) $(if $(SEED),--seed $(SEED)) \
		$(TROUBLES:%=--trouble %) $(if $(EACH),--each)

bench: $(STAMP)  ## The benchmarks that the documentation quotes
	$(BIN)/python -m benchmarks
	$(BIN)/python -m benchmarks.hot
	$(BIN)/python -m benchmarks.caches
	$(BIN)/python -m benchmarks.hit_rates
	$(BIN)/python -m benchmarks.partitions
	$(BIN)/python -m benchmarks.hosts
	$(BIN)/python -m benchmarks.dashboard
	$(BIN)/python -m benchmarks.counting

bench-large: $(STAMP)  ## A table of a million rows: loaded, packed, begun with
	$(BIN)/python -m benchmarks.large

bench-peers: $(STAMP)  ## s3cache next to others, for docs/explanation/peers.md
	$(BIN)/python -m pip install --quiet --editable '.[peers]'
	$(BIN)/python -m benchmarks.peers --install --markdown $(PEERS)

bench-load: $(STAMP)  ## A site under load, with caches and without, for that page
	$(BIN)/python -m pip install --quiet --editable '.[peers]'
	$(BIN)/python -m benchmarks.load --markdown $(PEERS)

docs: $(STAMP)  ## The documentation, as HTML; a warning is an error
	$(BIN)/python -m sphinx --fail-on-warning --keep-going --quiet -b html \
		docs docs/_build
	@echo docs/_build/index.html

messages: $(STAMP)  ## Collect and compile the texts to translate; needs gettext
	cd s3cache && ../$(BIN)/django-admin makemessages --all --no-wrap --no-location
	cd s3cache && ../$(BIN)/django-admin compilemessages

screenshots: $(STAMP)  ## The pictures in docs/images, of the example site: MINUTES=20
	$(BIN)/python -m example_project.screenshots --minutes $(MINUTES)

install: $(STAMP)  ## Only make .venv

system-deps:  ## Install from Debian what some tests need beside Python
	.ci/system-deps

bench-deps:  ## The same for bench-peers and bench-load: wrk, npm
	.ci/system-deps wrk $(if $(shell command -v npm),,npm)

clean:  ## Remove the environments and what tools left
	rm -rf .venv* .mypy_cache .pytest_cache .ruff_cache .hypothesis htmlcov docs/_build
	rm -f .coverage .coverage.*

# The stamp is newer than pyproject.toml: what is installed is what it asks for.
$(STAMP): pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
		echo "s3cache needs Python 3.11 or later: make $(MAKECMDGOALS) PYTHON=/path/to/python" >&2; \
		exit 1; }
	@$(PYTHON) -c 'import ensurepip' || { \
		echo "This Python cannot make virtual environments: make system-deps" >&2; \
		exit 1; }
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --editable '.[dev]'
	@touch $@

# netspot: `make run` and `make test` do all their set-up on a fresh Debian or Ubuntu.

SHELL   := /bin/bash
DEBIAN  ?= /usr/bin/python3
# Tests run in an environment of their own; PYTHON makes it (3.11 or newer).
PYTHON  ?= python3
VENV    ?= .venv
BIN     := $(VENV)/bin
SUDO    := $(if $(filter 0,$(shell id -u)),,sudo)
APT     := $(SUDO) env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends

RUN_PACKAGES  := python3 python3-numpy python3-paho-mqtt python3-bottle python3-yaml python3-sdnotify python3-waitress libpcap0.8
TEST_PACKAGES := $(RUN_PACKAGES) python3-venv python3-dev python3-pytest python3-hypothesis gcc libc6-dev libpcap-dev \
                 mosquitto mosquitto-clients tcpdump tcpreplay netsniff-ng iproute2 openssl man-db chromium

.DEFAULT_GOAL := help
.PHONY: help run demo test test-debian lint format bench setup setup-run clean

help: ## this text
	@awk -F ':.*## ' '/^[a-zA-Z0-9_-]+:.*## / { printf "  make %-22s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

run: setup-run ## install what is needed, watch the default interface, page on http://127.0.0.1:11000
	$(SUDO) $(DEBIAN) -m netspot serve $(if $(CONFIG),-c $(CONFIG))

demo: setup-run ## a synthetic home network under attack, through the whole pipeline
	$(DEBIAN) -m netspot demo

test: setup lint ## install what is needed, lint, type-check, run all tests
	$(BIN)/python -m pytest $(TESTS)

test-debian: setup ## the tests that need no other package, on this Debian's own Python, numpy and paho-mqtt
	PYTHONPATH=$(CURDIR) $(DEBIAN) -m pytest -p no:cacheprovider $(TESTS)

lint: setup ## ruff and mypy --strict
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

format: setup ## let ruff put the source in order
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

bench: setup ## speed, memory and instructions of the pipeline, beside tcpdump
	$(BIN)/python -m tests.bench

setup: $(VENV)/.ready ## install what the tests need

setup-run: ## install what running needs
	@dpkg -s $(RUN_PACKAGES) >/dev/null 2>&1 || { $(SUDO) apt-get update -qq; $(APT) $(RUN_PACKAGES); }

$(VENV)/.ready: pyproject.toml Makefile
	@dpkg -s $(TEST_PACKAGES) >/dev/null 2>&1 || { $(SUDO) apt-get update -qq; $(APT) $(TEST_PACKAGES); }
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install -q -e '.[dev,libpcap]'
	@if command -v npm >/dev/null; then npm ci --silent --prefix tests/web; \
	 else echo 'without npm the tests that drive a browser are skipped'; fi
	touch $@

clean: ## remove what was built here
	rm -rf $(VENV) build dist *.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis

-include cross/packages.mk

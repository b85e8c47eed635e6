# Everything a person or CI does with this project.  `make` lists it.

PYTHON ?= python3
VENV   ?= .venv
BIN     = $(VENV)/bin
SHELL   = /bin/sh

# The tools the lanes drive: a store, a container engine, the firewall, traffic.
PACKAGES = etcd-server etcd-client docker.io iptables nftables iproute2 iperf3 busybox-static iputils-ping util-linux \
           wireguard-go wireguard-tools chromium
# And what another kernel is booted with, in an emulated machine.
VM_PACKAGES = qemu-system-x86 kmod
PROMISE ?=
# Most of a test is waiting: two at a time take half as long.  What is to be quiet together stands in one file.
SIDE_BY_SIDE = -q -n auto --maxprocesses 4 --dist loadfile

.DEFAULT_GOAL := help

.PHONY: help
help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-12s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

$(VENV)/.installed: pyproject.toml src/pyflannel/__init__.py
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade 'pip>=25.1'
	$(BIN)/python -m pip install --quiet --editable . --group dev
	@touch $@

.PHONY: install
install: $(VENV)/.installed ## a virtual environment with pyflannel and its development tools in it

.PHONY: tools
tools: ## Debian packages the demo and the tests drive (needs root)
	@contrib/install-tools $(PACKAGES)

.PHONY: demo
demo: install ## a three-host network on this machine: pings across, shows the routes, leaves nothing behind
	@contrib/install-tools iproute2 iptables iputils-ping util-linux
	$(BIN)/flannelctl lab demo --backend $(or $(BACKEND),vxlan)

.PHONY: check
check: install ## format, lint, types, import contracts, unit and property tests
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/pytest $(SIDE_BY_SIDE) tests/unit tests/property tests/golden

.PHONY: test
test: check tools ## every lane: the above, then real stores, real kernel, real Docker, and another kernel
	PYFLANNEL_TEST_PROMISE=$(PROMISE) $(BIN)/pytest $(SIDE_BY_SIDE) tests/contract tests/netns tests/e2e
	$(MAKE) test-vm VM_BRIEF=yes

.PHONY: test-vm
test-vm: install tools ## the namespace tests on Debian's stock kernel, in an emulated machine (`make test` runs some)
	@contrib/install-tools $(VM_PACKAGES)
	PYFLANNEL_VM_BRIEF=$(VM_BRIEF) $(BIN)/python -m tests.vm

.PHONY: soak
soak: install tools ## half an hour of random faults against a running agent; SOAK_SECONDS=N for another time
	PYFLANNEL_SOAK_SECONDS=$(or $(SOAK_SECONDS),1800) PYFLANNEL_TEST_PROMISE=$(PROMISE) $(BIN)/pytest -q tests/netns/test_soak.py

.PHONY: laws
laws: install ## try every property test twenty times as often as `make check` does, with other examples each time
	HYPOTHESIS_PROFILE=soak $(BIN)/pytest $(SIDE_BY_SIDE) --timeout=0 tests/property

.PHONY: fuzz
fuzz: install ## a million hostile records and configurations; FUZZ_RECORDS=N for another number, FUZZ_SEED=S to repeat a run
	FUZZ_RECORDS=$(or $(FUZZ_RECORDS),1000000) FUZZ_SEED=$(FUZZ_SEED) $(BIN)/python -m tests.fuzz

.PHONY: bench
bench: install tools ## print the performance tables of docs/performance.md
	$(BIN)/python -m tests.bench

.PHONY: format
format: install ## rewrite the code the way `make check` wants it
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

.PHONY: pictures
pictures: install ## take the pictures of the page in docs/ again
	@contrib/install-tools chromium pngquant
	$(BIN)/python -m tests.support.screenshots

.PHONY: clean
clean: ## remove what the targets above made in this checkout
	rm -rf $(VENV) .cache .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache dist build

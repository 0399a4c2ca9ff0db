# `make help` lists the targets.
SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
MAKEFLAGS += --no-builtin-rules
.DELETE_ON_ERROR:
.DEFAULT_GOAL := default

NAME := ovs-container-network
VERSION := $(shell cat VERSION)
PREFIX ?= /usr/local
FUZZTIME ?= 10s
DURATION ?= 30m
SEED ?= 0
HOSTS ?= 3
STATICCHECK := honnef.co/go/tools/cmd/staticcheck@v0.8.2

# sudo has a PATH of its own, often without the go command.
ifdef GO
found_go := $(GO)
else
found_go := $(shell scripts/find-go.sh)
GO := $(or $(found_go),go)
endif
# A go command that is too old fetches the one that go.mod asks for.
export GOTOOLCHAIN ?= auto
# The version is that of the file, and git does not answer root about a tree that
# belongs to somebody else.
export GOFLAGS := $(GOFLAGS) -buildvcs=false

# The suite whose engine, switch and Compose are tested beside this system's own.
NEWER := sid

BINARY := bin/$(NAME)
UNIT := ./cmd/... ./internal/... ./test/bench/... ./test/throughput/...
WHOLE := ./test/lab/... ./integration/...
SOURCES := $(shell find cmd internal -type f ! -name '*_test.go' ! -path '*/testdata/*')
# The race detector needs a C compiler.
RACE := $(if $(shell command -v gcc cc clang 2>/dev/null),-race)

.PHONY: default
default: build vet unit ## build, vet and unit, when no target is given

.PHONY: build
build: $(BINARY) ## the static binary, in bin/

$(BINARY): $(SOURCES) go.mod go.sum VERSION
	CGO_ENABLED=0 $(GO) build -trimpath -ldflags "-s -w -X main.version=$(VERSION)" -o $@ ./cmd/$(NAME)

.PHONY: plugin
plugin: build/plugin/config.json build/plugin/rootfs/$(NAME) ## what a managed plugin is made of, in build/plugin/
	@printf '%s\n' 'Make it a plugin of the Docker engine on this machine:' \
		'    sudo docker plugin create $(NAME):$(VERSION) build/plugin' \
		'    sudo docker plugin enable $(NAME):$(VERSION)'

build/plugin/config.json: plugin/config.json
	install -D -m 644 $< $@

build/plugin/rootfs/$(NAME): $(BINARY)
	install -D -m 755 $< $@

.PHONY: vet
vet:
	$(GO) vet ./...

.PHONY: unit
unit: ## tests that need neither root nor servers, in seconds
	OCN_UNIT=1 $(GO) test -short $(UNIT)

.PHONY: test
test: root ## everything, on real engines and switches: as root, installs what it needs
	scripts/setup.sh
	scripts/setup.sh root $(NEWER)
	@$(with_go) tests

# On a fresh machine a go command may only be there by now.
with_go = $(MAKE) GO="$(or $(found_go),$$(scripts/find-go.sh --install))"

.PHONY: tests
tests: lint build plugin
	@echo '==> unit and kernel tests$(if $(RACE),, (no C compiler: without the race detector))'
	$(GO) test -v $(RACE) -count=1 $(UNIT) 2>&1 | scripts/testlog.sh build/results/unit
	@$(MAKE) whole
	@echo '==> results'
	@echo '==> fault | packets lost | seconds until all talk | left over'
	@cat build/results/faults
	@cat build/results/unit build/results/whole

.PHONY: integration
integration: root ## only the tests that start whole hosts: as root
	scripts/setup.sh
	scripts/setup.sh root $(NEWER)
	@$(with_go) build plugin whole

# One package after the other: each has hosts that want the processors.
.PHONY: whole
whole:
	@echo '==> tests on whole hosts'
	@mkdir -p build/results && : >build/results/faults
	$(GO) test -v -p 1 -count=1 -timeout 60m $(WHOLE) 2>&1 | scripts/testlog.sh build/results/whole

.PHONY: lint
lint: ## format, vet, staticcheck, syntax of scripts
	@echo '==> lint'
	@files=$$("$$($(GO) env GOROOT)/bin/gofmt" -l cmd internal integration test); \
	if [ -n "$$files" ]; then printf 'not formatted, run gofmt -w on it: %s\n' $$files >&2; exit 1; fi
	$(GO) vet ./...
	$(GO) vet -tags faults,chaos,soak ./...
	$(GO) run $(STATICCHECK) -tags faults,chaos,soak ./...
	@for f in scripts/*.sh .ci/run; do bash -n "$$f"; done

.PHONY: fuzz
fuzz: ## every fuzz test for FUZZTIME (10s)
	GO='$(GO)' scripts/fuzz.sh $(FUZZTIME)

.PHONY: bench
bench: root build plugin ## what it costs, beside Docker's own bridge driver: as root
	$(GO) run ./test/bench

.PHONY: bench-scale
bench-scale: root build plugin ## the same with 500 starts, 1,000 endpoints and 1,000 networks, an hour: as root
	@mkdir -p build/results
	$(GO) run ./test/bench -full -json build/results/bench.json

.PHONY: bench-ovn
bench-ovn: root build plugin ## connect, throughput and growth on logical switches, beside Docker's overlay: as root
	$(GO) run ./test/bench -ovn

.PHONY: bench-throughput
bench-throughput: root build plugin ## TCP and UDP over the userspace datapath and its port types: as root
	$(GO) run ./test/throughput

.PHONY: chaos
chaos: root build plugin ## storms of faults with traffic running, half an hour: as root
	@mkdir -p build/results && : >build/results/faults
	$(GO) test -v -tags chaos -run '^TestChaos' -count=1 -timeout 90m ./integration 2>&1 | scripts/testlog.sh build/results/chaos
	@echo '==> fault | packets lost | seconds until all talk | left over'
	@cat build/results/faults

.PHONY: soak
soak: root build plugin ## random operations and faults against a model, for DURATION (30m); SEED=N replays: as root
	$(GO) test -v -tags soak -run '^TestSoak' -count=1 -timeout 0 ./integration -args -duration '$(DURATION)' -seed '$(SEED)'

.PHONY: lab
lab: root ## HOSTS (3) hosts with Docker, OVN and the driver to look around in: as root
	scripts/setup.sh
	@$(with_go) lab-hosts

.PHONY: lab-hosts
lab-hosts: build
	$(GO) build -o bin/lab ./test/lab/cmd/lab
	bin/lab fleet $(HOSTS) -driver bin $(LAB_FLAGS)

.PHONY: lab-clean
lab-clean: root ## removes them: as root
	$(GO) build -o bin/lab ./test/lab/cmd/lab
	bin/lab down

.PHONY: demo
demo: ## two containers that talk through Open vSwitch, on this machine: with sudo
	@scripts/demo.sh

.PHONY: demo-clean
demo-clean: ## removes what the demo made: with sudo
	@scripts/demo-clean.sh

.PHONY: install
install: build ## the host service: binary and systemd units (DESTDIR, PREFIX=/usr/local)
	@DESTDIR='$(DESTDIR)' PREFIX='$(PREFIX)' scripts/service.sh install

.PHONY: uninstall
uninstall: ## removes the host service, not its state
	@DESTDIR='$(DESTDIR)' PREFIX='$(PREFIX)' scripts/service.sh uninstall

.PHONY: clean
clean: ## removes what was built
	rm -rf bin build

.PHONY: help
help: ## this list
	@sed -n 's/^\([a-z-]*\):[^#]*## \(.*\)/\1\t\2/p' $(firstword $(MAKEFILE_LIST)) | \
		while IFS=$$'\t' read -r name text; do printf '%-12s %s\n' "$$name" "$$text"; done

.PHONY: root
root:
	@test "$$(id -u)" = 0 || { echo 'this needs root: sudo make ...' >&2; exit 1; }

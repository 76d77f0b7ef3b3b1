# Everything a contributor runs. `make` alone lists the targets; `make demo` and `make test` need GNU make and Go, no more.

SHELL        := /bin/sh
GO           ?= go
FUZZTIME     ?= 60s
BENCHTIME    ?= 1s
BENCH        ?=
PKG          ?= ./...
MESSAGES     ?= 1000
SEED         ?=
RUNS         ?=
ROWS         ?=

# The binary is static; only the race detector needs a C compiler.
export CGO_ENABLED ?= 0
TOOL         := $(GO) tool -modfile=tools/go.mod
# The commit is stamped into the binary where git can tell it.
VCS          := $(shell git rev-parse HEAD >/dev/null 2>&1 && echo true || echo false)

.DEFAULT_GOAL := help
.PHONY: help build build-fast demo test check race bench bench-signed growth crash fuzz interop interop-ci generate ci

help: ## show this list
	@awk 'BEGIN {FS = ":.*## "} /^[a-z-]+:.*## / {printf "  make %-12s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

build: ## compile the static binary to bin/godwit
	$(GO) build -trimpath -buildvcs=$(VCS) -o bin/godwit ./cmd/godwit

build-fast: ## compile bin/godwit-fast, which signs RSA by the system's OpenSSL 3 (Linux with glibc; see docs/bench.md)
	$(GO) build -trimpath -buildvcs=$(VCS) -tags godwit_libcrypto -o bin/godwit-fast ./cmd/godwit

demo: build ## run the product against a simulated internet on loopback (MESSAGES=1000)
	./bin/godwit demo --messages $(MESSAGES)

test: ## all tests that need nothing but Go
	$(GO) test $(PKG)

check: ## format, vet, lint, floors, package docs, tidy and generated files clean
	@scripts/check

race: ## all tests under the race detector, goroutine leaks included (needs a C compiler)
	CGO_ENABLED=1 $(GO) test -race $(PKG)

bench: ## what each part of a message's way costs (BENCH=regexp PKG=./smtp/... any benchmark; BENCHTIME=1s)
	@BENCH='$(BENCH)' PKG='$(if $(BENCH),$(PKG),$(filter-out ./...,$(PKG)))' BENCHTIME='$(BENCHTIME)' scripts/bench

bench-signed: ## signed relay, both builds, beside Postfix with OpenDKIM (Debian, root; ROUNDS=1 MESSAGES=6000 PROFILE=dir)
	@MESSAGES='$(if $(filter-out file,$(origin MESSAGES)),$(MESSAGES))' PROFILE='$(PROFILE)' scripts/bench-signed $(ROUNDS)

growth: build ## how cost grows with depth, size, sessions, domains, recipients (QUICK=1, JOBS=deferred,deep,idle,auth,idle-tls)
	$(GO) run ./test/growth $(if $(QUICK),-quick) $(if $(JOBS),-jobs $(JOBS),-svg docs/growth.svg)

crash: ## the fault matrix and long crash loops (SEED=n repeats one run, RUNS=n sets how many, ROWS='L-4|M-.*' which)
	@SEED='$(SEED)' RUNS='$(RUNS)' ROWS='$(ROWS)' scripts/crash

fuzz: ## every Fuzz function for FUZZTIME (60s) each
	@FUZZTIME='$(FUZZTIME)' PKG='$(PKG)' scripts/fuzz

interop: ## dialogs with real servers and clients of the distribution (Debian; needs root for packages)
	@scripts/interop

interop-ci: ## the part of interop that CI runs, where its peers are installed
	@INTEROP_SHORT=1 scripts/interop run

generate: ## rewrite the reference docs from code
	$(GO) run ./internal/docgen

ci: check test race interop-ci ## what CI runs

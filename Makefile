# Two commands do everything on a fresh machine with Go: make run, make test.

GO ?= go
BIN := bin/deliverd
VERSION := $(shell git describe --tags --always --dirty 2>/dev/null)
LDFLAGS := -X main.version=$(VERSION)
# openssl: sign with libcrypto, three times as fast as Go; needs a C compiler and
# libssl-dev, and libssl where the program runs.
TAGS ?=
# Labelled mails, replies and suites that conformance runs against; not part of
# this repository.
SHARED ?= ../shared

.PHONY: run build axe test test-openssl race race-core lint conformance deps fuzz deb dashboards bench bench-peers bench-search cluster-test soak clean

run: build ## everything in one process, nothing to configure
	$(BIN) dev

build:
	$(GO) build -trimpath -tags '$(TAGS)' -ldflags '$(LDFLAGS)' -o $(BIN) ./cmd/deliverd

test: ## everything that must hold, in a few minutes
	$(GO) vet ./...
	DELIVERD_SHARED=$(wildcard $(abspath $(SHARED))) $(GO) test ./...

test-openssl: ## what signs, with OpenSSL
	$(GO) vet -tags openssl ./deliver
	$(GO) test -tags openssl ./deliver

race: ## everything under the race detector
	DELIVERD_SHARED=$(wildcard $(abspath $(SHARED))) $(GO) test -race ./...

# Where goroutines meet most, for CI: the rest is pure or a single conversation.
race-core:
	$(GO) test -race ./queue ./deliver ./intake ./console ./cmd/...

lint: ## formatting, vet, and a tidy go.mod
	@bad=$$(gofmt -l $$(git ls-files '*.go')); if [ -n "$$bad" ]; then echo "gofmt would change:"; echo "$$bad"; exit 1; fi
	$(GO) vet ./...
	$(GO) mod tidy -e -diff

conformance: ## the labelled data of $(SHARED)
	@test -d $(SHARED)/data || { echo "no $(SHARED)/data: set SHARED to the folder that holds data/"; exit 1; }
	DELIVERD_SHARED=$(abspath $(SHARED)) $(GO) test -count=1 -run 'Conformance' -v ./bounces ./dnscheck

deps: ## Debian packages that some tests need
	apt-get update -qq
	DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends chromium python3-dkim python3-nacl libmail-dkim-perl libssl-dev opendkim systemd
	sh deliver/testdata/mta/install.sh bin/mta
	sh cmd/deliverd/signals/testdata/promtool.sh bin

# The checker of accessibility that the tests of pages in a browser need; not part of
# this repository.
AXE := 4.14.1
axe: ## axe-core, for the tests of pages in a browser
	command -v npm >/dev/null || DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends npm
	npm install --silent --no-save --no-audit --no-fund --prefix .axe axe-core@$(AXE)

FUZZTIME ?= 60s
fuzz: ## every fuzz target for FUZZTIME
	@set -e; for pkg in $$($(GO) list ./...); do \
	  for f in $$($(GO) test -list '^Fuzz' $$pkg | grep '^Fuzz' || true); do \
	    echo "$$pkg $$f"; $(GO) test -run '^$$' -fuzz "^$$f$$" -fuzztime $(FUZZTIME) $$pkg; done; done

deb: build ## a Debian package in bin/
	sh deploy/debian/build.sh $(BIN) '$(VERSION)' bin

dashboards: ## alerts, dashboard and their documents, written from the list of metrics
	$(GO) test -count=1 ./cmd/deliverd/signals -run Files -update

bench: build ## the figures of the README
	$(BIN) bench

bench-search: ## the search among a million people: median and 99th percentile of each sort
	$(GO) test -run '^$$' -bench Search -benchtime 200x -timeout 60m ./console

bench-peers: build ## deliverd beside Postfix with OpenDKIM and Exim: the table of docs/peers.md; root, after make deps
	$(GO) build -trimpath -tags openssl -ldflags '$(LDFLAGS)' -o $(BIN)-openssl ./cmd/deliverd
	$(GO) run ./bench -deliverd $(BIN) -openssl $(BIN)-openssl

CLUSTER_FOR ?= 4m
cluster-test: ## three NATS nodes and three deliverds, killed and stopped under mail; CLUSTER_SEED repeats a run
	CLUSTER_FOR=$(CLUSTER_FOR) $(GO) test -count=1 -timeout 60m -run '^TestCluster$$' -v ./cmd/deliverd

SOAK ?= 1h
soak: ## all faults mixed at random for SOAK; SOAK_SEED repeats a run
	SOAK=$(SOAK) $(GO) test -count=1 -timeout 24h -run '^TestSoak$$' -v ./cmd/deliverd

clean:
	rm -rf bin

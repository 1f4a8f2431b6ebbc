# wscluster. `make` alone lists what there is to do.

# Where Debian puts haproxy and rabbitmqctl, which is not in everybody's PATH.
export PATH := $(PATH):/usr/local/sbin:/usr/sbin:/sbin

# Go and npm keep their caches below HOME: give them one where there is none to write to.
ifneq ($(shell test -n "$$HOME" && test -w "$$HOME" && echo yes),yes)
export HOME := $(CURDIR)/.home
$(shell mkdir -p $(HOME))
endif

# Without this a checkout that belongs to somebody else does not build: git refuses to tell its version.
export GOFLAGS := $(GOFLAGS) -buildvcs=false

STATICCHECK := go tool -modfile=tools.mod staticcheck
# e2e starts whole clusters of real processes: it runs alone, after everything else. Some npm
# packages hold Go files.
UNIT = $$(go list ./... | grep -v -E '/(e2e|node_modules)(/|$$)')
NODE := $(patsubst %/package-lock.json,%,$(wildcard client/package-lock.json web/package-lock.json examples/node/package-lock.json))

.DEFAULT_GOAL := help
.PHONY: help run demo test test-long chaos figures bench bench-million lint test-go test-e2e test-ts generate generated build deps clean

help: ## this list
	@awk -F ':.*## ' '/^[a-z0-9-]+:.*## / { printf "  make %-13s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

run: ## start everything in one process, with nothing but Go; prints the console's address
	@echo 'Building; the first time takes up to a minute ...'
	@CGO_ENABLED=0 go build -o bin/ ./cmd/wsworker && exec bin/wsworker dev

demo: deps ## start 2 instances of 4 workers behind HAProxy, RabbitMQ and 2 runners; Ctrl-C ends all
	@CGO_ENABLED=0 go build -o bin/ ./deploy/demo && exec bin/demo

test: ## check everything; as root it installs from Debian what it lacks, else it says what to install
	@.ci/step 'packages from Debian' 'Install the packages named above, then run make test again.' $(MAKE) -s deps
	@.ci/step 'packages from npm' 'Is the npm registry within reach? make clean removes half an install.' $(MAKE) -s npm
	@.ci/step 'format, vet, staticcheck' 'Mend what is named above; make lint runs this step alone.' $(MAKE) -s lint
	@.ci/step 'generated files' 'Commit what go generate just wrote.' $(MAKE) -s generated
	@.ci/step 'Go tests' 'go test -race -run NAME ./PACKAGE runs one test; make test-go runs this step alone.' $(MAKE) -s test-go
	@.ci/step 'TypeScript tests' 'npm test in the folder named above; make test-ts runs this step alone.' $(MAKE) -s test-ts
	@.ci/step 'end-to-end tests' 'go test -race -run NAME ./e2e runs one test; make test-e2e runs this step alone.' $(MAKE) -s test-e2e
	@printf '\nEverything passed.\n'

test-long: deps npm ## the tests of `make test` and the long ones (files with //go:build long)
	go test -race -tags long -count 1 -timeout 60m $(UNIT)
	go test -race -tags long -count 1 -parallel 16 -timeout 60m ./e2e/...

DURATION ?= 2m
CLIENTS ?= 200
SEED ?= 1
chaos: deps ## break a private cluster on purpose and count every event: DURATION=2m CLIENTS=200 SEED=1
	@CGO_ENABLED=0 go build -o bin/ ./cmd/... && exec bin/wsctl chaos --duration $(DURATION) --clients $(CLIENTS) --seed $(SEED) $(CHAOS)

figures: deps ## measure the figures: name value unit baseline ratio floor ok|short
	go run ./bench/figures

PEERS := bench/peers/socketio
bench: deps ## compare with other systems, side by side, into bench/results: BENCH="-clients 2000 -rounds 3"
	@e2e/install-debian.sh bench
	@npm ci --prefix $(PEERS) --no-audit --no-fund || echo "npm cannot install $(PEERS): it is left out" >&2
	go run ./bench/compare $(BENCH)

N ?= 200000
bench-million: deps ## hold N=200000 clients on real workers, and broadcast to all of them
	go run ./bench/compare -million $(N)

lint: ## gofmt, go vet and staticcheck
	@unformatted=$$(find . -name '*.go' -not -path './.*' -not -path '*/node_modules/*' -exec gofmt -l {} +); \
	if [ -n "$$unformatted" ]; then printf 'gofmt -w would change:\n%s\n' "$$unformatted" >&2; exit 1; fi
	go vet -tags long ./...
	$(STATICCHECK) -tags long ./...

test-go: ## the Go tests but the end-to-end ones, with the race detector; lint has vetted them
	go test -race -vet off -timeout 6m $(UNIT)

test-e2e: ## the end-to-end tests: real RabbitMQ, HAProxy and Chromium
	go test -race -vet off -count 1 -parallel 16 -timeout 8m ./e2e/...

test-ts: npm ## the TypeScript tests
	@set -e; for dir in $(NODE); do echo "npm test in $$dir"; npm --prefix $$dir test; done

generate: npm ## rebuild the generated files
	go generate ./...

generated: npm
	@.ci/generated

build: ## build the programs into bin/
	@mkdir -p bin
	@# Where git tells the version, the programs carry it.
	GOFLAGS="$(GOFLAGS) -buildvcs=$$(git rev-parse HEAD >/dev/null 2>&1 && echo true || echo false)" CGO_ENABLED=0 go build -trimpath -ldflags "-s -w" -o bin/ ./cmd/...

deps: ## install from Debian what the tests need and this machine lacks
	@e2e/install-debian.sh

.PHONY: npm
npm: $(NODE:%=%/node_modules/.package-lock.json)
%/node_modules/.package-lock.json: %/package-lock.json
	npm ci --prefix $* --no-audit --no-fund
	@touch $@

clean: ## remove what was built or fetched into this folder
	rm -rf bin e2e/artifacts client/node_modules client/build client/dist web/node_modules web/build examples/node/node_modules $(PEERS)/node_modules
	@if [ -d .home ]; then chmod -R u+w .home && rm -rf .home; fi

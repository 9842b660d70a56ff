# What a person and CI do here; `make` prints it. Whatever is installed on the way is announced first.

SHELL := bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help

# How the binaries of `run`, `up` and `e2e` are built: `quick` to build, `release`, or `deployed`: the
# functions as `make build` left them, and the command for speed.
PROFILE ?= quick
# Further arguments of `archweld run`, `archweld up`, SAM or the tests.
ARGS ?=
# The deployed stack, and where it is: AWS's own settings say where nothing does here.
STACK ?= archweld
REGION ?=
# The processors that the functions are deployed for: arm64 where this machine's Rust builds for it.
ARCHITECTURE ?= $(shell scripts/build-functions --list 2>/dev/null | head -n 1)

FUNCTIONS := plan-build start-build build-events publish reconcile report trigger-run
BIN := target/$(PROFILE)
EXAMPLE := --config example/archweld.toml
VENV := $(CURDIR)/.archweld/venv
# Builds log in to the registry with `aws`: the machine's, or else the one from PyPI.
AWS := $(shell command -v aws)
export PATH := $(PATH):$(VENV)/bin
IN_REGION := $(if $(REGION),--region $(REGION))
# SAM would look for its settings beside what was built.
BUILT = --template-file .aws-sam/$(ARCHITECTURE)/template.yaml --config-file $(CURDIR)/infra/samconfig.toml
# Asks, where somebody is there to answer and infra/samconfig.toml has no answers yet.
GUIDED = $(if $(CI),,$(shell grep --quiet '^parameter_overrides' infra/samconfig.toml || echo --guided))

.PHONY: help
help: ## Print this help
	@awk -F ':.*## ' '/^[a-z0-9]+:.*## / { printf "make %-9s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)
	@echo
	@echo 'ARGS="…" passes further arguments, PROFILE=release builds as deployed; STACK and REGION say which'
	@echo 'deployment is meant, ARCHITECTURE which processors its functions run on.'

.PHONY: run
run: binaries $(if $(AWS),,tools) ## Build the example for two platforms on this machine and publish it
	@scripts/with-engine bash -c 'scripts/base-images && exec $(BIN)/archweld run $(EXAMPLE) $(ARGS)'

.PHONY: up
up: binaries $(if $(AWS),,tools) ## Keep the local cloud running, for the AWS CLI, SDKs and Docker
	@scripts/with-engine bash -c 'scripts/base-images && exec $(BIN)/archweld up $(EXAMPLE) $(ARGS)'

.PHONY: test
test: export PATH := $(VENV)/bin:$(PATH)
test: tools simulation ## Run the unit and integration tests, and simulate 20,000 runs
	@cargo nextest --version >/dev/null 2>&1 || \
	  { echo 'installing cargo-nextest from crates.io (some minutes, once)' >&2; cargo install --locked cargo-nextest; }
	@cargo build --quiet --package archweld $(FUNCTIONS:%=--package %)
	cargo nextest run --workspace $(ARGS)
	target/simulation/archweld simulate --runs 20000 --faults heavy

.PHONY: soak
soak: simulation ## Simulate a million runs with heavy faults, from SEED (1)
	target/simulation/archweld simulate --runs 1000000 --faults heavy --seed $${SEED:-1} $(ARGS)

.PHONY: chaos
chaos: ## Kill functions, builds and the server at random, CHAOS_ROUNDS times (50), from CHAOS_SEED
	@cargo build --quiet --package archweld $(FUNCTIONS:%=--package %)
	CHAOS_ROUNDS=$${CHAOS_ROUNDS:-50} cargo test --package archweld-tests --test chaos -- --nocapture \
	  no_invariant_is_broken_whatever_is_killed $(ARGS)

.PHONY: fuzz
fuzz: ## Feed trigger-run's readers and signature checks a million inputs (10 minutes)
	PROPTEST_CASES=120000 cargo nextest run --package trigger-run --lib

.PHONY: template
template: tools ## Prove the template: a stack of it in moto, its roles, the examples, the functions against moto
	@cargo build --quiet --package archweld $(FUNCTIONS:%=--package %)
	ARCHWELD=$(CURDIR)/target/debug/archweld $(VENV)/bin/python -m unittest discover --start-directory tests/deployment $(ARGS)

.PHONY: e2e
e2e: binaries tools ## Run the end-to-end tests with a real Docker engine
	@scripts/install skopeo=skopeo docker-registry=docker-registry
	@scripts/with-engine bash -c 'scripts/base-images && ARCHWELD=$(CURDIR)/$(BIN)/archweld exec $(VENV)/bin/python -m unittest discover --verbose --start-directory tests/e2e $(ARGS)'

.PHONY: browser
browser: binaries browser-tools ## Run the browser tests: the console in Chromium, its figures, its accessibility
	@# One after the other: what is measured is not to be disturbed.
	@for file in units console measure; do \
	  ARCHWELD=$(CURDIR)/$(BIN)/archweld node --test --test-reporter=spec tests/browser/$$file.test.mjs; done

.PHONY: screenshots
screenshots: binaries browser-tools ## Make the pictures of the console in docs/images
	@ARCHWELD=$(CURDIR)/$(BIN)/archweld node tests/browser/screenshots.mjs docs/images

.PHONY: lint
lint: tools ## Check formatting, lints, documentation, the template and the scripts
	@scripts/install shellcheck=shellcheck
	cargo fmt --all --check
	cargo clippy --workspace --all-targets -- --deny warnings
	RUSTDOCFLAGS='--deny warnings' cargo doc --workspace --no-deps --document-private-items
	$(VENV)/bin/cfn-lint infra/template.yaml infra/repository.yaml
	AWS_DEFAULT_REGION=us-east-1 scripts/sam validate
	scripts/check-definition
	scripts/python-tools checkov
	.archweld/checkov/bin/checkov --framework cloudformation --directory infra --skip-path .aws-sam --skip-download --compact --quiet
	shellcheck $(filter-out %.txt,$(wildcard scripts/*)) .ci/run example/hello
	$(VENV)/bin/ruff check --quiet tests
	$(VENV)/bin/ruff format --check --quiet tests

.PHONY: bench
bench: ## Measure start-up, memory, size, archweld's own time, publishing, webhooks and the SDK
	@$(MAKE) binaries PROFILE=release
	@# Alone: what else is built with it decides which features its dependencies have.
	@cargo build --quiet --release --package hello-lambda
	@cargo build --quiet --release --package archweld-bench
	@scripts/with-engine scripts/bench $(ARGS)

.PHONY: build
build: ## Build the functions as they are deployed, for arm64 and x86_64 or ARCHITECTURE
	scripts/build-functions $(if $(filter-out undefined file default,$(origin ARCHITECTURE)),$(ARCHITECTURE))

.PHONY: package
package: ## Upload what was built; infra/.aws-sam/packaged.yaml is then deployed by CloudFormation alone
	scripts/sam package $(BUILT) --output-template-file .aws-sam/packaged.yaml $(IN_REGION) $(ARGS)

.PHONY: deploy
deploy: ## Deploy what was built to AWS, as STACK in REGION
	scripts/sam deploy $(BUILT) --stack-name $(STACK) $(IN_REGION) $(GUIDED) $(if $(CI),--no-confirm-changeset) $(ARGS)

.PHONY: start
start: archweld ## Start a run of the deployed STACK and follow it
	@$(BIN)/archweld start --stack $(STACK) $(IN_REGION) $(ARGS)

.PHONY: logs
logs: archweld ## Follow the builds' logs of the deployed STACK
	@$(BIN)/archweld logs --stack $(STACK) $(IN_REGION) $(ARGS)

.PHONY: destroy
destroy: ## Delete the deployed STACK; repositories and their images stay
	scripts/sam delete --stack-name $(STACK) $(IN_REGION) $(ARGS)

.PHONY: clean
clean: ## Remove what was built, installed and stored here
	@[[ ! -e .archweld/engine/dockerd.pid ]] || { echo 'the Docker engine in .archweld/engine is running' >&2; exit 1; }
	rm -rf .archweld
	cargo clean

.PHONY: ci
ci: ## Do all that CI does
	@scripts/install skopeo=skopeo docker-registry=docker-registry
	$(MAKE) lint
	$(MAKE) template
	scripts/build-functions "$$(uname -m | sed 's/aarch64/arm64/')"
	@# With an engine, no test of the registry is skipped.
	scripts/with-engine $(MAKE) test
	$(MAKE) e2e PROFILE=deployed
	$(MAKE) browser PROFILE=deployed

.PHONY: binaries
ifeq ($(PROFILE),deployed)
binaries: simulation
	@mkdir -p $(BIN)
	@ln --force target/simulation/archweld $(BIN)
	@for function in $(FUNCTIONS); do ln --force target/lambda/$$function/bootstrap $(BIN)/$$function; done
else
binaries:
	@echo 'building archweld and its functions ($(BIN))'
	@cargo build --quiet --profile $(PROFILE) --package archweld $(FUNCTIONS:%=--package %)
endif

.PHONY: simulation
simulation:
	@echo 'building archweld for speed (target/simulation)'
	@cargo build --quiet --profile simulation --package archweld

.PHONY: archweld
archweld:
	@cargo build --quiet --profile $(PROFILE) --package archweld

.PHONY: tools
tools:
	@scripts/python-tools

.PHONY: browser-tools
browser-tools:
	@scripts/install node=nodejs npm=npm chromium=chromium
	@cd tests/browser && npm ci --silent --no-audit --no-fund

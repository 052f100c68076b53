# make help says what there is. Build output of dependencies is shared between checkouts: it lies in the user's cache folder.
SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help

export BACKOUT_CACHE ?= $(or $(XDG_CACHE_HOME),$(HOME)/.cache)/backout
export CARGO_BUILD_BUILD_DIR ?= $(BACKOUT_CACHE)/build
export CARGO_TERM_PROGRESS_WHEN ?= auto

VERSION := 0.1.0
OUT := target/x86_64-unknown-linux-gnu/debug
LIQUI := 1-0-0 1-1-0 1-2-0 1-2-1
CA := /etc/ssl/certs/ca-certificates.crt

## demo: play the story on a real cluster, print what it measured, leave everything running
.PHONY: demo
demo: export BED := demo
demo: check build
	@tests/testbed/bed down
	@$(MAKE) --no-print-directory bed
	@tests/testbed/bed run cargo test --offline --quiet --test all -- --exact cluster::story::the_story_of_a_release_that_is_taken_back --nocapture

## down: end the demo's and the tests' beds; leaves no process, mount, network namespace or container
.PHONY: down
down:
	@for bed in demo test chaos; do BED=$$bed tests/testbed/bed down; done

## test: format, lints, and every test: unit, simulation, database, cluster
.PHONY: test
test: export BED := test
test: check own
	cargo fmt --all --check
	cargo clippy --workspace --all-targets --locked -- -D warnings
	@$(MAKE) --no-print-directory build
	cargo test --workspace --lib --bins --locked
	@tests/testbed/bed down
	@$(MAKE) --no-print-directory bed
	@tests/testbed/bed run cargo test --offline --test all -- --test-threads=4 && $(MAKE) --no-print-directory on-mariadb-11; \
	  result=$$?; tests/testbed/bed down; exit $$result

## test-mariadb-11: the tests of the data engine alone, on MariaDB 11.8
.PHONY: test-mariadb-11
test-mariadb-11: export BED := test
test-mariadb-11: check build
	@$(MAKE) --no-print-directory bed
	@$(MAKE) --no-print-directory on-mariadb-11; result=$$?; tests/testbed/bed down; exit $$result

# On a bed that is up.
.PHONY: on-mariadb-11
on-mariadb-11:
	@tests/testbed/bed start mariadb11
	@tests/testbed/bed run env BED_MYSQL_PORT=3307 cargo test --offline --test all -- --test-threads=4 database::

## chaos: play every fault of docs/faults.md on a bed of its own and print how each was survived; FAULTS=text chooses some
.PHONY: chaos
chaos: export BED := chaos
chaos: check build
	@tests/testbed/bed down
	@$(MAKE) --no-print-directory bed
	@tests/testbed/bed run cargo test --offline --quiet --test all -- --ignored --exact cluster::chaos::every_fault_is_survived --nocapture; \
	  result=$$?; tests/testbed/bed down; exit $$result

## bench-db: measure the data engine beside mysqldump, mydumper and mariadb-backup on a server of its own; ROWS="1000000 5000000" RUNS=3
.PHONY: bench-db
bench-db: check own
	@{ command -v mydumper && command -v mariadb-backup; } >/dev/null || apt-get install -qy --no-install-recommends mydumper mariadb-backup
	@cargo bench --quiet --locked --bench db

## build: the operator, the sample application and all tests
.PHONY: build
build: own
	cargo build --workspace --all-targets --locked

## crds: write crds/ from the Rust types
.PHONY: crds
crds:
	cargo run --quiet --locked -- crd --dir crds

# Cargo names a package's output by its place in the workspace: checkouts that share a build folder would take each other's
# for their own. Whoever comes after another checkout therefore builds its own packages anew; dependencies stay.
.PHONY: own
own:
	@mkdir -p $(CARGO_BUILD_BUILD_DIR)
	@if [ "$$(cat $(CARGO_BUILD_BUILD_DIR)/checkout 2>/dev/null)" != "$(CURDIR)" ]; then \
	  find src tests -name '*.rs' -exec touch {} +; \
	  echo "$(CURDIR)" > $(CARGO_BUILD_BUILD_DIR)/checkout; \
	fi

.PHONY: check
check:
	@tests/testbed/bed check

# A bed that is up, with the images of this checkout in it.
.PHONY: bed
bed:
	@tests/testbed/bed up
	@mkdir -p target/image
	@strip -o target/image/backout $(OUT)/backout
	@tests/testbed/bed image docker.io/backout/backout:$(VERSION) /backout --user 65532 /backout=target/image/backout $(CA)=$(CA)
	@for version in $(LIQUI); do \
	  strip -o target/image/liqui $(OUT)/liqui-$$version; \
	  tests/testbed/bed image docker.io/liqui/liqui:$${version//-/.} /liqui --user 65532 /liqui=target/image/liqui; \
	done

.PHONY: help
help:
	@grep -E '^## ' $(MAKEFILE_LIST) | sed 's/^## /  make /'

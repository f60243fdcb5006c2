# The one front door. Every target installs what it needs first and says what and why.
SHELL := /bin/bash
export PATH := $(CURDIR)/target/tools/bin:$(HOME)/.cargo/bin:/usr/local/go/bin:$(PATH)

.PHONY: run test lint bench compose-test

# Builds the node and starts the demo: two simulated drones and two phones, a live map in the browser.
run:
	.ci/setup.sh build
	cargo build --release --locked --package sovereign-node
	target/release/sovereign-node demo

# Formatting, lints, and every test.
test:
	.ci/setup.sh test
	cargo fmt --all --check
	cargo clippy --workspace --all-targets --locked -- --deny warnings
	cargo test --workspace --locked
	npm --prefix services/mobile-ingest/web test

# Formatting, lints, licences, sources, duplicate bans, and advisories where their database is reached.
lint:
	.ci/setup.sh test
	cargo fmt --all --check
	cargo clippy --workspace --all-targets --locked -- --deny warnings
	command -v cargo-deny >/dev/null || cargo install cargo-deny --locked
	cargo deny --locked check bans licenses sources
	if cargo deny --locked fetch db; then cargo deny --locked check --disable-fetch advisories; \
	else echo "lint: the database of advisories is not reached from here, so none was checked"; fi

# Every figure of docs/benchmarks.md, measured here against its peer; BENCH='p2 --json' for less.
bench:
	.ci/setup.sh bench
	cargo build --release --locked --workspace
	target/release/bench $(BENCH)

# The split system in real containers: the same flight, the same tiles.
compose-test:
	.ci/setup.sh test
	.ci/compose-test.sh

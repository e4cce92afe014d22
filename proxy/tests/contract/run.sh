#!/bin/sh
# Checks the contract of a running service with schemathesis: run.sh [URL] [cases per operation]. Needs Redis, a proxy
# without rate limit and a worker behind URL, and `schemathesis` (PyPI) in PATH. Where the service has keys, API_KEY is one
# that may do everything.
set -eu
here=$(CDPATH='' cd "$(dirname "$0")" && pwd)
cd "$here"
config=$(mktemp)
trap 'rm -f "$config"' EXIT
cat schemathesis.toml > "$config"
if [ -n "${API_KEY:-}" ]; then
    # The tool reads the key from the environment, and leaves it out where that must be refused.
    printf '\n[auth.openapi.apiKey]\napi_key = "${API_KEY}"\n' >> "$config"
fi
SCHEMATHESIS_HOOKS=hooks PYTHONPATH="$here" schemathesis --config-file "$config" run \
    "${1:-http://127.0.0.1:8000}/openapi.json" --checks all --continue-on-failure --workers 4 \
    --max-examples "${2:-200}" --request-timeout 10 --suppress-health-check all

#!/bin/sh
# Checks the contract of a running service with schemathesis: run.sh [URL] [least number of cases]. Needs Redis, a proxy without
# rate limit and a worker behind URL, and `schemathesis` (PyPI, under Python 3.12 or later) in PATH. Where the service has keys,
# API_KEY is one that may do everything. CONTENT_MODEL is the name of a model with one input of BYTES, such as `wide` in
# tests/chaos-models: bodies that are content are for it.
#
# One run has up to 200 cases for each operation and kind of input, and stops sooner where an operation has no more. With more cases
# in one run the tool mostly repeats itself and gets slower, so runs with other seeds follow until there are as many as were wanted.
set -eu
: "${CONTENT_MODEL:?set it to the name of a model with one input of BYTES}"
url=${1:-http://127.0.0.1:8000}
wanted=${2:-3000}
here=$(CDPATH='' cd "$(dirname "$0")" && pwd)
cd "$here"
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
cat schemathesis.toml > "$dir/config.toml"
if [ -n "${API_KEY:-}" ]; then
    # The tool reads the key from the environment, and leaves it out where that must be refused.
    printf '\n[auth.openapi.apiKey]\napi_key = "${API_KEY}"\n' >> "$dir/config.toml"
fi
cases=0
status=0
while [ "$cases" -lt "$wanted" ] && [ "$status" -eq 0 ]; do
    # use_after_free: DELETE cancels a job; its record stays and is read until it expires. It has to be named here, since
    # `--checks all` overrides the configuration file.
    SCHEMATHESIS_HOOKS=hooks PYTHONPATH="$here" schemathesis --config-file "$dir/config.toml" run "$url/openapi.json" \
        --checks all --exclude-checks use_after_free --continue-on-failure --workers 4 --max-examples 200 \
        --request-timeout 10 --suppress-health-check all > "$dir/report" 2>&1 || status=$?
    cat "$dir/report"
    more=$(sed -n 's/^ *\([0-9][0-9]*\) generated.*/\1/p' "$dir/report")
    if [ -z "$more" ]; then
        echo "run.sh: the report has no number of cases" >&2
        exit 2
    fi
    cases=$((cases + more))
    echo "run.sh: $cases of $wanted cases, exit status $status"
done
exit "$status"

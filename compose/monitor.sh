#!/usr/bin/env bash
# Watches what `make up` started with a local Prometheus, with the rules and alerts of production. Prints the address of its
# console. Ctrl-C stops it.
#
#   --port N            port of the API (8000)
#   --metrics-port N    first port at which to search for workers (9100)
#   --console-port N    port of Prometheus, or the next free one (9090)
#
# The measurements are kept in $TEPAL_DATA_DIR/prometheus (.run/prometheus).
set -euo pipefail
cd "$(dirname "$0")/.."

port=8000
metrics_port=9100
console_port=9090
data="${TEPAL_DATA_DIR:-.run}/prometheus"

die() { printf 'tepal: %s\n' "$*" >&2; exit 1; }

while [ $# -gt 0 ]; do
  case "$1" in
    --port) port=${2:-} ;;
    --metrics-port) metrics_port=${2:-} ;;
    --console-port) console_port=${2:-} ;;
    *) die "unknown option $1; there are --port N, --metrics-port N and --console-port N" ;;
  esac
  [[ "${2:-}" =~ ^[0-9]{1,5}$ ]] || die "$1 needs a number"
  shift 2
done

# Whether the port serves metrics with this name.
serves() { [[ "$(curl -sf --max-time 2 "http://127.0.0.1:$1/metrics")" == *$'\n'"$2"* ]]; }
is_taken() { (exec 3<>"/dev/tcp/127.0.0.1/$1") 2>/dev/null; }

command -v prometheus >/dev/null && command -v curl >/dev/null || compose/local.sh install
serves "$port" tepal_redis_up || die "no proxy serves metrics on port $port; start it with: make up PORT=$port"

# `make up` gives each worker the next free port.
workers=()
for ((candidate = metrics_port; candidate < metrics_port + 64; candidate++)); do
  if is_taken "$candidate" && serves "$candidate" tepal_breaker_open; then workers+=("127.0.0.1:$candidate"); fi
done
[ "${#workers[@]}" -gt 0 ] || die "no worker serves metrics on port $metrics_port or the 63 after it"

while is_taken "$console_port"; do console_port=$((console_port + 1)); done
mkdir -p "$data"
here=$PWD/compose
cat >"$data/prometheus.yml" <<YAML
global: { scrape_interval: 5s, evaluation_interval: 5s }
rule_files: ["$here/rules.yml", "$here/alerts.yml"]
scrape_configs:
  - { job_name: tepal-proxy, static_configs: [{ targets: ["127.0.0.1:$port"] }] }
  - { job_name: tepal-worker, static_configs: [{ targets: [$(IFS=,; printf '%s' "${workers[*]}")] }] }
YAML

cat <<TEXT
Prometheus watches the proxy on port $port and ${#workers[@]} workers: ${workers[*]}

  Console   http://127.0.0.1:$console_port
  Targets   http://127.0.0.1:$console_port/targets
  Alerts    http://127.0.0.1:$console_port/alerts
  A graph   http://127.0.0.1:$console_port/graph?g0.tab=0&g0.range_input=15m&g0.expr=sum%20by%20(outcome)%20(rate(tepal_jobs_processed_total%5B1m%5D))

Ctrl-C stops it.
TEXT
exec prometheus --config.file="$data/prometheus.yml" --storage.tsdb.path="$data/data" --log.level=warn \
  --web.listen-address="127.0.0.1:$console_port"

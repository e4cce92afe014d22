#!/usr/bin/env bash
# Runs Tepal on this machine without containers: a private Redis, the proxy and the workers with the in-process model.
#
#   compose/local.sh install                            what the services and the tests need
#   compose/local.sh up [--port N] [--redis-port N] [--workers N]
#                                                       build, start, wait until healthy; Ctrl-C stops everything
set -euo pipefail
cd "$(dirname "$0")/.."

port=8000
redis_port=6390
workers=2
target="${CARGO_TARGET_DIR:-target}"
data="${TEPAL_DATA_DIR:-.run}"

say() { printf '%s\n' "$*"; }
die() { printf 'tepal: %s\n' "$*" >&2; exit 1; }

# Installs redis-server with the system's package manager if it is missing.
install_redis() {
  command -v redis-server >/dev/null && return
  say "Installing redis-server ..."
  local sudo=""
  [ "$(id -u)" -eq 0 ] || sudo="sudo"
  if command -v apt-get >/dev/null; then
    # The package starts a Redis of its own on port 6379; Tepal uses a private one, so that it is kept from starting.
    $sudo env DEBIAN_FRONTEND=noninteractive RUNLEVEL=1 sh -c 'apt-get update -q && apt-get install -y -q redis-server'
  elif command -v dnf >/dev/null; then
    $sudo dnf install -y redis
  elif command -v apk >/dev/null; then
    $sudo apk add redis
  elif command -v brew >/dev/null; then
    brew install redis
  fi
  command -v redis-server >/dev/null || die "redis-server is missing and could not be installed; install Redis 7.0 or later"
}

options() {
  while [ $# -gt 0 ]; do
    case "$1" in
      --port) port="${2:-}"; shift 2 ;;
      --redis-port) redis_port="${2:-}"; shift 2 ;;
      --workers) workers="${2:-}"; shift 2 ;;
      *) die "unknown option $1; there are --port N, --redis-port N and --workers N" ;;
    esac
  done
  check_number --port "$port" 65535
  check_number --redis-port "$redis_port" 65535
  check_number --workers "$workers" 64
}

check_number() {
  [[ "$2" =~ ^[0-9]{1,5}$ ]] && [ "$2" -ge 1 ] && [ "$2" -le "$3" ] || die "$1 must be a number from 1 to $3, not '$2'"
}

# Whether something listens on that port of this machine.
is_taken() { (exec 3<>"/dev/tcp/127.0.0.1/$1") 2>/dev/null; }

# The given port if it is free, else the next free one above it.
free_port_from() {
  local candidate=$1
  while is_taken "$candidate"; do candidate=$((candidate + 1)); done
  printf '%s' "$candidate"
}

pids=()
stop_all() {
  trap - EXIT INT TERM
  local pid
  # Services first, so that they drain while Redis still answers; Redis is the first that was started.
  for ((i = ${#pids[@]} - 1; i >= 0; i--)); do
    pid=${pids[$i]}
    [ "$i" -gt 0 ] || for other in "${pids[@]:1}"; do wait "$other" 2>/dev/null || true; done
    kill -TERM "$pid" 2>/dev/null || true
  done
  for pid in "${pids[@]}"; do wait "$pid" 2>/dev/null || true; done
}

# Starts a program in the background with its output in a file. Its own process group keeps the terminal's Ctrl-C from
# it: this script stops the parts in order.
start() {
  local log=$1
  shift
  setsid "$@" >>"$data/$log" 2>&1 &
  pids+=($!)
}

# Whether GET /health on that port answers 200. Needs nothing but bash.
is_healthy() {
  local status=""
  { exec 3<>"/dev/tcp/127.0.0.1/$1"; } 2>/dev/null || return 1
  printf 'GET /health HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n' >&3
  read -r -t 5 status <&3 || true
  exec 3>&-
  [[ "$status" == *" 200 "* ]]
}

part_stopped() {
  tail -n 5 "$data"/*.log >&2
  die "a part has stopped; the end of its log is above, all of it is in $data"
}

# Waits until the proxy is healthy; gives up when a part has died.
wait_until_healthy() {
  local deadline=$((SECONDS + 60)) pid
  until is_healthy "$port"; do
    for pid in "${pids[@]}"; do kill -0 "$pid" 2>/dev/null || part_stopped; done
    [ "$SECONDS" -lt "$deadline" ] || { tail -n 5 "$data"/*.log >&2; die "not healthy after 60 s; the logs are in $data"; }
    sleep 0.1
  done
}

up() {
  options "$@"
  is_taken "$port" && die "port $port is in use; stop what listens there or choose another: make up PORT=$((port + 1))"
  is_taken "$redis_port" &&
    die "port $redis_port, for Redis, is in use; stop what listens there or choose another: make up REDIS_PORT=$((redis_port + 1))"
  install_redis
  say "Building ..."
  cargo build --release --quiet -p tepal-proxy -p tepal-worker
  mkdir -p "$data"
  rm -f "$data"/*.log

  trap stop_all EXIT
  trap 'exit 130' INT TERM
  start redis.log redis-server compose/redis.conf --bind 127.0.0.1 --port "$redis_port" --dir "$data" --daemonize no

  export REDIS_URL="redis://127.0.0.1:$redis_port" MODELS_DIR=compose/models LOG_FORMAT=json
  local metrics_port=9100 metrics_urls=()
  for ((n = 1; n <= workers; n++)); do
    metrics_port=$(free_port_from "$metrics_port")
    METRICS_ADDR="127.0.0.1:$metrics_port" NUM_WORKERS=1 start "worker-$n.log" "$target/release/tepal-worker"
    metrics_urls+=("http://127.0.0.1:$metrics_port/metrics")
    metrics_port=$((metrics_port + 1))
  done
  LISTEN_ADDR="127.0.0.1:$port" RATE_LIMIT_PER_MINUTE=0 start proxy.log "$target/release/tepal-proxy"
  wait_until_healthy

  cat <<TEXT

Tepal is up. Nothing is limited here: the per-client rate limit is off.

  API      http://127.0.0.1:$port          health: /health   model: /metadata
  Metrics  http://127.0.0.1:$port/metrics  workers: ${metrics_urls[*]}
  Redis    redis-cli -p $redis_port
  Logs     $data/

Try it:

  curl -s http://127.0.0.1:$port/predict -H 'content-type: application/json' -d '{"data": [[5.1, 3.5, 1.4, 0.2]]}'
  curl -s http://127.0.0.1:$port/job/JOB_ID

Ctrl-C stops everything.
TEXT
  # Ends when any part ends, which it should not.
  wait -n "${pids[@]}" || true
  part_stopped
}

case "${1:-}" in
  install) install_redis ;;
  up) shift; up "$@" ;;
  *) sed -n '2,7p' "$0" | sed 's/^# \{0,1\}//'; exit 2 ;;
esac

#!/usr/bin/env bash
# Runs Tepal on this machine without containers: a private Redis, the proxy and the workers with the in-process model.
#
#   compose/local.sh install            installs what `up` and the tests need
#   compose/local.sh up                 builds, starts, waits until healthy; Ctrl-C stops everything
#   compose/local.sh onnxruntime DIR    installs the ONNX Runtime library into DIR and prints its path
#
# Options of up:
#   --port N            port of the API (8000)
#   --grpc-port N       port for gRPC (8001)
#   --redis-port N      port of the private Redis (6390)
#   --workers N         number of worker processes (2)
#   --backend NAME      what runs the model: onnx or onnxruntime (onnx)
#   --metrics-port N    first port of the workers' metrics; each takes the next free one (9100)
#   --programs DIR      start tepal-proxy and tepal-worker from DIR instead of building them
#
# Jobs, passwords of Redis's users and the ONNX Runtime library are kept in $TEPAL_DATA_DIR (.run). The next start uses them
# again.
set -euo pipefail
cd "$(dirname "$0")/.."

port=8000
grpc_port=8001
redis_port=6390
metrics_port=9100
workers=2
backend=onnx
programs=""
data="${TEPAL_DATA_DIR:-.run}"
users=""

say() { printf '%s\n' "$*"; }
die() { printf 'tepal: %s\n' "$*" >&2; exit 1; }

# install_package PROGRAM PACKAGE: installs the package with the system's package manager if the program is missing.
install_package() {
  command -v "$1" >/dev/null && return
  say "Installing $2 ..."
  local as_root=""
  [ "$(id -u)" -eq 0 ] || as_root="sudo"
  # A package manager that fails says why. What it means for Tepal is reported below.
  if command -v apt-get >/dev/null; then
    $as_root apt-get update -q && $as_root env DEBIAN_FRONTEND=noninteractive RUNLEVEL=1 apt-get install -y -q --no-install-recommends "$2"
  elif command -v dnf >/dev/null; then
    $as_root dnf install -y "$2"
  elif command -v apk >/dev/null; then
    $as_root apk add "$2"
  fi || true
  command -v "$1" >/dev/null || die "$1 is missing and could not be installed; please install it"
}

# Only the program of Redis is needed: Tepal starts its own server. RUNLEVEL=1 above keeps Debian's package from starting the
# system's Redis where no systemd runs. With systemd that Redis listens on port 6379 and does no harm.
install_redis() {
  local name=redis-server
  command -v apt-get >/dev/null || name=redis
  install_package redis-server "$name"
  local version
  version=$(redis-server --version | sed -n 's/.* v=\([0-9]*\)\..*/\1/p')
  [ "${version:-0}" -ge 7 ] || die "$(command -v redis-server) is too old; Tepal needs Redis 7.0 or later"
}

# Small images lack them. Without flock, the lock below would seem to be taken.
check_tools() {
  local tool
  for tool in flock setsid; do
    command -v "$tool" >/dev/null || die "$tool is missing; install the package util-linux"
  done
}

options() {
  while [ $# -gt 0 ]; do
    case "$1" in
      --port) port="${2:-}" ;;
      --grpc-port) grpc_port="${2:-}" ;;
      --redis-port) redis_port="${2:-}" ;;
      --workers) workers="${2:-}" ;;
      --backend) backend="${2:-}" ;;
      --metrics-port) metrics_port="${2:-}" ;;
      --programs) programs="${2:-}" ;;
      *) die "unknown option '$1'; compose/local.sh alone lists the options" ;;
    esac
    [ $# -ge 2 ] || die "$1 needs a value"
    shift 2
  done
  check_number --port "$port" 65535
  check_number --grpc-port "$grpc_port" 65535
  check_number --redis-port "$redis_port" 65535
  check_number --metrics-port "$metrics_port" 65000
  check_number --workers "$workers" 64
  [[ "$backend" =~ ^onnx(runtime)?$ ]] || die "--backend must be onnx or onnxruntime, not '$backend'"
  [ "$port" != "$redis_port" ] || die "the API and Redis cannot both have port $port"
  [ "$port" != "$grpc_port" ] || die "the API and gRPC cannot both have port $port"
  [ "$grpc_port" != "$redis_port" ] || die "gRPC and Redis cannot both have port $grpc_port"
}

check_number() {
  [[ "$2" =~ ^[1-9][0-9]{0,4}$ ]] && [ "$2" -le "$3" ] || die "$1 must be a number from 1 to $3, not '$2'"
}

# Whether something listens on the port.
is_taken() { (exec 3<>"/dev/tcp/127.0.0.1/$1") 2>/dev/null; }

refuse_taken_ports() {
  ! is_taken "$port" ||
    die "port $port is in use; stop what listens there or choose another: make up PORT=$((port + 1))"
  ! is_taken "$grpc_port" ||
    die "port $grpc_port, for gRPC, is in use; stop what listens there or choose another:" \
      "make up GRPC_PORT=$((grpc_port + 1))"
  ! is_taken "$redis_port" ||
    die "port $redis_port, for Redis, is in use; stop what listens there or choose another:" \
      "make up REDIS_PORT=$((redis_port + 1))"
}

# Sets metrics_port to the next port that is free and not meant for another part.
next_metrics_port() {
  while [ "$metrics_port" = "$port" ] || [ "$metrics_port" = "$grpc_port" ] || [ "$metrics_port" = "$redis_port" ] ||
    is_taken "$metrics_port"; do
    metrics_port=$((metrics_port + 1))
  done
}

# Two Redis servers that write the same append-only file would destroy it. The parts inherit the lock, so a new start also
# fails while a part of a killed one still runs.
lock_data() {
  mkdir -p "$data"
  exec 9>"$data/lock"
  flock --nonblock 9 || die "Tepal already runs with the data in $data; for a second one: make up TEPAL_DATA_DIR=.run-2 ..."
}

# Makes the same users of Redis as the composition. Sets `users` to the ACL file.
make_users() {
  local template=users-7.2.acl version secrets
  version=$(redis-server --version | sed -n 's/.* v=\([0-9]*\.[0-9]*\)\..*/\1/p')
  [ "$version" != 7.0 ] || template=users.acl
  secrets=$(cd "$data" && pwd)/secrets
  mkdir -p "$secrets"/{proxy,worker,operator,grafana,redis}
  chmod 700 "$secrets"
  sh compose/secrets.sh "compose/$template" "$secrets" || die "the users of Redis could not be made"
  users=$secrets/redis/users.acl
}

password_of() { cat "$data/secrets/$1/password"; }

# The library is the same for all versions of Python, so any python3 with pip can fetch it.
onnxruntime_version=1.32.0

# install_onnxruntime DIR: installs the ONNX Runtime library into DIR, unless it is there, and prints its path.
install_onnxruntime() {
  local library="$1/onnxruntime/capi/libonnxruntime.so.$onnxruntime_version"
  mkdir -p "$1"
  # Several tests may need it at once.
  exec 8>"$1/lock"
  flock 8
  [ -f "$library" ] || fetch_onnxruntime "$1" >&2
  exec 8>&-
  printf '%s\n' "$library"
}

fetch_onnxruntime() {
  say "Installing ONNX Runtime $onnxruntime_version ..."
  python3 -m pip --version >/dev/null 2>&1 ||
    die "python3 with pip is missing; install it (on Debian the package python3-pip), or set ORT_DYLIB_PATH to a libonnxruntime.so"
  python3 -m pip install --quiet --disable-pip-version-check --root-user-action ignore --no-deps --upgrade \
    --target "$1" --only-binary :all: --platform "manylinux_2_28_$(uname -m)" --python-version 3.11 "onnxruntime==$onnxruntime_version" ||
    die "ONNX Runtime could not be installed; pip says why above. It needs a network, or set ORT_DYLIB_PATH to a libonnxruntime.so"
}

# Exports what the workers need to run the model.
choose_backend() {
  export MODEL_BACKEND=$backend
  [ "$backend" = onnxruntime ] || return 0
  # A library that the user named is taken instead.
  [ -z "${ORT_DYLIB_PATH:-}" ] || return 0
  ORT_DYLIB_PATH=$(install_onnxruntime "$(cd "$data" && pwd)/onnxruntime") || exit 1
  export ORT_DYLIB_PATH
}

# Sets `programs` to the folder of the programs.
build() {
  command -v cargo >/dev/null || die "cargo is missing; install Rust 1.92 or later, see https://rustup.rs"
  say "Building; the first time takes some minutes ..."
  # Without the lock: cargo may leave a compiler cache running.
  cargo build --release -p tepal-proxy -p tepal-worker 9>&-
  # cargo knows it; the user's settings may change it.
  local target
  target=$(cargo metadata --no-deps --format-version 1 | sed -n 's/.*"target_directory":"\([^"]*\)".*/\1/p')
  programs=$target/release
}

pids=()
names=()

# start NAME PROGRAM...: starts a part in the background, its output in a file. Its own session keeps the terminal's Ctrl-C
# from it: this script stops the parts in order.
start() {
  local name=$1
  shift
  setsid "$@" </dev/null >>"$data/$name.log" 2>&1 &
  pids+=($!)
  names+=("$name")
}

# Services first, so that they drain while Redis, the first of the parts, still answers.
stop_all() {
  trap - EXIT
  # A second Ctrl-C means: do not wait.
  trap 'kill -KILL "${pids[@]}" 2>/dev/null || true' INT TERM HUP
  if [ "${#pids[@]}" -gt 0 ]; then
    stop_parts "${pids[@]:1}"
    stop_parts "${pids[0]}"
  fi
}

stop_parts() {
  local pid
  for pid in "$@"; do kill -TERM "$pid" 2>/dev/null || true; done
  for pid in "$@"; do
    # A signal ends `wait` early.
    while kill -0 "$pid" 2>/dev/null; do wait "$pid" 2>/dev/null || true; done
  done
}

# Whether GET /health of the proxy answers 200. Needs nothing but bash.
is_healthy() {
  local status=""
  { exec 3<>"/dev/tcp/127.0.0.1/$port"; } 2>/dev/null || return 1
  printf 'GET /health HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n' >&3
  read -r -t 5 status <&3 || true
  exec 3>&-
  [[ "$status" == *" 200 "* ]]
}

# Ends the script if a part has ended.
check_parts() {
  local i
  for i in "${!pids[@]}"; do
    kill -0 "${pids[$i]}" 2>/dev/null || {
      tail -n 5 "$data/${names[$i]}.log" >&2
      die "${names[$i]} has stopped; the end of its log is above, the rest in $data/${names[$i]}.log"
    }
  done
}

wait_until_healthy() {
  local deadline=$((SECONDS + 60))
  until is_healthy; do
    check_parts
    [ "$SECONDS" -lt "$deadline" ] || { tail -n 5 "$data"/*.log >&2; die "not healthy after 60 s; the logs are in $data"; }
    sleep 0.1
  done
}

up() {
  options "$@"
  check_tools
  refuse_taken_ports
  install_redis
  lock_data
  choose_backend
  [ -n "$programs" ] || build
  # Building takes a while.
  refuse_taken_ports
  rm -f "$data"/*.log

  trap stop_all EXIT
  trap 'exit 130' INT
  trap 'exit 143' TERM HUP
  make_users
  start redis redis-server compose/redis.conf --bind 127.0.0.1 --port "$redis_port" --dir "$data" --aclfile "$users" \
    --daemonize no

  export REDIS_URL="redis://127.0.0.1:$redis_port" MODELS_DIR=compose/models LOG_FORMAT=json
  export REDIS_USERNAME=tepal-worker REDIS_PASSWORD
  REDIS_PASSWORD=$(password_of worker)
  local metrics_urls=()
  for ((n = 1; n <= workers; n++)); do
    next_metrics_port
    METRICS_ADDR="127.0.0.1:$metrics_port" NUM_WORKERS=1 start "worker-$n" "$programs/tepal-worker"
    metrics_urls+=("http://127.0.0.1:$metrics_port/metrics")
    metrics_port=$((metrics_port + 1))
  done
  REDIS_USERNAME=tepal-proxy REDIS_PASSWORD=$(password_of proxy)
  LISTEN_ADDR="127.0.0.1:$port" GRPC_LISTEN_ADDR="127.0.0.1:$grpc_port" RATE_LIMIT_PER_MINUTE=0 start proxy "$programs/tepal-proxy"
  wait_until_healthy

  cat <<TEXT

Tepal is up. Nothing is limited here: the per-client rate limit is off.

  API      http://127.0.0.1:$port          health: /health   model: /metadata
  gRPC     127.0.0.1:$grpc_port          Open Inference Protocol, see docs/protocols.md
  Metrics  http://127.0.0.1:$port/metrics  workers: ${metrics_urls[*]}
  Redis    REDISCLI_AUTH=\$(cat $data/secrets/operator/password) redis-cli -p $redis_port --user tepal-operator
  Logs     $data/

Try it:

  curl -s http://127.0.0.1:$port/predict -H 'content-type: application/json' -d '{"data": [[5.1, 3.5, 1.4, 0.2]]}'
  curl -s http://127.0.0.1:$port/job/JOB_ID

Ctrl-C stops everything.
TEXT
  while sleep 1; do check_parts; done
}

case "${1:-}" in
  install) install_redis; install_package curl curl; install_package strace strace; install_package prometheus prometheus ;;
  up) shift; up "$@" ;;
  onnxruntime) check_tools; install_onnxruntime "${2:?a folder}" ;;
  *) sed -n '2,/^set/s/^# \{0,1\}//p' "$0"; exit 2 ;;
esac
